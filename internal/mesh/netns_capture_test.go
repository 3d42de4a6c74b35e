package mesh

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// capture is what passes a namespace's interfaces, as tcpdump would see it.
type capture struct {
	fd   int
	done chan struct{}

	mu      sync.Mutex
	packets []captured
	count   int
	bytes   int
}

// loopback is the index of the first interface of any namespace.
const loopback = 1

// captured is one IP packet.
type captured struct {
	out  bool // this machine sent it
	data []byte
}

// capture begins to capture what passes a namespace's interfaces, other than the
// loopback one, and keeps that many packets. With answers it is only the mesh's
// datagrams that come in.
func (w *world) capture(ns string, answers bool, keep int) *capture {
	w.t.Helper()
	c := &capture{done: make(chan struct{})}
	err := w.in(ns, func() (err error) {
		const all = 0x0300 // ETH_P_ALL, in the network's order
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, all); err != nil {
			return err
		}
		if answers {
			if err := unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
				return err
			}
		}
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	stop := make(chan struct{})
	go c.read(stop, answers, keep)
	w.t.Cleanup(func() {
		close(stop)
		<-c.done
		unix.Close(c.fd)
	})
	return c
}

func (c *capture) read(stop chan struct{}, answers bool, keep int) {
	defer close(c.done)
	b := make([]byte, 64<<10)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(c.fd, b, 0)
		if err != nil {
			continue // nothing came within the time
		}
		at, ok := from.(*unix.SockaddrLinklayer)
		if !ok || at.Ifindex == loopback {
			continue
		}
		if _, src, _ := datagram(b[:n]); answers && src != testPort {
			continue
		}
		c.mu.Lock()
		c.count++
		c.bytes += n
		if len(c.packets) < keep {
			c.packets = append(c.packets, captured{at.Pkttype == unix.PACKET_OUTGOING, bytes.Clone(b[:n])})
		}
		c.mu.Unlock()
	}
}

func (c *capture) all() []captured {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]captured(nil), c.packets...)
}

// datagram is the payload of an IPv4 or IPv6 packet with UDP, and its ports; nil
// if it is none.
func datagram(b []byte) (payload []byte, src, dst uint16) {
	switch {
	case len(b) >= 28 && b[0]>>4 == 4 && b[9] == unix.IPPROTO_UDP:
		b = b[int(b[0]&15)*4:]
	case len(b) >= 48 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_UDP:
		b = b[40:]
	default:
		return nil, 0, 0
	}
	if len(b) < 8 {
		return nil, 0, 0
	}
	return b[8:], binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
}

// marker is a text that is nowhere else.
func marker() []byte {
	b := make([]byte, 24)
	rand.Read(b)
	return []byte("what nobody else may read " + hex.EncodeToString(b) + "\n")
}

// say sends much of a text over TCP on the mesh.
func (m *machine) say(to *machine, text []byte, size int) {
	m.w.t.Helper()
	l := to.listen(to.node.V4)
	defer l.Close()
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- 0
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, c)
		got <- n
	}()
	c, err := m.dial(l, 10*time.Second)
	if err != nil {
		m.w.t.Fatal(err)
	}
	all := bytes.Repeat(text, size/len(text)+1)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(all); err != nil {
		m.w.t.Fatal(err)
	}
	c.Close()
	if n := <-got; n != int64(len(all)) {
		m.w.t.Fatalf("%d of %d bytes arrived", n, len(all))
	}
}

// holds says whether a text is in the memory of an agent's process.
func (m *machine) holds(text []byte) bool {
	m.w.t.Helper()
	pid := pidOf(m)
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		m.w.t.Fatal(err)
	}
	mem, err := os.Open("/proc/" + pid + "/mem")
	if err != nil {
		m.w.t.Fatal(err)
	}
	defer mem.Close()
	read := 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var perm string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); n != 3 || !strings.HasPrefix(perm, "rw") {
			continue
		}
		const window = 4 << 20
		for at := from; at < to; at += window {
			b := make([]byte, min(window+int64(len(text)), to-at))
			n, _ := mem.ReadAt(b, at) // some of it may not be there
			read += n
			if bytes.Contains(b[:n], text) {
				return true
			}
		}
	}
	if read < 1<<20 {
		m.w.t.Fatalf("only %d bytes of the memory of %s could be read", read, m.name)
	}
	return false
}

// TestNetnsHubReadsNothing lets a hub relay a text, and looks for it in all that
// passes the hub's interfaces, and in all that its agent has in memory. That both
// would be found there is tried with a packet that is not encrypted, and at the
// sender.
func TestNetnsHubReadsNothing(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	w.symmetric("madrid") // so that the pair stays relayed
	w.symmetric("london")
	hubs := []*machine{hub1, hub2}
	var wires []*capture
	for _, h := range hubs {
		wires = append(wires, w.capture(h.name, false, 100_000))
	}
	w.startAll()
	w.wait("bianco and ari talk", 20*time.Second, func() bool { return bianco.path(ari).RTTMicro > 0 })
	secret, plain := marker(), marker()
	bianco.say(ari, secret, 300<<10)
	if p := bianco.peer(ari); p.Path != fleet.PathRelayed {
		t.Fatalf("bianco to ari goes %s, want relayed", p.Path)
	}
	read := []bool{hub1.holds(secret), hub2.holds(secret)}
	if !bianco.holds(secret) {
		t.Error("the text is not in the sender's memory: this test would not find it at a hub either")
	}
	for i, h := range hubs {
		err := w.in("bianco", func() error {
			c, err := net.Dial("udp", h.node.Public[0].String())
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write(plain)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		w.wait("it is captured", 5*time.Second, func() bool { return wires[i].contains(plain) })
	}
	relayed := 0
	for i, h := range hubs {
		if read[i] {
			t.Errorf("the text is in the memory of %s", h.name)
		}
		if wires[i].contains(secret) {
			t.Errorf("the text passed %s in clear", h.name)
		}
		for _, p := range wires[i].all() {
			if b, _, _ := datagram(p.data); wire.Classify(b) == wire.Forward && !p.out {
				relayed += len(b)
			}
		}
	}
	if relayed < 300<<10 {
		t.Errorf("%d bytes were relayed: not by these hubs, or not captured", relayed)
	}
}

func (c *capture) contains(text []byte) bool {
	for _, p := range c.all() {
		if bytes.Contains(p.data, text) {
			return true
		}
	}
	return false
}
