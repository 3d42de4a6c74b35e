package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// kernel is the one below a socket, which counts messages and may refuse those
// that it shall cut up.
type kernel struct {
	*socketIO
	refuse         error
	messages, cuts int
}

type socketIO struct {
	rw interface {
		ReadBatch(ms []ipv6.Message, flags int) (int, error)
		WriteBatch(ms []ipv6.Message, flags int) (int, error)
	}
}

func (k *kernel) ReadBatch(ms []ipv6.Message, flags int) (int, error) {
	return k.rw.ReadBatch(ms, flags)
}

func (k *kernel) WriteBatch(ms []ipv6.Message, flags int) (int, error) {
	for i, m := range ms {
		if !bytes.Contains(m.OOB, segmentControl()) {
			continue
		}
		k.cuts++
		if k.refuse == nil {
			continue
		}
		if i == 0 {
			return 0, os.NewSyscallError("sendmmsg", k.refuse)
		}
		ms = ms[:i] // as sendmmsg(2): what was sent counts
		break
	}
	n, err := k.rw.WriteBatch(ms, flags)
	k.messages += n
	return n, err
}

// segmentControl is what no other control message has: level and type.
func segmentControl() []byte {
	b := binary.NativeEndian.AppendUint32(nil, unix.SOL_UDP)
	return binary.NativeEndian.AppendUint32(b, unix.UDP_SEGMENT)
}

// opened is a Bind that is open, with a kernel below its IPv4 socket.
func opened(t *testing.T, c BindConfig) (*Bind, *kernel, []conn.ReceiveFunc) {
	t.Helper()
	c.Control = &heard{}
	b := NewBind(c)
	fns, _, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s := b.v4.Load()
	k := &kernel{socketIO: &socketIO{s.rw}}
	s.rw = k
	return b, k, fns
}

// packetsOf are messages like WireGuard's, of these sizes, all different.
func packetsOf(sizes ...int) [][]byte {
	var all [][]byte
	for i, size := range sizes {
		p := make([]byte, size)
		for j := range p {
			p[j] = byte(i + j)
		}
		copy(p, []byte{4, 0, 0, 0})
		all = append(all, p)
	}
	return all
}

// collect calls receive with room for some packets until n have come.
func collect(t *testing.T, receive conn.ReceiveFunc, n, room int) (got [][]byte) {
	t.Helper()
	bufs, sizes, eps := make([][]byte, room), make([]int, room), make([]conn.Endpoint, room)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	for len(got) < n {
		k, err := receive(bufs, sizes, eps)
		if err != nil {
			t.Fatalf("after %d packets: %v", len(got), err)
		}
		for i := range k {
			got = append(got, bytes.Clone(bufs[i][:sizes[i]]))
		}
	}
	return got
}

func sizes(n, size int, more ...int) []int {
	return append(slices.Repeat([]int{size}, n), more...)
}

// TestSegments: what is sent in one piece arrives as it was, whatever the sizes
// and however little is taken at a time.
func TestSegments(t *testing.T) {
	tests := []struct {
		name      string
		sizes     []int
		noOffload bool
		messages  int // with offload: how many the kernel is given
	}{
		{"one", sizes(1, 1312), false, 1},
		{"equal", sizes(40, 1312), false, 1},
		{"shorter at the end", sizes(40, 1312, 96), false, 1},
		{"shorter in between", sizes(3, 1312, 96, 1312, 1312), false, 2},
		{"longer in between", sizes(3, 96, 1312, 1312), false, 2},
		{"more than a message holds", sizes(100, 1312), false, 3},
		{"more segments than allowed", sizes(128, 48), false, 2},
		{"all different", []int{40, 50, 60, 70}, false, 4},
		{"without offload", sizes(40, 1312, 96), true, 41},
	}
	for _, tt := range tests {
		for _, room := range []int{3, batchSize} {
			t.Run(fmt.Sprint(tt.name, " by ", room), func(t *testing.T) {
				b, k, fns := opened(t, BindConfig{NoOffload: tt.noOffload})
				if !tt.noOffload && !b.v4.Load().segments {
					t.Skip("this kernel has no UDP_SEGMENT")
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				stop := context.AfterFunc(ctx, func() { b.Close() }) // ends a wait in vain
				defer stop()
				defer cancel()
				want := packetsOf(tt.sizes...)
				to := stranger{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.v4.Load().port())}
				if err := b.Send(want, to); err != nil {
					t.Fatal(err)
				}
				if k.messages != tt.messages {
					t.Errorf("%d messages, want %d", k.messages, tt.messages)
				}
				got := collect(t, fns[0], len(want), room)
				if !slices.EqualFunc(got, want, bytes.Equal) {
					t.Errorf("%d packets arrived, not those that were sent", len(got))
				}
			})
		}
	}
}

// TestSegmentsRefused: a kernel or device that does not cut up costs nothing but
// speed, and is left alone for a while.
func TestSegmentsRefused(t *testing.T) {
	for _, refusal := range []error{unix.EIO, unix.EINVAL, unix.EMSGSIZE} {
		t.Run(refusal.Error(), func(t *testing.T) {
			b, k, fns := opened(t, BindConfig{})
			s := b.v4.Load()
			if !s.segments {
				t.Skip("this kernel has no UDP_SEGMENT")
			}
			k.refuse = refusal
			local := netip.MustParseAddr("127.0.0.1")
			to := netip.AddrPortFrom(local, s.port())
			want := packetsOf(sizes(10, 1312, 96, 1312, 1312)...)
			for range 2 {
				if err := b.write(nil, want, to, local); err != nil {
					t.Fatal(err)
				}
				got := collect(t, fns[0], len(want), batchSize)
				if !slices.EqualFunc(got, want, bytes.Equal) {
					t.Errorf("%d packets arrived, not those that were sent", len(got))
				}
			}
			// Two messages of the first call were refused; of the second, none was tried.
			if k.cuts != 2 {
				t.Errorf("%d messages were to be cut up, want 2", k.cuts)
			}
			s.avoid(local, time.Now().Add(-avoidFor))
			k.refuse = nil
			if err := b.write(nil, want, to, local); err != nil || k.cuts == 2 {
				t.Errorf("after a while: not tried again, %v", err)
			}
		})
	}
}

// TestSegmentsError: a refusal that cutting up does not mend is told.
func TestSegmentsError(t *testing.T) {
	b, _, _ := opened(t, BindConfig{})
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.v4.Load().port())
	nowhere := netip.MustParseAddr("192.0.2.77") // no address of ours
	if err := b.write(nil, packetsOf(sizes(10, 1312)...), to, nowhere); err == nil {
		t.Error("sent from an address that is not ours")
	}
	b.Close()
	if err := b.write(nil, packetsOf(sizes(10, 1312)...), to, netip.Addr{}); err == nil {
		t.Error("sent by a closed socket")
	}
}

// TestRelayInOnePiece: a hub gives on in one piece what it got in one, and what it
// cannot, one by one.
func TestRelayInOnePiece(t *testing.T) {
	n := nodes(t, 3)
	a, hub, b := n[0], n[1], n[2]
	s := hub.bind.v4.Load()
	if !s.segments {
		t.Skip("this kernel has no UDP_SEGMENT")
	}
	got, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	raw, err := got.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	if err != nil {
		t.Skip(err)
	}
	hub.relay.SetHop(b.id, hopTo(got.LocalAddr()))
	a.via(hub, b)
	const count, size = 30, 1312
	buf, oob := make([]byte, 1<<16), make([]byte, oobSize)
	relay := func() (bytes, packet int) {
		t.Helper()
		if err := a.bind.Send(packetsOf(sizes(count, size)...), a.bind.peer(b.id)); err != nil {
			t.Fatal(err)
		}
		_ = got.SetReadDeadline(time.Now().Add(5 * time.Second))
		m, k, _, _, err := got.ReadMsgUDP(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		return m, segmentSize(oob[:k])
	}
	if m, seg := relay(); m != count*(size+wireHeader) || seg != size+wireHeader {
		t.Errorf("%d bytes in packets of %d came in one piece, want %d packets of %d", m, seg, count, size+wireHeader)
	}
	s.avoid(netip.MustParseAddr("127.0.0.1"), time.Now())
	if m, seg := relay(); m != size+wireHeader || seg != 0 {
		t.Errorf("%d bytes in packets of %d came in one piece, want one packet of %d", m, seg, size+wireHeader)
	}
}

// TestMergedRefused: what was relayed in one piece and is refused is cut where its
// packets end.
func TestMergedRefused(t *testing.T) {
	b, k, fns := opened(t, BindConfig{})
	s := b.v4.Load()
	if !s.segments {
		t.Skip("this kernel has no UDP_SEGMENT")
	}
	k.refuse = unix.EIO
	want := packetsOf(sizes(5, 500, 100)...)
	whole := slices.Concat(want...)
	out := s.batch()
	for at := 0; at < len(whole); at += 500 {
		out.add(nil, whole[at:min(at+500, len(whole))], netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.port()), netip.Addr{})
	}
	if out.n != 1 || len(out.msgs[0].Buffers) != 1 {
		t.Errorf("%d messages of %d pieces, want one of one", out.n, len(out.msgs[0].Buffers))
	}
	if err := s.flush(out); err != nil {
		t.Fatal(err)
	}
	got := collect(t, fns[0], len(want), batchSize)
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%d packets arrived, not those that were sent", len(got))
	}
}
