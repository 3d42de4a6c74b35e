package link

import (
	"errors"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/relay"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

const (
	batchSize  = conn.IdealBatchSize // of what WireGuard sends
	takeSize   = batchSize / 2       // and of what it takes at once: what the kernel gives in one piece
	wireHeader = wire.RelaySize
)

// Control takes what arrives at the mesh's port and is neither WireGuard's nor
// to be relayed: probes, calls, notices, joins. The frame is valid during the
// call only. It is called from several goroutines.
type Control interface {
	// Frame takes a frame and where it came from.
	Frame(b []byte, from path.Source)
	// Relay tells what became of a Forward that could not be sent on: Unknown
	// or Unreachable.
	Relay(v relay.Verdict, f wire.Frame, from path.Source)
	// Look says that data is sent to a peer that was quiet, or comes from one by
	// another route than before, or that its session may need a Handshake.
	Look(id wire.ID)
}

// Bind is WireGuard's conn.Bind for the mesh: one UDP socket per family on the
// same port, on which WireGuard's own messages, relayed ones and control frames
// arrive. Changes of peers and routes are seen by the next packet; they never
// wait for a packet in flight.
type Bind struct {
	control Control
	relay   *relay.Forwarder // nil if this node is no hub
	epoch   atomic.Uint32
	port    uint16 // the one that was asked for
	plain   bool   // no offloads

	now   func() time.Time
	begin time.Time // what times of peers are counted from

	opening, sealing *flight

	ring   atomic.Pointer[wire.Keyring]
	former atomic.Pointer[wire.Keyring] // of our other key while it is rotated, else empty
	peers  atomic.Pointer[map[wire.ID]*peer]
	direct atomic.Pointer[map[netip.AddrPort]*peer] // by the address in use

	v4, v6 atomic.Pointer[socket]
	mu     sync.Mutex // of Open, Close and changes to the maps

	tight atomic.Int32 // peers that full packets do not reach

	namesMu sync.RWMutex     // of names
	names   map[uint32]*peer // by our name for keys that the peer was told
}

var _ conn.Bind = (*Bind)(nil)

// BindConfig is what a Bind is made of.
type BindConfig struct {
	Control Control
	Relay   *relay.Forwarder // nil if this node is no hub
	Epoch   uint32           // of our frames
	Port    uint16
	// NoOffload gives and takes each packet by itself (no UDP GSO and GRO).
	NoOffload bool
	Now       func() time.Time // the clock; nil for time.Now
}

// NewBind returns a Bind without peers that is not open.
func NewBind(c BindConfig) *Bind {
	now := c.Now
	if now == nil {
		now = time.Now
	}
	b := &Bind{now: now, begin: now(), control: c.Control, relay: c.Relay, port: c.Port, plain: c.NoOffload, opening: newFlight(stallOpening), sealing: newFlight(stallSealing), names: make(map[uint32]*peer)}
	b.epoch.Store(c.Epoch)
	b.ring.Store(&wire.Keyring{})
	b.former.Store(&wire.Keyring{})
	b.peers.Store(&map[wire.ID]*peer{})
	b.direct.Store(&map[netip.AddrPort]*peer{})
	return b
}

// SetEpoch makes epoch what our frames carry.
func (b *Bind) SetEpoch(epoch uint32) { b.epoch.Store(epoch) }

// SetPeers makes the ids, all of them on the ring, the peers. Those that stay
// keep their state.
func (b *Bind) SetPeers(ring *wire.Keyring, ids []wire.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.peers.Load()
	next := make(map[wire.ID]*peer, len(ids))
	for _, id := range ids {
		pair, ok := ring.Pair(id)
		if !ok {
			continue
		}
		if p := old[id]; p != nil { // its pair may be of our former key, until Rekey
			next[id] = p
		} else {
			next[id] = newPeer(b, pair)
		}
	}
	b.ring.Store(ring)
	b.peers.Store(&next)
	b.namesMu.Lock()
	maps.DeleteFunc(b.names, func(_ uint32, p *peer) bool { return next[p.id] != p })
	b.namesMu.Unlock()
	b.indexLocked()
	b.countTightLocked()
}

func (b *Bind) indexLocked() {
	direct := make(map[netip.AddrPort]*peer)
	for _, p := range *b.peers.Load() {
		r := p.use.Load().Route
		if had := direct[r.Addr]; r.Direct() && (had == nil || had.silent.Load()) {
			direct[r.Addr] = p
		}
	}
	b.direct.Store(&direct)
}

func (b *Bind) countTightLocked() {
	n := int32(0)
	for _, p := range *b.peers.Load() {
		if p.use.Load().Narrow {
			n++
		}
	}
	b.tight.Store(n)
}

func (b *Bind) peer(id wire.ID) *peer { return (*b.peers.Load())[id] }

// Use makes packets for a peer travel as u says. A handshake message that there
// was no way for is sent.
func (b *Bind) Use(u path.Use, now time.Time) {
	p := b.peer(u.Peer)
	if p == nil {
		return
	}
	b.mu.Lock()
	old := p.use.Swap(&u)
	if old.Route != u.Route {
		b.indexLocked()
	}
	if old.Narrow != u.Narrow {
		b.countTightLocked()
	}
	b.mu.Unlock()
	if old.Route == u.Route || u.Route.IsZero() {
		return
	}
	b.sendUnsent(p, now)
}

// sendUnsent sends what there was no way for.
func (b *Bind) sendUnsent(p *peer, now time.Time) {
	if p.silent.Load() {
		return
	}
	if hello := p.takeUnsent(now); len(hello) > 0 {
		if wire.Initiation(hello) {
			p.asked.Store(b.nano(now))
		}
		u := p.use.Load()
		_ = b.transmit(p, u.Route, u.Local, [][]byte{hello}) // WireGuard tries again anyway
	}
}

// Line sets where a hub is sent what it shall relay.
func (b *Bind) Line(l path.Line) {
	if p := b.peer(l.Hub); p != nil {
		p.line.Store(&l)
	}
}

// Open implements conn.Bind.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.v4.Load() != nil || b.v6.Load() != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	var fns []conn.ReceiveFunc
	v4, err := listen("udp4", port, !b.plain)
	switch {
	case err == nil:
		port = v4.port()
		b.v4.Store(v4)
		fns = append(fns, b.receiver(v4))
	case !errors.Is(err, syscall.EAFNOSUPPORT):
		return nil, 0, err
	}
	v6, err := listen("udp6", port, !b.plain)
	switch {
	case err == nil:
		port = v6.port()
		b.v6.Store(v6)
		fns = append(fns, b.receiver(v6))
	case !errors.Is(err, syscall.EAFNOSUPPORT):
		b.closeLocked()
		return nil, 0, err
	}
	if len(fns) == 0 {
		return nil, 0, syscall.EAFNOSUPPORT
	}
	return fns, port, nil
}

// Close implements conn.Bind.
func (b *Bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closeLocked()
}

func (b *Bind) closeLocked() error {
	var errs []error
	for _, s := range []*socket{b.v4.Swap(nil), b.v6.Swap(nil)} {
		if s != nil {
			errs = append(errs, s.conn.Close())
		}
	}
	return errors.Join(errs...)
}

// SetMark implements conn.Bind: the mark of all that is sent from now on.
func (b *Bind) SetMark(mark uint32) error {
	for _, s := range []*socket{b.v4.Load(), b.v6.Load()} {
		if s == nil {
			continue
		}
		if err := s.setMark(mark); err != nil {
			return err
		}
	}
	return nil
}

// BatchSize implements conn.Bind.
func (b *Bind) BatchSize() int { return takeSize }

// ParseEndpoint implements conn.Bind: the name of a peer, as the device is told
// it, or the address of a plain WireGuard client.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	if id, ok := parseID(s); ok {
		if p := b.peer(id); p != nil {
			return p, nil
		}
		return nil, errors.New("no such peer")
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return stranger{netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}, nil
}

// Counters are what a Bind knows of the traffic with a peer.
type Counters struct {
	TxBytes, RxBytes uint64 // of WireGuard's messages, by any route
	path.Traffic
}

// Counters returns the traffic with a peer.
func (b *Bind) Counters(id wire.ID) Counters {
	p := b.peer(id)
	if p == nil {
		return Counters{}
	}
	c := Counters{TxBytes: p.txBytes.Load(), RxBytes: p.rxBytes.Load()}
	c.Tx, c.Rx, c.OtherRx = b.when(p.lastTx.Load()), b.when(p.lastRx.Load()), b.when(p.lastOther.Load())
	if r := p.other.Load(); r != nil {
		c.Other = *r
	}
	return c
}

// SessionFor is how long WireGuard's sessions last (its RejectAfterTime).
const SessionFor = 180 * time.Second

// Quiet asks for Control.Look at the next data for the peer.
func (b *Bind) Quiet(id wire.ID) {
	if p := b.peer(id); p != nil {
		p.quiet.Store(true)
	}
}

// nano is a time as peers keep it: nanoseconds since the Bind was made, which
// setting the clock does not change. It is never 0, which means never.
func (b *Bind) nano(t time.Time) int64 { return max(int64(t.Sub(b.begin)), 0) + 1 }

// when is the reverse.
func (b *Bind) when(nano int64) time.Time {
	if nano == 0 {
		return time.Time{}
	}
	return b.begin.Add(time.Duration(nano - 1))
}

// Underlay is where packets for a peer go at this moment.
func (b *Bind) Underlay(id wire.ID) netip.AddrPort {
	p := b.peer(id)
	if p == nil {
		return netip.AddrPort{}
	}
	return p.underlay()
}
