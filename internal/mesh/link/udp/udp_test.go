package udp

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// both is what packages ipv4 and ipv6 have in common.
type both interface {
	ReadBatch(ms []ipv6.Message, flags int) (int, error)
	WriteBatch(ms []ipv6.Message, flags int) (int, error)
}

func open(t *testing.T, v6 bool) (*Conn, both, netip.AddrPort) {
	t.Helper()
	c, err := Listen(v6, 0, func(int) error { return nil })
	if v6 && errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skip("no IPv6 here")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if v6 {
		return c, ipv6.NewPacketConn(c), netip.AddrPortFrom(netip.IPv6Loopback(), c.Port())
	}
	return c, ipv4.NewPacketConn(c), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), c.Port())
}

func room(n int) []ipv6.Message {
	ms := make([]ipv6.Message, n)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 100)}
	}
	return ms
}

// TestBatch: packages ipv4 and ipv6 write several packets by it, and read those
// that are there without waiting for more.
func TestBatch(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		_, rw, self := open(t, v6)
		out := room(3)
		for i := range out {
			out[i].Buffers[0] = []byte{byte(i), 7}
			out[i].Addr = net.UDPAddrFromAddrPort(self)
		}
		if n, err := rw.WriteBatch(out, 0); n != 3 || err != nil {
			t.Fatalf("v6 %v: %d written, %v", v6, n, err)
		}
		in := room(8)
		n, err := rw.ReadBatch(in, unix.MSG_WAITFORONE)
		if n != 3 || err != nil {
			t.Fatalf("v6 %v: %d read, %v", v6, n, err)
		}
		for i, m := range in[:n] {
			from := m.Addr.(*net.UDPAddr).AddrPort()
			if m.N != 2 || m.Buffers[0][0] != byte(i) || from.Port() != self.Port() || from.Addr().Unmap() != self.Addr() {
				t.Errorf("v6 %v: packet %d: %d bytes from %v", v6, i, m.N, from)
			}
		}
	}
}

// TestClose: whoever waits is told, as is whoever comes later.
func TestClose(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		c, rw, self := open(t, v6)
		var readers sync.WaitGroup
		var wants sync.WaitGroup
		for range 3 {
			wants.Add(1)
			readers.Go(func() {
				wants.Done()
				if n, err := rw.ReadBatch(room(4), unix.MSG_WAITFORONE); !errors.Is(err, net.ErrClosed) {
					t.Errorf("v6 %v: %d packets, %v", v6, n, err)
				}
			})
		}
		wants.Wait()
		if err := c.Close(); err != nil {
			t.Errorf("v6 %v: %v", v6, err)
		}
		readers.Wait()
		out := room(1)
		out[0].Addr = net.UDPAddrFromAddrPort(self)
		if _, err := rw.WriteBatch(out, 0); !errors.Is(err, net.ErrClosed) {
			t.Errorf("v6 %v: written after Close: %v", v6, err)
		}
		if err := c.Control(func(uintptr) { t.Error("used after Close") }); !errors.Is(err, net.ErrClosed) {
			t.Errorf("v6 %v: used after Close: %v", v6, err)
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("v6 %v: closed twice: %v", v6, err)
		}
	}
}

// TestPortInUse: the error is the kernel's, and nothing is left open.
func TestPortInUse(t *testing.T) {
	c, _, _ := open(t, false)
	if d, err := Listen(false, c.Port(), func(int) error { return nil }); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v, %v", d, err)
	}
	refused := errors.New("no")
	if d, err := Listen(false, 0, func(int) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("%v, %v", d, err)
	}
}
