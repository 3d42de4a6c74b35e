package link

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// peer is a node of the fleet as WireGuard sees it: a virtual endpoint, behind
// which packets travel by whatever route is in use. The device keeps the
// pointer for as long as it has the peer.
type peer struct {
	bind *Bind
	id   wire.ID
	pair atomic.Pointer[wire.Pair]
	// silent is the one of a node's two keys that it does not use, as far as we
	// know. See rekey.go.
	silent, spoke atomic.Bool

	use     atomic.Pointer[path.Use]
	line    atomic.Pointer[path.Line] // of a hub
	counter atomic.Uint64             // of our Forwards to it, a hub

	lastTx, lastRx   atomic.Int64 // by Bind.nano; Rx by the primary only
	lastOther        atomic.Int64 // the same, by any other route
	other            atomic.Pointer[path.Route]
	txBytes, rxBytes atomic.Uint64 // of WireGuard's messages, by any route
	quiet            atomic.Bool   // the next data sent shall be announced

	// Of sessions; times are by Bind.nano, 0 for never. See handshake.go.
	session  atomic.Int64  // when data was last sealed; 0 when there is no session
	index    atomic.Uint32 // the peer's name for the keys it was sealed with
	lost     atomic.Uint32 // the same of keys that the peer does not have
	begun    atomic.Int64  // when we last began a handshake
	asked    atomic.Int64  // and when last such a message left
	mine     atomic.Uint32 // our name for what it was about
	answered atomic.Int64  // when the peer last answered one
	waiting  atomic.Bool   // ours may lack an answer
	greeted  atomic.Int64  // when the peer began one
	owing    atomic.Bool   // that or a later one is not answered
	met      atomic.Int64  // when we last answered one

	shutSince atomic.Int64 // when data came of which nothing was opened since
	shut      atomic.Int64 // when it still came, shutFor later
	voidAt    atomic.Int64 // when we last began a handshake for that
	voids     atomic.Int32 // how often in a row

	names [indexes]uint32 // ours for keys, which the peer knows; guarded by bind.namesMu
	name  int             // the next of them

	lastShare atomic.Pointer[share]

	mu      sync.Mutex // of what follows
	unsent  []byte     // a handshake message that there was no way for
	stuckAt time.Time
	shares  []*share
}

var _ conn.Endpoint = (*peer)(nil)

func newPeer(b *Bind, pair *wire.Pair) *peer {
	p := &peer{bind: b, id: pair.Peer}
	p.pair.Store(pair)
	p.use.Store(&path.Use{})
	p.line.Store(&path.Line{})
	p.quiet.Store(true)
	return p
}

// endpointPrefix starts the text that ParseEndpoint takes for a peer.
const endpointPrefix = "moggy:"

// endpointOf is what the device is told, for ParseEndpoint to find the peer.
func endpointOf(id wire.ID) string { return endpointPrefix + id.String() }

func parseID(s string) (id wire.ID, ok bool) {
	text, ok := strings.CutPrefix(s, endpointPrefix)
	if !ok || len(text) != hex.EncodedLen(len(id)) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(text))
	return id, err == nil
}

// underlay is where packets go at this moment: the peer itself, or the hub
// before it. Where there is no way it is 0.0.0.0 with our port, because wg(8)
// must be able to print it.
func (p *peer) underlay() netip.AddrPort {
	r := p.use.Load().Route
	if r.Direct() {
		return r.Addr
	}
	if hub := p.bind.peer(r.Hub); hub != nil {
		if line := hub.line.Load(); line.Addr.IsValid() {
			return line.Addr
		}
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), max(p.bind.port, 1))
}

// ClearSrc does nothing: the path engine decides on source addresses.
func (p *peer) ClearSrc() {}

// SrcToString returns "": there is no one source.
func (p *peer) SrcToString() string { return "" }

// SrcIP returns the invalid address: there is no one source.
func (p *peer) SrcIP() netip.Addr { return netip.Addr{} }

// DstToString is the current underlay address, as ip:port, for `wg show`.
func (p *peer) DstToString() string { return p.underlay().String() }

// DstIP is the current underlay address; WireGuard limits handshakes by it.
func (p *peer) DstIP() netip.Addr { return p.underlay().Addr() }

// DstToBytes is the current underlay address; WireGuard binds cookies to it.
func (p *peer) DstToBytes() []byte { return addrBytes(p.underlay()) }

// keep keeps a handshake message that could not be sent, for when there is a way:
// WireGuard itself would wait for 5 s.
func (p *peer) keep(b []byte, now time.Time) {
	p.mu.Lock()
	p.unsent, p.stuckAt = append(p.unsent[:0], b...), now
	p.mu.Unlock()
}

// keepFor is how long a handshake message is worth sending: until WireGuard
// makes another one (RekeyTimeout).
const keepFor = 5 * time.Second

// takeUnsent returns what was kept, if that still makes sense, and forgets it.
func (p *peer) takeUnsent(now time.Time) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.unsent
	p.unsent = nil
	if now.Sub(p.stuckAt) > keepFor {
		return nil
	}
	return b
}

// lookAgain is how often a peer that sends by two routes is worth a look.
const lookAgain = 50 * time.Millisecond

// heard books a message of WireGuard that came by route r, and tells when the
// peer leaves the route that we use.
func (p *peer) heard(r path.Route, size int, now int64) {
	p.rxBytes.Add(uint64(size))
	if !r.Direct() {
		p.by(r.Hub).rx.Add(uint64(size))
	}
	if p.use.Load().Route == r {
		p.lastRx.Store(now)
		return
	}
	if was := p.other.Load(); was == nil || *was != r {
		p.other.Store(&r)
	}
	// While both routes are in use (a hedge), once in a while is enough.
	if before := p.lastOther.Swap(now); p.lastRx.Load() > before && !within(now, before, lookAgain) {
		p.bind.control.Look(p.id)
	}
}

// stranger is the endpoint of a source that is no known address of a node: a
// phone, or a node that moved. It is what it says, so that WireGuard's own
// rate limit, cookies and roaming work.
type stranger struct {
	addr netip.AddrPort
}

var _ conn.Endpoint = stranger{}

func (stranger) ClearSrc()             {}
func (stranger) SrcToString() string   { return "" }
func (stranger) SrcIP() netip.Addr     { return netip.Addr{} }
func (s stranger) DstToString() string { return s.addr.String() }
func (s stranger) DstIP() netip.Addr   { return s.addr.Addr() }
func (s stranger) DstToBytes() []byte  { return addrBytes(s.addr) }

func addrBytes(a netip.AddrPort) []byte {
	b, _ := a.MarshalBinary() // its error is always nil
	return b
}
