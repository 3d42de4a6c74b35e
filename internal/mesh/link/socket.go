package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// bufferSize is what we ask the kernel for, in bytes and per direction, as
// wireguard-go does: some 30 ms at 2 Gbit/s.
const bufferSize = 7 << 20

// socket is one UDP socket of one family that reads and writes in batches.
type socket struct {
	conn *net.UDPConn
	v6   bool
	rw   interface {
		ReadBatch(ms []ipv6.Message, flags int) (int, error)
		WriteBatch(ms []ipv6.Message, flags int) (int, error)
	}
	batches sync.Pool // *batch
}

// batch is what one system call sends or receives. Each message is a header of
// ours, which may be empty, and a packet.
type batch struct {
	msgs    []ipv6.Message
	headers [][wireHeader]byte
	addrs   []net.UDPAddr
	n       int
}

func newBatch(size int) *batch {
	b := &batch{
		msgs:    make([]ipv6.Message, size),
		headers: make([][wireHeader]byte, size),
		addrs:   make([]net.UDPAddr, size),
	}
	for i := range b.msgs {
		b.msgs[i].Buffers = make([][]byte, 1, 2)
		b.addrs[i].IP = make(net.IP, 16)
	}
	return b
}

func listen(network string, port uint16) (*socket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		ctl := c.Control(func(fd uintptr) { err = configure(int(fd), network == "udp6") })
		return errors.Join(ctl, err)
	}}
	pc, err := lc.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	s := &socket{conn: pc.(*net.UDPConn), v6: network == "udp6"}
	if s.v6 {
		s.rw = ipv6.NewPacketConn(pc)
	} else {
		s.rw = ipv4.NewPacketConn(pc)
	}
	s.batches.New = func() any { return newBatch(batchSize) }
	return s, nil
}

// configure sets the options before the socket is bound. Buffers beyond the
// system's limit need CAP_NET_ADMIN; without, it is only slower.
func configure(fd int, v6 bool) error {
	for _, o := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, bufferSize)
	}
	// Packets that exceed a link's MTU are fragmented rather than lost: on an
	// underlay of 1280 bytes a mesh packet of 1280 fits no other way.
	if v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// oobSize holds one packet information of either family.
const oobSize = 64

// local is our own address that a message was sent to.
func (s *socket) local(oob []byte) netip.Addr {
	var dst net.IP
	if s.v6 {
		var cm ipv6.ControlMessage
		if cm.Parse(oob) != nil {
			return netip.Addr{}
		}
		dst = cm.Dst
	} else {
		var cm ipv4.ControlMessage
		if cm.Parse(oob) != nil {
			return netip.Addr{}
		}
		dst = cm.Dst
	}
	a, _ := netip.AddrFromSlice(dst)
	return a.Unmap()
}

// source is the control message that makes a message leave from that address.
func (s *socket) source(from netip.Addr) []byte {
	switch {
	case !from.IsValid() || from.Is6() != s.v6:
		return nil
	case s.v6:
		return (&ipv6.ControlMessage{Src: from.AsSlice()}).Marshal()
	default:
		return (&ipv4.ControlMessage{Src: from.AsSlice()}).Marshal()
	}
}

func (s *socket) batch() *batch {
	b := s.batches.Get().(*batch)
	b.n = 0
	return b
}

// header is room for the header of the message that is added next.
func (b *batch) header() []byte { return b.headers[b.n][:] }

// add appends a message; neither header nor packet is copied.
func (b *batch) add(header, packet []byte, to netip.AddrPort, oob []byte) {
	m, a := &b.msgs[b.n], &b.addrs[b.n]
	if to.Addr().Is4() {
		ip := to.Addr().As4()
		a.IP = append(a.IP[:0], ip[:]...)
	} else {
		ip := to.Addr().As16()
		a.IP = append(a.IP[:0], ip[:]...)
	}
	a.Port, a.Zone = int(to.Port()), to.Addr().Zone()
	m.Buffers = m.Buffers[:0]
	if len(header) > 0 {
		m.Buffers = append(m.Buffers, header)
	}
	m.Buffers = append(m.Buffers, packet)
	m.OOB, m.Addr = oob, a
	b.n++
}

// flush sends what the batch holds and gives the batch back. A message that is
// refused does not keep back the ones behind it; the first error is returned.
func (s *socket) flush(b *batch) error {
	var first error
	for msgs := b.msgs[:b.n]; len(msgs) > 0; {
		n, err := s.rw.WriteBatch(msgs, 0)
		if err != nil {
			if first == nil {
				first = err
			}
			if errors.Is(err, net.ErrClosed) {
				break
			}
			n = 1
		}
		msgs = msgs[n:]
	}
	for i := range b.msgs[:b.n] {
		m := &b.msgs[i]
		clear(m.Buffers)
		m.Buffers, m.OOB, m.Addr = m.Buffers[:0], nil, nil
	}
	s.batches.Put(b)
	return first
}

func (s *socket) port() uint16 { return addrOf(s.conn.LocalAddr()).Port() }

func (s *socket) setMark(mark uint32) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	ctl := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	})
	return errors.Join(ctl, err)
}

func addrOf(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
