package link

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/mesh/link/udp"
)

// bufferSize is what we ask the kernel for, in bytes and per direction, as
// wireguard-go does: some 30 ms at 2 Gbit/s.
const bufferSize = 7 << 20

// socket is one UDP socket of one family that reads and writes in batches.
type socket struct {
	conn *udp.Conn
	v6   bool
	rw   interface {
		ReadBatch(ms []ipv6.Message, flags int) (int, error)
		WriteBatch(ms []ipv6.Message, flags int) (int, error)
	}
	segments bool                   // the kernel may be given packets in one piece
	whole    sync.Map               // netip.Addr: int64, until when not to that address
	from     atomic.Pointer[origin] // the one used last
	batches  sync.Pool              // *batch
}

// origin is the control message that makes a message leave from an address.
type origin struct {
	addr netip.Addr
	oob  []byte
}

func listen(network string, port uint16, offload bool) (*socket, error) {
	v6 := network == "udp6"
	c, err := udp.Listen(v6, port, func(fd int) error { return configure(fd, v6) })
	if err != nil {
		return nil, err
	}
	s := &socket{conn: c, v6: v6}
	if s.v6 {
		s.rw = ipv6.NewPacketConn(c)
	} else {
		s.rw = ipv4.NewPacketConn(c)
	}
	s.batches.New = func() any { return newBatch(s, batchSize) }
	if offload {
		s.segments = s.offload()
	}
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
	if !from.IsValid() || from.Is6() != s.v6 {
		return nil
	}
	last := s.from.Load()
	if last != nil && last.addr == from {
		return last.oob
	}
	next := &origin{addr: from}
	if s.v6 {
		next.oob = (&ipv6.ControlMessage{Src: from.AsSlice()}).Marshal()
	} else {
		next.oob = (&ipv4.ControlMessage{Src: from.AsSlice()}).Marshal()
	}
	s.from.Store(next)
	return next.oob
}

func (s *socket) port() uint16 { return s.conn.Port() }

func (s *socket) setMark(mark uint32) error {
	var err error
	ctl := s.conn.Control(func(fd uintptr) {
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
