package sim

import (
	"net/netip"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// between loses packets from one of the addresses to one of the others.
func between(from, to []*Node) func(Packet) bool {
	has := func(nodes []*Node, p Packet, src bool) bool {
		for _, n := range nodes {
			for _, a := range n.seenAs() {
				if src && p.Src.Addr() == a || !src && p.Dst.Addr() == a {
					return true
				}
			}
		}
		return false
	}
	return func(p Packet) bool { return has(from, p, true) && has(to, p, false) }
}

// TestLossy loses 30 % on the direct path: the relay is better.
func TestLossy(t *testing.T) {
	t.Parallel()
	c := newCats(3)
	s := c.cosmo.Ping(c.miki, 50*time.Millisecond)
	c.Run(20 * time.Second)
	a, b := between([]*Node{c.cosmo}, []*Node{c.miki}), between([]*Node{c.miki}, []*Node{c.cosmo})
	c.Drop = func(p Packet) bool { return (a(p) || b(p)) && c.random.IntN(100) < 30 }
	c.Run(30 * time.Second)
	if got := c.cosmo.Path(c.miki).Route.Kind(); got != fleet.PathRelayed {
		t.Errorf("goes %s after 30 s of loss, want a relay", got)
	}
	sent, answered, changes := s.Sent, s.Answered, len(c.cosmo.Changes)
	c.Run(2 * time.Minute)
	if lost := (s.Sent - sent) - (s.Answered - answered); lost*50 > s.Sent-sent {
		t.Errorf("%d of %d lost with a clean relay at hand", lost, s.Sent-sent)
	}
	if n := len(c.cosmo.Changes) - changes; n > 6 {
		t.Errorf("%d changes of path in two minutes", n)
	}
	c.Drop = nil
	if back, ok := c.RunUntil(3*time.Minute, func() bool { return c.cosmo.Path(c.miki).Route.Direct() }); !ok {
		t.Errorf("not direct again %v after the loss ended", back)
	}
}

// TestOneFamilyLost: IPv6 breaks on the way to one hub; IPv4 still works.
func TestOneFamilyLost(t *testing.T) {
	c := newCats(9)
	s := c.ari.Ping(c.cosmo, 50*time.Millisecond)
	c.Run(20 * time.Second)
	c.Drop = func(p Packet) bool {
		return p.Src.Addr() == addr("2001:db8:c0::11") || p.Dst.Addr() == addr("2001:db8:c0::11")
	}
	c.Run(time.Minute)
	if gap := s.Gap(c.Now()); gap > time.Second {
		t.Errorf("silent for %v", gap)
	}
	if got := c.ari.Path(c.cosmo).Route.Kind(); got != fleet.PathDirectV4 {
		t.Errorf("goes %s, want direct IPv4", got)
	}
	// cosmo is still a hub for ari, by IPv4.
	c.maco.Stop()
	c.miki.Stop()
	c.Run(5 * time.Second)
	s = c.bianco.Ping(c.ari, 50*time.Millisecond)
	c.Run(10 * time.Second)
	if gap := s.Gap(c.Now()); gap > 2*time.Second {
		t.Errorf("through cosmo alone: silent for %v", gap)
	}
}

// TestAllHubsButOne: two of three are gone for good, whichever.
func TestAllHubsButOne(t *testing.T) {
	for i := range 3 {
		c := newCats(uint64(11 + i))
		left := []*Node{c.cosmo, c.maco, c.miki}[i]
		for _, h := range []*Node{c.cosmo, c.maco, c.miki} {
			if h != left {
				h.Stop()
			}
		}
		c.Run(30 * time.Second)
		for _, pair := range [][2]*Node{{c.bianco, c.ari}, {c.ziggy, c.bianco}, {left, c.bianco}, {c.ari, left}} {
			s := pair[0].Ping(pair[1], 50*time.Millisecond)
			c.Run(5 * time.Second)
			s.Stop()
			c.Run(time.Second)
			if lost := s.Sent - s.Answered; lost > 5 {
				t.Errorf("with %s alone, %s to %s: %d of %d lost", left.Name, pair[0].Name, pair[1].Name, lost, s.Sent)
			}
		}
	}
}

// TestLongIdle: a pair that has not talked for hours does at once.
func TestLongIdle(t *testing.T) {
	t.Parallel()
	c := newCats(12)
	c.Run(2 * time.Hour)
	for _, pair := range [][2]*Node{{c.bianco, c.ari}, {c.ari, c.ziggy}, {c.cosmo, c.bianco}, {c.ari, c.miki}} {
		s := pair[0].Ping(pair[1], 50*time.Millisecond)
		c.Run(2 * time.Second)
		s.Stop()
		c.Run(time.Second)
		if lost := s.Sent - s.Answered; lost > 2 {
			t.Errorf("%s to %s: the first %d packets lost", pair[0].Name, pair[1].Name, lost)
		}
	}
}

// TestOneWayStream: data in one direction only is no sign of a break.
func TestOneWayStream(t *testing.T) {
	c := newCats(13)
	var stop bool
	var tick func()
	tick = func() {
		if !stop {
			c.cosmo.sendData(c.miki.id, packet(0, 0, oneWay, c.cosmo.id, smallData)) // wants no answer
			c.After(10*time.Millisecond, tick)
		}
	}
	tick()
	c.Run(10 * time.Second)
	changes, before := len(c.cosmo.Changes), c.Sent.Packets
	c.Run(time.Minute)
	stop = true
	if n := len(c.cosmo.Changes) - changes; n > 0 {
		t.Errorf("%d changes of path in a minute", n)
	}
	// 100 a second is the data.
	if rate := float64(c.Sent.Packets-before)/60 - 100; rate > 60 {
		t.Errorf("%.0f packets a second besides the data", rate)
	}
}

// seenAs is what the machine looks like to others: its own addresses, and its
// routers'.
func (n *Node) seenAs() (out []netip.Addr) {
	out = append(out, n.addrs...)
	for r := n.net.gateway; r != nil; r = r.outer.gateway {
		out = append(out, r.v4)
	}
	return out
}
