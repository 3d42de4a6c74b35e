// Package probe pings between machines without pause and remembers the
// longest silence of every pair. It knows how packets look and when they went;
// why a pair fell silent is for its caller to know.
package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Interval is the time between two probes of a pair.
const Interval = 100 * time.Millisecond

// late is when an answer no longer counts: by then people call it broken.
const late = time.Second

// Pair is who probes whom.
type Pair struct{ From, To fleet.NodeName }

// String is the pair with an arrow.
func (p Pair) String() string { return string(p.From) + " -> " + string(p.To) }

// Prober probes pairs of nodes. Its methods may be called from any goroutine.
type Prober struct {
	now     func() time.Time
	targets []target
	id      uint16 // tells our echoes from other people's

	mu     sync.Mutex
	tracks map[Pair]*track
}

type target struct {
	name fleet.NodeName
	addr netip.Addr
}

// track is what is known of a pair. An answered probe counts for the moment
// it was sent.
type track struct {
	heard   time.Time     // when the last answered probe was sent
	longest time.Duration // between two answered probes, since the last Mark
}

// New returns a prober of these addresses. Nothing is sent yet.
func New(addrs map[fleet.NodeName]netip.Addr, now func() time.Time) *Prober {
	p := &Prober{now: now, id: uint16(rand.Uint32()), tracks: map[Pair]*track{}} //nolint:gosec // no secret
	for name, addr := range addrs {
		p.targets = append(p.targets, target{name, addr})
	}
	slices.SortFunc(p.targets, func(a, b target) int { return strings.Compare(string(a.name), string(b.name)) })
	return p
}

// From probes every other address from the given node until ctx ends. enter
// runs a function in the node's network namespace.
func (p *Prober) From(ctx context.Context, node fleet.NodeName, enter func(func() error) error) error {
	var socks sockets
	if err := enter(func() (err error) {
		socks, err = listen()
		return err
	}); err != nil {
		return fmt.Errorf("probe from %s: %w", node, err)
	}
	defer socks.close()
	stop := context.AfterFunc(ctx, socks.close)
	defer stop()
	var receivers sync.WaitGroup
	defer receivers.Wait()
	defer socks.close()
	for _, c := range []net.PacketConn{socks.v4, socks.v6} {
		if c != nil {
			receivers.Go(func() { p.receive(node, c, c == socks.v6) })
		}
	}
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for seq := uint16(1); ; seq++ {
		for i, t := range p.targets {
			if t.name != node {
				p.send(socks, i, seq)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

type sockets struct{ v4, v6 net.PacketConn }

func listen() (s sockets, err error) {
	if s.v4, err = net.ListenPacket("ip4:icmp", "0.0.0.0"); err != nil {
		return s, err
	}
	// A machine without any IPv6 has none to probe either.
	s.v6, _ = net.ListenPacket("ip6:ipv6-icmp", "::")
	return s, nil
}

func (s sockets) close() {
	s.v4.Close()
	if s.v6 != nil {
		s.v6.Close()
	}
}

// payload is target (2 bytes), then the time of sending in ns (8 bytes).
const payload = 10

// send sends one probe. An error is as good as a lost probe.
func (p *Prober) send(s sockets, index int, seq uint16) {
	t := p.targets[index]
	conn, kind := s.v4, icmp.Type(ipv4.ICMPTypeEcho)
	if t.addr.Is6() {
		conn, kind = s.v6, ipv6.ICMPTypeEchoRequest
	}
	if conn == nil {
		return
	}
	data := make([]byte, payload)
	binary.BigEndian.PutUint16(data, uint16(index))                  //nolint:gosec // nodes are few
	binary.BigEndian.PutUint64(data[2:], uint64(p.now().UnixNano())) //nolint:gosec // after 1970
	msg := icmp.Message{Type: kind, Body: &icmp.Echo{ID: int(p.id), Seq: int(seq), Data: data}}
	wire, err := msg.Marshal(nil) // the kernel fills in ICMPv6's checksum
	if err != nil {
		return
	}
	_, _ = conn.WriteTo(wire, &net.IPAddr{IP: t.addr.AsSlice()})
}

func (p *Prober) receive(node fleet.NodeName, c net.PacketConn, v6 bool) {
	protocol, kind := ipv4.ICMPTypeEchoReply.Protocol(), icmp.Type(ipv4.ICMPTypeEchoReply)
	if v6 {
		protocol, kind = ipv6.ICMPTypeEchoReply.Protocol(), ipv6.ICMPTypeEchoReply
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		msg, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil || msg.Type != kind {
			continue
		}
		echo, ok := msg.Body.(*icmp.Echo)
		if !ok || echo.ID != int(p.id) || len(echo.Data) != payload {
			continue
		}
		index := int(binary.BigEndian.Uint16(echo.Data))
		if index < len(p.targets) {
			sent := time.Unix(0, int64(binary.BigEndian.Uint64(echo.Data[2:]))) //nolint:gosec // what we sent
			p.heard(Pair{node, p.targets[index].name}, sent, p.now())
		}
	}
}

// heard notes that a probe sent then was answered now.
func (p *Prober) heard(pair Pair, sent, now time.Time) {
	if now.Sub(sent) > late {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tracks[pair]
	if t == nil {
		p.tracks[pair] = &track{heard: sent}
		return
	}
	if sent.After(t.heard) {
		t.longest = max(t.longest, sent.Sub(t.heard))
		t.heard = sent
	}
}

// Mark forgets the silences so far. Those of pairs with the given nodes are
// forgotten with all there is of the pair: what comes next is a new machine.
func (p *Prober) Mark(forget ...fleet.NodeName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pair, t := range p.tracks {
		if slices.Contains(forget, pair.From) || slices.Contains(forget, pair.To) {
			delete(p.tracks, pair)
			continue
		}
		t.longest = 0
	}
}

// Silent lists the pairs of the given nodes that are silent at the moment, in
// order.
func (p *Prober) Silent(nodes []fleet.NodeName) []Pair {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Pair
	eachPair(nodes, func(pair Pair) {
		if t := p.tracks[pair]; t == nil || now.Sub(t.heard) > late {
			out = append(out, pair)
		}
	})
	return out
}

// Longest is the longest silence of any pair of these nodes since the last
// Mark, one that still goes on included, and whose it was. A silence of two
// intervals is one lost probe; less is none.
func (p *Prober) Longest(nodes []fleet.NodeName) (time.Duration, Pair) {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest time.Duration
	var whose Pair
	eachPair(nodes, func(pair Pair) {
		t := p.tracks[pair]
		if t == nil {
			return
		}
		silence := t.longest
		if since := now.Sub(t.heard); since > late {
			silence = max(silence, since)
		}
		if silence > longest {
			longest, whose = silence, pair
		}
	})
	if longest < 2*Interval-Interval/4 {
		return 0, Pair{}
	}
	return longest, whose
}

func eachPair(nodes []fleet.NodeName, f func(Pair)) {
	for _, from := range nodes {
		for _, to := range nodes {
			if from != to {
				f(Pair{from, to})
			}
		}
	}
}
