package link

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/ipv6"
)

// batch is what one system call sends. A packet is a header of ours, which may
// be empty, and what follows it. Packets of one size to one address that come
// one after the other are one message, which the kernel cuts up (UDP_SEGMENT);
// only the last of them may be shorter:
//
//	message 0 ── header packet ╎ header packet ╎ header packet   to x, in segments
//	message 1 ── header packet                                   to x: of another size
//	message 2 ── packet ╎ packet ╎ pack                          to y
//
// Nothing is copied: the kernel gathers the pieces.
type batch struct {
	sock    *socket
	msgs    []ipv6.Message
	parts   []parts
	headers [][wireHeader]byte
	addrs   []net.UDPAddr
	oobs    [][oobSize]byte
	n       int // messages
	packets int
}

// parts says what one message consists of.
type parts struct {
	to     netip.AddrPort
	count  int // packets
	size   int // of each but the last
	total  int
	pieces int  // buffers of each packet
	ended  bool // the last packet is shorter, or must stay alone
}

// What one message may hold: the kernel's UDP_MAX_SEGMENTS, and the length
// field of UDP and IPv4.
const (
	maxSegments = 64
	maxMessage  = 1<<16 - 1 - 20 - 8
)

// oobSize holds one packet information of either family and a segment size.
const oobSize = 128

func newBatch(s *socket, size int) *batch {
	b := &batch{
		sock:    s,
		msgs:    make([]ipv6.Message, size),
		parts:   make([]parts, size),
		headers: make([][wireHeader]byte, size),
		addrs:   make([]net.UDPAddr, size),
		oobs:    make([][oobSize]byte, size),
	}
	for i := range b.msgs {
		b.msgs[i].Buffers = make([][]byte, 0, 2)
		b.addrs[i].IP = make(net.IP, 16)
	}
	return b
}

func (s *socket) batch() *batch { return s.batches.Get().(*batch) }

// full says that the batch must be sent before more is added.
func (b *batch) full() bool { return b.packets == len(b.headers) }

// header is room for the header of the packet that is added next.
func (b *batch) header() []byte { return b.headers[b.packets][:] }

// add appends a packet, to leave from the address from if that is valid;
// neither header nor packet is copied.
func (b *batch) add(header, packet []byte, to netip.AddrPort, from netip.Addr) {
	b.packets++
	size, pieces := len(header)+len(packet), 1
	if len(header) > 0 {
		pieces = 2
	}
	if b.n > 0 {
		p := &b.parts[b.n-1]
		if !p.ended && p.to == to && p.pieces == pieces && size <= p.size && p.count < maxSegments && p.total+size <= maxMessage {
			p.count++
			p.total += size
			p.ended = size < p.size
			b.append(b.n-1, header, packet)
			return
		}
	}
	i := b.n
	b.n++
	b.parts[i] = parts{to: to, count: 1, size: size, total: size, pieces: pieces, ended: !b.sock.maySegment(to.Addr())}
	m, a := &b.msgs[i], &b.addrs[i]
	if to.Addr().Is4() {
		ip := to.Addr().As4()
		a.IP = append(a.IP[:0], ip[:]...)
	} else {
		ip := to.Addr().As16()
		a.IP = append(a.IP[:0], ip[:]...)
	}
	a.Port, a.Zone = int(to.Port()), to.Addr().Zone()
	m.Addr = a
	m.OOB = append(b.oobs[i][:0], b.sock.source(from)...)
	b.append(i, header, packet)
}

func (b *batch) append(i int, header, packet []byte) {
	m := &b.msgs[i]
	if len(header) > 0 {
		m.Buffers = append(m.Buffers, header, packet)
		return
	}
	if n := len(m.Buffers); n > 0 && follows(m.Buffers[n-1], packet) {
		m.Buffers[n-1] = m.Buffers[n-1][:len(m.Buffers[n-1])+len(packet)]
		return
	}
	m.Buffers = append(m.Buffers, packet)
}

// follows says whether b begins where a ends, in the same array: what came in one
// piece and is relayed so.
func follows(a, b []byte) bool {
	return cap(a)-len(a) >= len(b) && len(b) > 0 && &a[:len(a)+1][len(a)] == &b[0]
}

// send sends what the batch holds, which is empty then. A message that is
// refused does not keep back the ones behind it; the first error is returned.
func (b *batch) send() error {
	for i := range b.msgs[:b.n] {
		if p := &b.parts[i]; p.count > 1 {
			b.msgs[i].OOB = appendSegmentSize(b.msgs[i].OOB, p.size)
		}
	}
	var first error
	for done := 0; done < b.n; {
		n, err := b.sock.rw.WriteBatch(b.msgs[done:b.n], 0)
		if err != nil {
			if b.parts[done].count > 1 && cannotSegment(err) {
				err = b.cutUp(done)
			}
			if first == nil {
				first = err
			}
			if errors.Is(err, net.ErrClosed) {
				break
			}
			n = 1
		}
		done += n
	}
	for i := range b.msgs[:b.n] {
		m := &b.msgs[i]
		clear(m.Buffers)
		m.Buffers, m.OOB, m.Addr = m.Buffers[:0], nil, nil
	}
	b.n, b.packets = 0, 0
	return first
}

// cutUp sends the packets of message i by themselves, because the kernel does
// not cut them up for that address, and leaves it to us for a while.
func (b *batch) cutUp(i int) error {
	b.sock.avoid(b.parts[i].to.Addr(), time.Now())
	whole, p := b.msgs[i], b.parts[i]
	msgs := make([]ipv6.Message, 0, p.count)
	alone := func(packet ...[]byte) {
		msgs = append(msgs, ipv6.Message{Buffers: packet, Addr: whole.Addr, OOB: withoutSegmentSize(whole.OOB)})
	}
	for rest := whole.Buffers; len(rest) > 0; rest = rest[p.pieces:] {
		if p.pieces > 1 {
			alone(rest[:p.pieces]...)
			continue
		}
		for packet := range slices.Chunk(rest[0], p.size) {
			alone(packet)
		}
	}
	var first error
	for len(msgs) > 0 {
		n, err := b.sock.rw.WriteBatch(msgs, 0)
		if err != nil {
			if first == nil {
				first = err
			}
			n = 1
		}
		msgs = msgs[n:]
	}
	return first
}

// flush sends what the batch holds, and gives the batch back.
func (s *socket) flush(b *batch) error {
	err := b.send()
	s.batches.Put(b)
	return err
}
