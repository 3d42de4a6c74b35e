package link

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/moggyfleet/moggy/internal/mesh/path"
)

// tcpPacket is a segment from one member of the mesh to another, as the kernel
// makes it.
func tcpPacket(v6 bool, flags byte, options, payload []byte) []byte {
	tcp := make([]byte, 20, 20+len(options)+len(payload))
	binary.BigEndian.PutUint16(tcp, 1234)
	binary.BigEndian.PutUint32(tcp[4:], 0xfffffff0) // goes over soon
	tcp[12], tcp[13] = byte((20+len(options))/4)<<4, flags
	tcp = append(append(tcp, options...), payload...)
	var head []byte
	if v6 {
		head = make([]byte, 40)
		head[0], head[6], head[7] = 0x60, protoTCP, 64
		copy(head[8:], netip.MustParseAddr("fd77::1").AsSlice())
		copy(head[24:], netip.MustParseAddr("fd77::2").AsSlice())
	} else {
		head = make([]byte, 20)
		head[0], head[6], head[8], head[9] = 0x45, 0x40, 64, protoTCP
		copy(head[12:], []byte{10, 77, 0, 1, 10, 77, 0, 2})
	}
	b := append(head, tcp...)
	setLength(b, len(head))
	return b
}

// whole says whether both checksums of a TCP packet are right.
func whole(t *testing.T, b []byte) {
	t.Helper()
	ip, _, ok := segment(b)
	if !ok {
		t.Fatalf("no TCP segment: %x", b)
	}
	if got := fold(add(pseudo(b, protoTCP, len(b)-ip), b[ip:])); got != 0xffff {
		t.Errorf("TCP's checksum is wrong: %x", got)
	}
	if b[0]>>4 == 4 && fold(add(0, b[:ip])) != 0xffff {
		t.Error("IP's checksum is wrong")
	}
}

func families(t *testing.T, do func(t *testing.T, v6 bool)) {
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) { do(t, v6) })
	}
}

func TestLowerMSS(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		limit := uint16(1112)
		if v6 {
			limit = 1092
		}
		for _, tt := range []struct {
			name    string
			options []byte
			want    uint16 // of the MSS, where the first option is that
		}{
			{"too large", []byte{2, 4, 0x04, 0xd8, 1, 1, 4, 2}, limit},
			{"small already", []byte{2, 4, 0x02, 0x18}, 536},
			{"behind others", []byte{1, 3, 3, 7, 2, 4, 0x04, 0xd8}, 0},
			{"signed", []byte{2, 4, 0x04, 0xd8, 19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0x04d8},
			{"cut short", []byte{2, 4, 0x04, 0xd8, 3, 9, 0, 0}, 0x04d8},
		} {
			b := tcpPacket(v6, tcpSyn, tt.options, nil)
			if !syn(b) {
				t.Fatalf("%s: not taken for a SYN", tt.name)
			}
			lowerMSS(b)
			whole(t, b)
			ip, tcp, _ := segment(b)
			switch got := binary.BigEndian.Uint16(b[ip+22:]); {
			case tt.want != 0 && got != tt.want:
				t.Errorf("%s: MSS is %d, want %d", tt.name, got, tt.want)
			case tt.want == 0 && !bytes.Equal(b[ip+tcp-2:], []byte{byte(limit >> 8), byte(limit)}):
				t.Errorf("%s: options %x", tt.name, b[ip+20:])
			}
		}
	})
}

func TestCut(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		payload := bytes.Repeat([]byte("abcdefg"), 170)
		options := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2} // timestamps
		b := tcpPacket(v6, 0x10|tcpPush|tcpFin, options, payload)
		next := make([]byte, 1500)
		size := cut(b, next)
		if size == 0 {
			t.Fatal("not cut")
		}
		first, second := b[:tight], next[:size]
		whole(t, first)
		whole(t, second)
		ip, tcp, _ := segment(first)
		head := ip + tcp
		if got := append(bytes.Clone(first[head:]), second[head:]...); !bytes.Equal(got, payload) {
			t.Error("the two are not the whole")
		}
		was, is := binary.BigEndian.Uint32(first[ip+4:]), binary.BigEndian.Uint32(second[ip+4:])
		if is-was != uint32(tight-head) {
			t.Errorf("the second begins %d bytes after the first, which has %d", is-was, tight-head)
		}
		if first[ip+13] != 0x10 || second[ip+13] != 0x10|tcpPush|tcpFin {
			t.Errorf("flags %x and %x", first[ip+13], second[ip+13])
		}
		for name, b := range map[string][]byte{
			"small":  tcpPacket(v6, 0x10, nil, payload[:100]),
			"reset":  tcpPacket(v6, 0x14, nil, payload),
			"urgent": tcpPacket(v6, 0x30, nil, payload),
			"signed": tcpPacket(v6, 0x10, []byte{29, 4, 0, 0}, payload),
		} {
			if size := cut(b, next); size != 0 {
				t.Errorf("%s: cut", name)
			}
		}
	})
}

func TestTooBig(t *testing.T) {
	b := tcpPacket(false, 0x10, nil, make([]byte, 1240))
	msg := tooBig(nil, b)
	if fold(add(0, msg[:20])) != 0xffff || fold(add(0, msg[20:])) != 0xffff {
		t.Error("a checksum is wrong")
	}
	if source(msg) != destination(b) || destination(msg) != source(b) || msg[20] != 3 || msg[21] != 4 ||
		binary.BigEndian.Uint16(msg[26:]) != tight || !bytes.Equal(msg[28:], b[:28]) {
		t.Errorf("says %x", msg)
	}
	if got := tooBig(nil, tcpPacket(true, 0x10, nil, make([]byte, 1200))); got != nil {
		t.Errorf("IPv6 cannot be asked for less than 1280 bytes, but was: %x", got)
	}
	b = tcpPacket(true, 0x10, nil, make([]byte, 1300))
	msg = tooBig(nil, b)
	if len(msg) > minMTU6 || fold(add(pseudo(msg, protoICMP6, len(msg)-40), msg[40:])) != 0xffff {
		t.Errorf("%d bytes, or the checksum is wrong", len(msg))
	}
	if source(msg) != destination(b) || destination(msg) != source(b) || msg[40] != 2 || binary.BigEndian.Uint32(msg[44:]) != minMTU6 {
		t.Errorf("says %x", msg[:48])
	}
}

// fakeTUN gives packets to WireGuard, and keeps what it is given.
type fakeTUN struct {
	tun.Device
	out [][]byte
	in  [][]byte
}

func (f *fakeTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i, b := range f.out {
		sizes[i] = copy(bufs[i][offset:], b)
	}
	return len(f.out), nil
}

func (f *fakeTUN) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		f.in = append(f.in, bytes.Clone(b[offset:]))
	}
	return len(bufs), nil
}

// TestRoom: what the way to a peer takes decides about packets to it, and about
// no other's.
func TestRoom(t *testing.T) {
	mss := []byte{2, 4, 0x04, 0xd8}
	full := tcpPacket(false, 0x10, nil, make([]byte, 1240))
	for _, tt := range []struct {
		name string
		use  path.Use
		mss  uint16
		read int // packets
		told int // ICMP messages
	}{
		{"not tried", path.Use{}, 1112, 2, 0},
		{"wide", path.Use{Wide: true}, 1240, 2, 0},
		{"narrow", path.Use{Narrow: true}, 1112, 3, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			both := nodes(t, 2)
			a, b := both[0], both[1]
			tt.use.Peer = b.id
			a.bind.Use(tt.use, time.Now())
			fake := &fakeTUN{out: [][]byte{tcpPacket(false, tcpSyn, mss, nil), bytes.Clone(full)}}
			o := &opener{Device: fake, bind: a.bind}
			o.know(a.bind, []Member{{Key: b.key.Public(), Allowed: []netip.Prefix{netip.MustParsePrefix("10.77.0.2/32")}}})
			bufs, sizes := make([][]byte, 8), make([]int, 8)
			for i := range bufs {
				bufs[i] = make([]byte, 1600)
			}
			n, err := o.Read(bufs, sizes, 16)
			if err != nil || n != tt.read || len(fake.in) != tt.told {
				t.Fatalf("%d packets, %d messages, %v; want %d and %d", n, len(fake.in), err, tt.read, tt.told)
			}
			if got := binary.BigEndian.Uint16(bufs[0][16+42:]); got != tt.mss {
				t.Errorf("MSS %d, want %d", got, tt.mss)
			}
			for i := range n {
				whole(t, bufs[i][16:16+sizes[i]])
			}
		})
	}
}

// FuzzPackets: whatever a packet of this machine or of a peer says of itself,
// nothing is read or written beyond it, and no byte of a stream is lost.
func FuzzPackets(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(tcpPacket(v6, tcpSyn, []byte{2, 4, 0x04, 0xd8}, nil))
		f.Add(tcpPacket(v6, 0x10|tcpPush, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, make([]byte, 1200)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tooBig(nil, b)
		if syn(b) {
			before := len(b)
			lowerMSS(b)
			if len(b) != before {
				t.Error("the length changed")
			}
		}
		was := bytes.Clone(b)
		next := make([]byte, 1500)
		size := cut(b, next)
		if size == 0 {
			if !bytes.Equal(was, b) {
				t.Error("not cut, but changed")
			}
			return
		}
		ip, tcp, _ := segment(was)
		if got := append(bytes.Clone(b[ip+tcp:tight]), next[ip+tcp:size]...); !bytes.Equal(got, was[ip+tcp:]) {
			t.Error("the two are not the whole")
		}
	})
}
