package sim

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

func kindsOfNAT() (all []NAT) {
	for _, m := range []Dependence{Endpoint, Address, AddressAndPort} {
		for _, f := range []Dependence{Endpoint, Address, AddressAndPort} {
			all = append(all, NAT{Mapping: m, Filtering: f})
		}
	}
	return all
}

func (n NAT) String() string {
	name := map[Dependence]string{Endpoint: "independent", Address: "address", AddressAndPort: "port"}
	return name[n.Mapping] + "/" + name[n.Filtering]
}

// TestNATPairs puts two machines behind every pair of NATs that RFC 4787 can
// name (mapping/filtering), and says which must find a direct path: where either
// side lets strangers in, where both keep one mapping for all, or where one does
// and the other minds the address alone. The others are relayed.
func TestNATPairs(t *testing.T) {
	t.Parallel()
	kinds := kindsOfNAT()
	pairs, right, direct := 0, 0, 0
	for i, a := range kinds {
		for _, b := range kinds[i:] {
			pairs++
			t.Run(a.String()+","+b.String(), func(t *testing.T) {
				x, y := natPair(t, a, b)
				want := fleet.PathRelayed
				if Direct(a, b) {
					want = fleet.PathDirectV4
					direct++
				}
				if got := [2]fleet.PathKind{x, y}; got != [2]fleet.PathKind{want, want} {
					t.Errorf("goes %v, want %s both ways", got, want)
				} else {
					right++
				}
			})
		}
	}
	t.Logf("%d of %d pairs as the rule says, %d of them direct", right, pairs, direct)
	if pairs != 45 {
		t.Errorf("%d pairs, want 45", pairs)
	}
}

// natPair returns how each reaches the other, when they have talked for a while;
// PathNone where that is not proven.
func natPair(t *testing.T, a, b NAT) (there, back fleet.PathKind) {
	t.Helper()
	w := New(1)
	w.Machine("hub1", w.Internet, true, addr("198.51.100.11"))
	w.Machine("hub2", w.Internet, true, addr("198.51.100.12"))
	x := w.homeOf("x", w.Internet, "192.0.2.1", "192.168.1.10", a)
	y := w.homeOf("y", w.Internet, "192.0.2.2", "192.168.2.10", b)
	w.Start(w.All()...)
	w.Run(2 * time.Second)
	s := x.Ping(y, 100*time.Millisecond)
	w.Run(15 * time.Second) // the calls' last round is after 7
	if gap := s.Gap(w.Now()); gap > 500*time.Millisecond {
		t.Errorf("silent for %v meanwhile", gap)
	}
	return x.kind(y), y.kind(x)
}

// homeOf adds a machine alone behind a NAT.
func (w *World) homeOf(name string, outer *Network, outside, inside string, nat NAT) *Node {
	lan := w.Network(time.Millisecond)
	w.Router(lan, outer, addr(outside), nat, netip.Prefix{})
	return w.Machine(name, lan, false, addr(inside))
}

// kind is how n reaches another, PathNone if that is not proven.
func (n *Node) kind(to *Node) fleet.PathKind {
	if !n.Proven(to) {
		return fleet.PathNone
	}
	return n.Path(to).Route.Kind()
}

// TestCalls: both sides are called through every hub that both know, in several
// rounds at least a second apart; and it ends where it does not help.
func TestCalls(t *testing.T) {
	w := New(1)
	var hubs []netip.AddrPort
	for i := range 3 {
		h := w.Machine(fmt.Sprintf("hub%d", i), w.Internet, true, netip.AddrFrom4([4]byte{198, 51, 100, byte(11 + i)}))
		hubs = append(hubs, h.public[0])
	}
	x := w.homeOf("x", w.Internet, "192.0.2.1", "192.168.1.10", linux)
	y := w.homeOf("y", w.Internet, "192.0.2.2", "192.168.2.10", linux)
	w.Start(w.All()...)
	w.Run(2 * time.Second)
	calls := make(map[netip.AddrPort][]time.Time) // of x, by hub
	w.Drop = func(p Packet) bool {
		if len(p.Data) > wire.RelaySize && wire.Classify(p.Data) == wire.Forward &&
			wire.Classify(p.Data[wire.RelaySize:]) == wire.Call && p.Src.Addr() == addr("192.0.2.1") {
			calls[p.Dst] = append(calls[p.Dst], w.Now())
		}
		return false
	}
	x.Ping(y, 100*time.Millisecond)
	w.Run(40 * time.Second)
	for _, h := range hubs {
		if n := len(calls[h]); n < 3 || n > 12 {
			t.Errorf("%d calls through %v, want some rounds", n, h)
		}
		var rounds []time.Time // answers to the other's follow ours at once
		for _, at := range calls[h] {
			if len(rounds) == 0 || at.Sub(rounds[len(rounds)-1]) > time.Second/2 {
				rounds = append(rounds, at)
			}
		}
		apart := 0
		for i := 1; i < len(rounds); i++ {
			if rounds[i].Sub(rounds[i-1]) >= time.Second-time.Millisecond {
				apart++
			}
		}
		if apart < 2 {
			t.Errorf("through %v at %v: not several rounds a second apart", h, ago(rounds))
		}
	}
}

// ago is when things were, since the first.
func ago(times []time.Time) (out []time.Duration) {
	for _, t := range times {
		out = append(out, t.Sub(times[0]).Round(time.Millisecond))
	}
	return out
}

// TestHairpin puts two machines behind one carrier's NAT, each in a home of its
// own. Where the carrier turns packets round they meet there, if their home
// routers can be punched; else a hub relays.
func TestHairpin(t *testing.T) {
	cone := NAT{Mapping: Endpoint, Filtering: AddressAndPort}
	for _, tt := range []struct {
		carrier, home NAT
		want          fleet.PathKind
	}{
		{NAT{Hairpin: true}, cone, fleet.PathDirectV4},
		{NAT{Filtering: AddressAndPort, Hairpin: true}, cone, fleet.PathDirectV4},
		{NAT{}, cone, fleet.PathRelayed},
		{NAT{Hairpin: true}, linux, fleet.PathRelayed},
		{NAT{}, linux, fleet.PathRelayed},
	} {
		t.Run(fmt.Sprintf("%v,%v,hairpin=%v", tt.carrier, tt.home, tt.carrier.Hairpin), func(t *testing.T) {
			w := New(1)
			w.Machine("hub1", w.Internet, true, addr("198.51.100.11"))
			w.Machine("hub2", w.Internet, true, addr("198.51.100.12"))
			carrier := w.Network(time.Millisecond)
			w.Router(carrier, w.Internet, addr("192.0.2.1"), tt.carrier, netip.Prefix{})
			x := w.homeOf("x", carrier, "100.64.0.1", "192.168.1.10", tt.home)
			y := w.homeOf("y", carrier, "100.64.0.2", "192.168.2.10", tt.home)
			w.Start(w.All()...)
			w.Run(2 * time.Second)
			s := x.Ping(y, 100*time.Millisecond)
			w.Run(30 * time.Second)
			if got := [2]fleet.PathKind{x.kind(y), y.kind(x)}; got != [2]fleet.PathKind{tt.want, tt.want} {
				t.Errorf("goes %v, want %s both ways", got, tt.want)
			}
			if gap := s.Gap(w.Now()); gap > 500*time.Millisecond {
				t.Errorf("silent for %v", gap)
			}
		})
	}
}

// TestSameHome: two machines on one LAN without IPv6 find each other there,
// whether their router turns packets round or not.
func TestSameHome(t *testing.T) {
	for _, nat := range []NAT{linux, {Hairpin: true}, {}} {
		w := New(1)
		w.Machine("hub1", w.Internet, true, addr("198.51.100.11"))
		home := w.Network(time.Millisecond)
		w.Router(home, w.Internet, addr("192.0.2.1"), nat, netip.Prefix{})
		x := w.Machine("x", home, false, addr("192.168.1.10"))
		y := w.Machine("y", home, false, addr("192.168.1.11"))
		w.Start(w.All()...)
		w.Run(2 * time.Second)
		x.Ping(y, 100*time.Millisecond)
		w.Run(15 * time.Second)
		if got := x.Path(y).Route.Addr.Addr(); got != addr("192.168.1.11") {
			t.Errorf("%v: goes by %v, want the LAN", nat, x.Path(y).Route)
		}
		if got := y.Path(x).Route.Addr.Addr(); got != addr("192.168.1.10") {
			t.Errorf("%v: goes back by %v, want the LAN", nat, y.Path(x).Route)
		}
	}
}
