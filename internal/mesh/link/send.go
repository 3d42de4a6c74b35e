package link

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/net/ipv6"
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
	b.sealing.remove(bufs)
	now := b.now()
	nano := b.nano(now)
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
		p.seals(index, nano)
	} else {
		leaves = p.says(bufs[0], nano)
	}
	p.txBytes.Add(uint64(size))
	if data {
		p.lastTx.Store(nano)
		if p.quiet.Load() && p.quiet.Swap(false) {
			b.control.Look(p.id)
		}
	}
	if !leaves || p.speaks(bufs[0], now) {
		return nil
	}
	u := p.use.Load()
	err := b.carry(p, u.Route, u.Local, bufs, size)
	switch {
	case u.Spare.IsZero():
	case err != nil:
		// Refused on this machine (EPERM by a firewall, no route): no need to
		// wait for probes to find out.
		err = b.carry(p, u.Spare, netip.Addr{}, bufs, size)
	case u.Hedge && wire.Transport(bufs[0]):
		_ = b.carry(p, u.Spare, netip.Addr{}, bufs, size) // the first copy is on its way
	}
	if err != nil && !wire.Transport(bufs[0]) {
		p.keep(bufs[0], now)
		if p.use.Load() != u { // there is a way just now, which found nothing to send
			b.sendUnsent(p, now)
		}
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
	last := hub.counter.Add(uint64(len(bufs)))
	pair, stamp := hub.pair.Load(), wire.Stamp{Epoch: b.epoch.Load(), Counter: last - uint64(len(bufs))}
	return b.write(func(header, packet []byte) {
		stamp.Counter++
		pair.PutForward(header, packet, p.id, stamp, 1)
	}, bufs, line.Addr, line.Local)
}

// write sends packets to one address, each behind a relay header if there is a
// head to write it.
func (b *Bind) write(head func(header, packet []byte), bufs [][]byte, to netip.AddrPort, local netip.Addr) error {
	s := b.socketFor(to.Addr())
	if s == nil {
		return unix.EAFNOSUPPORT
	}
	batch := s.batch()
	var first error
	for _, buf := range bufs {
		if batch.full() {
			first = errors.Join(first, batch.send())
		}
		var header []byte
		if head != nil {
			header = batch.header()
			head(header, buf)
		}
		batch.add(header, buf, to, local)
	}
	return errors.Join(first, s.flush(batch))
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

// inbound is what arrived at a socket in one system call and is not yet looked
// at, and what is relayed of it.
type inbound struct {
	bind   *Bind
	sock   *socket
	now    time.Time
	nano   int64 // the same, as peers keep it
	msgs   []ipv6.Message
	given  int // packets of the last call
	n      int // messages that arrived
	next   int // the one to look at
	at     int // how far it was looked at
	v4, v6 *batch

	// What the packet before was, as the next one nearly always is.
	forwards relay.Run
	lane     lane
}

// lane is how a Deliver came.
type lane struct {
	hub, from wire.ID
	pair      *wire.Pair // with the hub; nil when there is no such
	peer      *peer      // whose payload it is
}

// Each message may be many packets, so that few are enough.
const (
	inboundMessages = 16
	inboundSize     = 1<<16 - 1
)

// receiver returns the function that wireguard-go calls for packets of s.
func (b *Bind) receiver(s *socket) conn.ReceiveFunc {
	in := &inbound{bind: b, sock: s, msgs: make([]ipv6.Message, inboundMessages)}
	room := make([]byte, inboundMessages*inboundSize)
	oob := make([]byte, inboundMessages*oobSize)
	for i := range in.msgs {
		in.msgs[i].Buffers = [][]byte{room[i*inboundSize:][:inboundSize]}
		in.msgs[i].OOB = oob[i*oobSize:][:oobSize]
	}
	return in.receive
}

// receive is a conn.ReceiveFunc. What finds no room in bufs is left for the next
// call.
func (in *inbound) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	in.bind.opening.remove(bufs[:in.given])
	in.bind.opening.await()
	got, err := in.take(bufs, sizes, eps)
	in.bind.opening.add(bufs[:got], func(i int) bool { return wire.Payload(bufs[i][:sizes[i]]) })
	in.given = got
	return got, err
}

func (in *inbound) take(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	if in.next == in.n {
		n, err := in.sock.rw.ReadBatch(in.msgs, unix.MSG_WAITFORONE)
		if err != nil {
			return 0, err
		}
		in.n, in.next, in.at = n, 0, 0
	}
	in.now = in.bind.now()
	in.nano = in.bind.nano(in.now)
	in.lane = lane{}
	if in.bind.relay != nil {
		in.forwards = in.bind.relay.Run(in.now)
	}
	got := 0
	for ; in.next < in.n; in.next++ {
		m := &in.msgs[in.next]
		from, oob := addrOf(m.Addr), m.OOB[:m.NN]
		size := segmentSize(oob)
		if size == 0 {
			size = max(m.N, 1)
		}
		for ; in.at < m.N; in.at += size {
			if got == len(bufs) {
				in.flush()
				return got, nil
			}
			packet, ep := in.packet(m.Buffers[0][in.at:min(in.at+size, m.N)], from, oob)
			if ep == nil {
				continue
			}
			sizes[got], eps[got] = copy(bufs[got], packet), ep
			got++
		}
		in.at = 0
	}
	in.flush()
	return got, nil
}

// packet sorts out one datagram. What is WireGuard's it returns with its
// endpoint; all else it deals with itself and returns nil.
func (in *inbound) packet(p []byte, from netip.AddrPort, oob []byte) ([]byte, conn.Endpoint) {
	b := in.bind
	switch wire.Classify(p) {
	case wire.WireGuard:
		sender := (*b.direct.Load())[from]
		if sender == nil {
			if to := b.addressee(p); to != nil && !in.session(to, p, in.nano) {
				return nil, nil
			}
			return p, stranger{from}
		}
		if !in.hear(sender, path.Route{Addr: from}, p) {
			return nil, nil
		}
		return p, sender
	case wire.Deliver:
		sender, hub := in.deliver(p)
		if hub.IsZero() {
			return nil, nil
		}
		route, payload := path.Route{Hub: hub}, p[wireHeader:]
		if wire.Classify(payload) != wire.WireGuard {
			b.control.Frame(payload, path.Source{Route: route})
			return nil, nil
		}
		if sender == nil || !in.hear(sender, route, payload) {
			return nil, nil
		}
		return payload, sender
	case wire.Forward:
		in.forward(p, from, oob)
	case wire.Foreign:
	default:
		b.control.Frame(p, path.Source{Route: path.Route{Addr: from}, Local: in.sock.local(oob)})
	}
	return nil, nil
}

// deliver checks a Deliver, and returns whose payload it is, nil where that is no
// peer, and the hub that sent it; no hub if it is not authentic.
func (in *inbound) deliver(p []byte) (*peer, wire.ID) {
	if l := &in.lane; l.pair != nil {
		if hub, err := wire.RelaySender(p); err == nil && hub == l.hub {
			if frame, err := l.pair.OpenRelay(p); err == nil && frame.From == l.from {
				return l.peer, hub
			}
		}
	}
	ring := in.bind.ring.Load()
	frame, _, err := ring.OpenDeliver(p)
	if err != nil {
		ring = in.bind.former.Load()
		if frame, _, err = ring.OpenDeliver(p); err != nil {
			return nil, wire.ID{}
		}
	}
	pair, _ := ring.Pair(frame.Hub)
	in.lane = lane{hub: frame.Hub, from: frame.From, pair: pair, peer: in.bind.peer(frame.From)}
	return in.lane.peer, frame.Hub
}

// hear books a message of WireGuard, and says whether WireGuard shall see it.
// Nothing that comes says that there is a session: an answer may be refused,
// and data may be sealed with keys that a restart has lost.
func (in *inbound) hear(p *peer, r path.Route, b []byte) bool {
	now := in.nano
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
	hop, frame, verdict := in.forwards.Forward(p)
	switch verdict {
	case relay.Sent:
	case relay.Unknown, relay.Unreachable:
		if verdict == relay.Unknown && len(p) < wire.ProbeSize {
			return // it would be asked who it is by more bytes than it sent
		}
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
	} else if (*out).full() {
		_ = (*out).send() // an error is the same to the nodes as loss
	}
	(*out).add(nil, p, hop.Addr, hop.Local)
}

// flush sends what is to be relayed: the next call overwrites it. An error is
// the same to the nodes as loss.
func (in *inbound) flush() {
	for _, out := range []**batch{&in.v4, &in.v6} {
		if b := *out; b != nil {
			_ = b.sock.flush(b)
			*out = nil
		}
	}
}
