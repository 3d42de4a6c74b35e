package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// site is a way in which machines are connected.
type site struct {
	name string
	// add puts two machines there: each on its own, or both in one home.
	add    func(w *World, i int) [2]*Node
	v4, v6 bool
	open   bool // whoever knows its IPv4 address reaches it
	home   bool // the two are in one network
	cutOff bool // UDP to and from the first hub is lost
}

// behindCarrier is a home behind a carrier's NAT, with a prefix of IPv6 or none.
func (w *World) behindCarrier(i int, v6 bool) *Network {
	var wide, narrow netip.Prefix
	if v6 {
		wide = netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/48", 0x100+i))
		narrow = netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x:1::/64", 0x100+i))
	}
	carrier, home := w.Network(2*time.Millisecond), w.Network(time.Millisecond)
	w.Router(carrier, w.Internet, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), linux, wide)
	w.Router(home, carrier, netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), linux, narrow)
	return home
}

func each(add func(w *World, i int, name string) *Node) func(w *World, i int) [2]*Node {
	return func(w *World, i int) [2]*Node {
		return [2]*Node{add(w, 2*i, fmt.Sprintf("s%da", i)), add(w, 2*i+1, fmt.Sprintf("s%db", i))}
	}
}

func public4(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i)}) }
func public6(i int) netip.Addr { return addr(fmt.Sprintf("2001:db8:ff::%x", i+1)) }
func inside(i int) netip.Addr  { return netip.AddrFrom4([4]byte{192, 168, byte(i), 10}) }

func sites() []site {
	carrier4 := func(w *World, i int, name string) *Node {
		return w.Machine(name, w.behindCarrier(i+1, false), false, inside(i))
	}
	return []site{
		{name: "public IPv4 and IPv6", v4: true, v6: true, open: true, add: each(func(w *World, i int, name string) *Node {
			return w.Machine(name, w.Internet, false, public4(i), public6(i))
		})},
		{name: "IPv6, carrier NAT IPv4", v4: true, v6: true, add: each(func(w *World, i int, name string) *Node {
			return w.Machine(name, w.behindCarrier(i+1, true), false, inside(i), addr(fmt.Sprintf("2001:db8:%x:1::10", 0x101+i)))
		})},
		{name: "carrier NAT IPv4 only", v4: true, add: each(carrier4)},
		{name: "public IPv4 only", v4: true, open: true, add: each(func(w *World, i int, name string) *Node {
			return w.Machine(name, w.Internet, false, public4(i))
		})},
		{name: "IPv6 only", v6: true, add: each(func(w *World, i int, name string) *Node {
			return w.Machine(name, w.Internet, false, public6(i))
		})},
		{name: "one home router", v4: true, home: true, add: func(w *World, i int) [2]*Node {
			home := w.behindCarrier(2*i+1, false)
			return [2]*Node{
				w.Machine(fmt.Sprintf("s%da", i), home, false, inside(2*i)),
				w.Machine(fmt.Sprintf("s%db", i), home, false, inside(2*i+1)),
			}
		}},
		{name: "UDP to one hub blocked", v4: true, cutOff: true, add: each(carrier4)},
	}
}

// to is how machines of two sites must reach each other.
func (s site) to(o site, same bool) fleet.PathKind {
	switch {
	case s.v6 && o.v6:
		return fleet.PathDirectV6
	case s.v4 && o.v4 && (s.open || o.open || same && s.home):
		return fleet.PathDirectV4
	}
	return fleet.PathRelayed
}

// TestPairs lets two machines talk for every pair of ways to be connected, each
// way with itself too, and wants the best path that there can be. IPv4-only
// meets IPv6-only at a hub that has both.
func TestPairs(t *testing.T) {
	t.Parallel()
	all := sites()
	var table strings.Builder
	for i, a := range all {
		fmt.Fprintf(&table, "\n%-24s", a.name)
		for j, b := range all[:i+1] {
			w := New(uint64(100*i + j))
			hub1 := w.Machine("hub1", w.Internet, true, addr("198.51.100.11"), addr("2001:db8::11"))
			w.Machine("hub2", w.Internet, true, addr("198.51.100.12"), addr("2001:db8::12"))
			nodes := [2]*Node{}
			if i == j {
				nodes = a.add(w, 1)
			} else {
				nodes[0], nodes[1] = a.add(w, 1)[0], b.add(w, 2)[0]
			}
			var blocked []*Node
			for k, s := range []site{a, b} {
				if s.cutOff {
					blocked = append(blocked, nodes[k])
				}
			}
			in, out := between([]*Node{hub1}, blocked), between(blocked, []*Node{hub1})
			w.Drop = func(p Packet) bool { return in(p) || out(p) }
			w.Start(w.All()...)
			got := talk(t, w, nodes, a.name+" to "+b.name)
			if want := a.to(b, i == j); got != [2]fleet.PathKind{want, want} {
				t.Errorf("%s to %s: goes %v, want %s both ways", a.name, b.name, got, want)
			}
			if by := nodes[0].Path(nodes[1]).Route.Hub; len(blocked) > 0 && by == hub1.id {
				t.Errorf("%s to %s: goes by the hub that is blocked", a.name, b.name)
			}
			fmt.Fprintf(&table, " %-10s", got[0])
		}
	}
	t.Log(table.String())
}

// talk pings both ways, and returns how they then reach each other.
func talk(t *testing.T, w *World, nodes [2]*Node, what string) [2]fleet.PathKind {
	t.Helper()
	defer w.drawn(t, nodes[:]...)()
	w.Run(2 * time.Second)
	begin := w.Now()
	there, back := nodes[0].Ping(nodes[1], 100*time.Millisecond), nodes[1].Ping(nodes[0], 100*time.Millisecond)
	w.Run(12 * time.Second)
	for _, s := range []*Stream{there, back} {
		if gap := s.Gap(w.Now()); gap > time.Second {
			t.Errorf("%s: silent for %v of %v", what, gap, w.Now().Sub(begin))
		}
	}
	return [2]fleet.PathKind{nodes[0].kind(nodes[1]), nodes[1].kind(nodes[0])}
}

// TestFamiliesMeet: of hubs with IPv4, with IPv6 and with both, only the last
// joins a machine that has the one with a machine that has the other; and when
// there are two such hubs, either can be lost.
func TestFamiliesMeet(t *testing.T) {
	w := New(1)
	w.Machine("four", w.Internet, true, addr("198.51.100.4"))
	w.Machine("six", w.Internet, true, addr("2001:db8::6"))
	both := []*Node{
		w.Machine("both1", w.Internet, true, addr("198.51.100.11"), addr("2001:db8::11")),
		w.Machine("both2", w.Internet, true, addr("198.51.100.12"), addr("2001:db8::12")),
	}
	x := w.Machine("x", w.behindCarrier(1, false), false, inside(1))
	y := w.Machine("y", w.Internet, false, public6(1))
	w.Start(w.All()...)
	kinds := talk(t, w, [2]*Node{x, y}, "IPv4 to IPv6")
	if kinds != [2]fleet.PathKind{fleet.PathRelayed, fleet.PathRelayed} {
		t.Errorf("goes %v", kinds)
	}
	via := slices.IndexFunc(both, func(h *Node) bool { return h.id == x.Path(y).Route.Hub })
	if via < 0 {
		t.Fatalf("goes by %v, want a hub with both", x.Path(y).Route)
	}
	both[via].Stop()
	if kinds := talk(t, w, [2]*Node{x, y}, "after a hub was lost"); kinds[0] != fleet.PathRelayed {
		t.Errorf("goes %v", kinds)
	}
}

// TestHubCutFromSome: one machine loses the hub that its pair is relayed by, which
// all others still have.
func TestHubCutFromSome(t *testing.T) {
	for seed := range uint64(*runs) {
		c := newCats(seed)
		s := c.bianco.Ping(c.ari, 50*time.Millisecond)
		other := c.ziggy.Ping(c.maco, 50*time.Millisecond)
		c.Run(15*time.Second + time.Duration(seed)*37*time.Millisecond)
		hub := c.hubOf(c.bianco, c.ari)
		in, out := between([]*Node{hub}, []*Node{c.bianco}), between([]*Node{c.bianco}, []*Node{hub})
		c.Drop = func(p Packet) bool { return in(p) || out(p) }
		c.Run(30 * time.Second)
		if gap := s.Gap(c.Now()); gap > time.Second {
			t.Errorf("seed %d: bianco to ari silent for %v", seed, gap)
		}
		if gap := other.Gap(c.Now()); gap > 200*time.Millisecond {
			t.Errorf("seed %d: a pair that has nothing to do with it, silent for %v", seed, gap)
		}
		c.bianco.Ping(hub, 100*time.Millisecond)
		c.Run(5 * time.Second)
		if got := c.bianco.kind(hub); got != fleet.PathRelayed {
			t.Errorf("seed %d: the hub itself is reached %s, want by another", seed, got)
		}
	}
}
