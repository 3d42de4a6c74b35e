package link

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/relay"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

var errNoRoute = errors.New("no route")

// Send implements conn.Bind.
func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	switch ep := ep.(type) {
	case *peer:
		return b.sendPeer(ep, bufs)
	case stranger:
		return b.write(nil, bufs, ep.addr, netip.Addr{})
	}
	return conn.ErrWrongEndpointType
}

func (b *Bind) sendPeer(p *peer, bufs [][]byte) error {
	now := time.Now()
	data := false
	size := 0
	for _, buf := range bufs {
		size += len(buf)
		data = data || wire.Payload(buf)
	}
	if !wire.Transport(bufs[0]) {
		data = true // a handshake: data will follow
	}
	leaves := true
	if index, ok := wire.ReceiverIndex(bufs[0]); ok && wire.Transport(bufs[0]) {
		p.seals(index, now.UnixNano())
	} else {
		leaves = p.says(bufs[0], now.UnixNano())
	}
	p.txBytes.Add(uint64(size))
	if data {
		p.lastTx.Store(now.UnixNano())
		if p.quiet.Load() && p.quiet.Swap(false) {
			b.control.Look(p.id)
		}
	}
	if !leaves {
		return nil
	}
	u := p.use.Load()
	err := b.transmit(p, u.Route, u.Local, bufs)
	switch {
	case u.Spare.IsZero():
	case err != nil:
		// Refused on this machine (EPERM by a firewall, no route): no need to
		// wait for probes to find out.
		err = b.transmit(p, u.Spare, netip.Addr{}, bufs)
	case u.Hedge && wire.Transport(bufs[0]):
		_ = b.transmit(p, u.Spare, netip.Addr{}, bufs) // the first copy is on its way
	}
	if err != nil && !wire.Transport(bufs[0]) {
		p.keep(bufs[0], now)
	}
	if err != nil && (errors.Is(err, errNoRoute) || Refused(err)) {
		return nil // WireGuard would log each; the path engine sees and tells
	}
	return err
}

// Refused says whether err is this machine's own refusal to send: a firewall, no
// route, no address of that family. It is the same for the next packet.
func Refused(err error) bool {
	for _, e := range []error{unix.EPERM, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT, unix.EINVAL, unix.ECONNREFUSED, unix.ENETDOWN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// transmit sends packets to a peer by exactly that route.
func (b *Bind) transmit(p *peer, r path.Route, local netip.Addr, bufs [][]byte) error {
	if r.Direct() {
		return b.write(nil, bufs, r.Addr, local)
	}
	hub := b.peer(r.Hub)
	if hub == nil {
		return errNoRoute
	}
	line := hub.line.Load()
	if !line.Addr.IsValid() {
		return errNoRoute
	}
	return b.write(func(header, packet []byte) {
		stamp := wire.Stamp{Epoch: b.epoch, Counter: hub.counter.Add(1)}
		hub.pair.PutForward(header, packet, p.id, stamp, 1)
	}, bufs, line.Addr, line.Local)
}

// write sends packets to one address, each behind a relay header if there is a
// head to write it.
func (b *Bind) write(head func(header, packet []byte), bufs [][]byte, to netip.AddrPort, local netip.Addr) error {
	s := b.socketFor(to.Addr())
	if s == nil {
		return unix.EAFNOSUPPORT
	}
	oob := s.source(local)
	batch := s.batch()
	for _, buf := range bufs {
		var header []byte
		if head != nil {
			header = batch.header()
			head(header, buf)
		}
		batch.add(header, buf, to, oob)
	}
	return s.flush(batch)
}

func (b *Bind) socketFor(a netip.Addr) *socket {
	if a.Is4() {
		return b.v4.Load()
	}
	return b.v6.Load()
}

// SendFrame sends a control frame to a peer by exactly that route.
func (b *Bind) SendFrame(id wire.ID, r path.Route, local netip.Addr, frame []byte) error {
	p := b.peer(id)
	if p == nil {
		return errNoRoute
	}
	return b.transmit(p, r, local, [][]byte{frame})
}

// SendTo sends a frame to an address.
func (b *Bind) SendTo(to netip.AddrPort, local netip.Addr, frame []byte) error {
	return b.write(nil, [][]byte{frame}, to, local)
}

// receiver returns the function that wireguard-go calls for packets of s.
func (b *Bind) receiver(s *socket) conn.ReceiveFunc {
	oob := make([][oobSize]byte, batchSize)
	msgs := newBatch(batchSize).msgs
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		for i := range bufs {
			msgs[i].Buffers = append(msgs[i].Buffers[:0], bufs[i])
			msgs[i].OOB = oob[i][:]
		}
		n, err := s.rw.ReadBatch(msgs[:len(bufs)], 0)
		if err != nil {
			return 0, err
		}
		in := inbound{bind: b, sock: s, now: time.Now()}
		for i := range n {
			m := &msgs[i]
			sizes[i], eps[i] = in.packet(bufs[i][:m.N], addrOf(m.Addr), m.OOB[:m.NN])
		}
		in.flush()
		return n, nil
	}
}

// inbound is one batch on its way in, and what is relayed of it.
type inbound struct {
	bind   *Bind
	sock   *socket
	now    time.Time
	v4, v6 *batch
}

// packet sorts out one datagram. For WireGuard it returns size and endpoint;
// the bytes are at the start of p. All else it deals with itself and returns 0.
func (in *inbound) packet(p []byte, from netip.AddrPort, oob []byte) (int, conn.Endpoint) {
	b := in.bind
	switch wire.Classify(p) {
	case wire.WireGuard:
		sender := (*b.direct.Load())[from]
		if sender == nil {
			if to := b.addressee(p); to != nil && !in.session(to, p, in.now.UnixNano()) {
				return 0, nil
			}
			return len(p), stranger{from}
		}
		if !in.hear(sender, path.Route{Addr: from}, p) {
			return 0, nil
		}
		return len(p), sender
	case wire.Deliver:
		frame, payload, err := b.ring.Load().OpenDeliver(p)
		if err != nil {
			return 0, nil
		}
		route := path.Route{Hub: frame.Hub}
		if wire.Classify(payload) != wire.WireGuard {
			b.control.Frame(payload, path.Source{Route: route})
			return 0, nil
		}
		sender := b.peer(frame.From)
		if sender == nil {
			return 0, nil
		}
		if !in.hear(sender, route, payload) {
			return 0, nil
		}
		return copy(p, payload), sender
	case wire.Forward:
		in.forward(p, from, oob)
	case wire.Foreign:
	default:
		b.control.Frame(p, path.Source{Route: path.Route{Addr: from}, Local: in.sock.local(oob)})
	}
	return 0, nil
}

// hear books a message of WireGuard, and says whether WireGuard shall see it.
// Nothing that comes says that there is a session: an answer may be refused,
// and data may be sealed with keys that a restart has lost.
func (in *inbound) hear(p *peer, r path.Route, b []byte) bool {
	now := in.now.UnixNano()
	p.heard(r, len(b), now)
	return in.session(p, b, now)
}

func (in *inbound) session(p *peer, b []byte, now int64) bool {
	if !wire.Transport(b) {
		return p.hears(b, now)
	}
	if wire.Payload(b) {
		p.arrived(now)
	}
	return true
}

// forward relays p, which stays where it is until flush.
func (in *inbound) forward(p []byte, from netip.AddrPort, oob []byte) {
	b := in.bind
	if b.relay == nil {
		return
	}
	hop, frame, verdict := b.relay.Forward(in.now, p)
	switch verdict {
	case relay.Sent:
	case relay.Unknown, relay.Unreachable:
		b.control.Relay(verdict, frame, path.Source{Route: path.Route{Addr: from}, Local: in.sock.local(oob)})
		return
	default:
		return
	}
	out, s := &in.v6, b.v6.Load()
	if hop.Addr.Addr().Is4() {
		out, s = &in.v4, b.v4.Load()
	}
	if s == nil {
		return
	}
	if *out == nil {
		*out = s.batch()
	}
	(*out).add(nil, p, hop.Addr, s.source(hop.Local))
}

// flush sends what is to be relayed. An error is the same to the nodes as loss.
func (in *inbound) flush() {
	if s := in.bind.v4.Load(); in.v4 != nil && s != nil {
		_ = s.flush(in.v4)
	}
	if s := in.bind.v6.Load(); in.v6 != nil && s != nil {
		_ = s.flush(in.v6)
	}
}
