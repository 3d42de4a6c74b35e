// Package udp is a UDP socket whose readers wait in the kernel, for packages
// ipv4 and ipv6 of golang.org/x/net to read and write by. Sockets of package
// net wait by epoll instead: whenever packets come that is three system calls
// and another thread, which is an eighth of what a hub does for them. It
// neither reads nor writes by itself.
package udp

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn is a socket. Reads by it block a thread: there should be few. It is safe
// for concurrent use.
type Conn struct {
	net.Conn // none: what packages ipv4 and ipv6 do not use
	raw      raw
}

// raw is the socket as a syscall.RawConn.
type raw struct {
	fd     int
	port   uint16
	closed atomic.Bool
	use    sync.RWMutex // of fd: whoever uses it reads, Close writes
}

// Listen opens a socket of one family, with the options that configure sets, on
// that port of all addresses; on one that is free if it is 0. Reads must say
// MSG_WAITFORONE, or they wait for as many packets as there is room for.
func Listen(v6 bool, port uint16, configure func(fd int) error) (*Conn, error) {
	family, all := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(port)})
	if v6 {
		family, all = unix.AF_INET6, &unix.SockaddrInet6{Port: int(port)}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return nil, err
	}
	err = configure(fd)
	if err == nil {
		err = unix.Bind(fd, all)
	}
	if err == nil {
		all, err = unix.Getsockname(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	c := &Conn{raw: raw{fd: fd}}
	switch a := all.(type) {
	case *unix.SockaddrInet4:
		c.raw.port = uint16(a.Port)
	case *unix.SockaddrInet6:
		c.raw.port = uint16(a.Port)
	}
	return c, nil
}

// Port is the one that the socket is bound to.
func (c *Conn) Port() uint16 { return c.raw.port }

// Close ends the calls that wait, and closes the socket once all have returned.
func (c *Conn) Close() error {
	if c.raw.closed.Swap(true) {
		return net.ErrClosed
	}
	// It says that nothing is connected, and wakes the readers all the same; later
	// ones do not wait.
	_ = unix.Shutdown(c.raw.fd, unix.SHUT_RDWR)
	c.raw.use.Lock()
	defer c.raw.use.Unlock()
	return unix.Close(c.raw.fd)
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv6Unspecified(), c.raw.port))
}

// SyscallConn is how packages ipv4 and ipv6 read and write.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return &c.raw, nil }

// ReadMsgUDP tells packages ipv4 and ipv6 that this is UDP. They do not call it.
func (c *Conn) ReadMsgUDP(_, _ []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	return 0, 0, 0, nil, syscall.ENOTSUP
}

// ReadFrom makes it a net.PacketConn. It reads nothing.
func (c *Conn) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, syscall.ENOTSUP }

// WriteTo makes it a net.PacketConn. It writes nothing.
func (c *Conn) WriteTo([]byte, net.Addr) (int, error) { return 0, syscall.ENOTSUP }

// Control calls do with the socket. The error is net.ErrClosed or nil.
func (c *Conn) Control(do func(fd uintptr)) error { return c.raw.Control(do) }

// Control implements syscall.RawConn.
func (r *raw) Control(do func(fd uintptr)) error {
	r.use.RLock()
	defer r.use.RUnlock()
	if r.closed.Load() {
		return net.ErrClosed
	}
	do(uintptr(r.fd))
	return nil
}

// Read implements syscall.RawConn: do waits by itself.
func (r *raw) Read(do func(fd uintptr) bool) error {
	err := r.Control(func(fd uintptr) {
		for !do(fd) && !r.closed.Load() {
		}
	})
	if r.closed.Load() {
		return net.ErrClosed // a read that was woken brings nothing
	}
	return err
}

// Write implements syscall.RawConn.
func (r *raw) Write(do func(fd uintptr) bool) error { return r.Read(do) }
