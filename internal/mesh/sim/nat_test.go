package sim

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestNATPairs puts two machines behind every pair of NATs that RFC 4787 can
// name, 45 in all, and says which must find a direct path: where either side
// lets strangers in, where both keep one mapping for all, or where one does and
// the other minds the address alone. The others are relayed.
func TestNATPairs(t *testing.T) {
	var kinds []NAT
	for _, m := range []Dependence{Endpoint, Address, AddressAndPort} {
		for _, f := range []Dependence{Endpoint, Address, AddressAndPort} {
			kinds = append(kinds, NAT{Mapping: m, Filtering: f})
		}
	}
	names := map[Dependence]string{Endpoint: "independent", Address: "address", AddressAndPort: "port"}
	for i, a := range kinds {
		for _, b := range kinds[i:] {
			name := fmt.Sprintf("%s-%s,%s-%s", names[a.Mapping], names[a.Filtering], names[b.Mapping], names[b.Filtering])
			t.Run(name, func(t *testing.T) {
				direct := natPair(t, a, b)
				if want := punchable(a, b); direct != want {
					t.Errorf("direct %v, want %v", direct, want)
				}
			})
		}
	}
}

func punchable(a, b NAT) bool {
	oneWay := func(a, b NAT) bool {
		return a.Filtering == Endpoint || a.Mapping == Endpoint && b.Mapping == Endpoint ||
			a.Mapping == Endpoint && a.Filtering == Address
	}
	return oneWay(a, b) || oneWay(b, a)
}

func natPair(t *testing.T, a, b NAT) (direct bool) {
	t.Helper()
	w := New(1)
	w.Machine("hub1", w.Internet, true, addr("198.51.100.11"))
	w.Machine("hub2", w.Internet, true, addr("198.51.100.12"))
	left, right := w.Network(time.Millisecond), w.Network(time.Millisecond)
	w.Router(left, w.Internet, addr("192.0.2.1"), a, netip.Prefix{})
	w.Router(right, w.Internet, addr("192.0.2.2"), b, netip.Prefix{})
	x := w.Machine("x", left, false, addr("192.168.1.10"))
	y := w.Machine("y", right, false, addr("192.168.2.10"))
	w.Start(w.All()...)
	w.Run(2 * time.Second)
	s := x.Ping(y, 100*time.Millisecond)
	w.Run(40 * time.Second)
	if gap := s.Gap(w.Now()); gap > 500*time.Millisecond {
		t.Errorf("silent for %v meanwhile", gap)
	}
	return x.Path(y).Route.Direct() && x.Proven(y) && y.Path(x).Route.Direct()
}

// TestHairpin puts two machines behind one NAT, in networks that cannot reach
// each other by their private addresses.
func TestHairpin(t *testing.T) {
	for _, hairpin := range []bool{true, false} {
		w := New(1)
		w.Machine("hub1", w.Internet, true, addr("198.51.100.11"))
		w.Machine("hub2", w.Internet, true, addr("198.51.100.12"))
		carrier := w.Network(time.Millisecond)
		w.Router(carrier, w.Internet, addr("192.0.2.1"), NAT{Hairpin: hairpin}, netip.Prefix{})
		left, right := w.Network(time.Millisecond), w.Network(time.Millisecond)
		w.Router(left, carrier, addr("100.64.0.1"), linux, netip.Prefix{})
		w.Router(right, carrier, addr("100.64.0.2"), linux, netip.Prefix{})
		x := w.Machine("x", left, false, addr("192.168.1.10"))
		y := w.Machine("y", right, false, addr("192.168.2.10"))
		w.Start(w.All()...)
		w.Run(2 * time.Second)
		s := x.Ping(y, 100*time.Millisecond)
		w.Run(30 * time.Second)
		if lost := s.Sent - s.Answered; lost > 5 {
			t.Errorf("hairpin %v: %d of %d lost, by %v", hairpin, lost, s.Sent, x.Path(y).Route)
		}
	}
}

// TestSameHome: two machines on one LAN without IPv6 find each other there.
func TestSameHome(t *testing.T) {
	w := New(1)
	w.Machine("hub1", w.Internet, true, addr("198.51.100.11"))
	home := w.Network(time.Millisecond)
	w.Router(home, w.Internet, addr("192.0.2.1"), linux, netip.Prefix{})
	x := w.Machine("x", home, false, addr("192.168.1.10"))
	y := w.Machine("y", home, false, addr("192.168.1.11"))
	w.Start(w.All()...)
	w.Run(2 * time.Second)
	x.Ping(y, 100*time.Millisecond)
	w.Run(10 * time.Second)
	if got := x.Path(y).Route.Addr.Addr(); got != addr("192.168.1.11") {
		t.Errorf("goes by %v, want the LAN", x.Path(y).Route)
	}
}

// TestOnlyIPv4MeetsOnlyIPv6: every dual-stack hub joins them.
func TestOnlyIPv4MeetsOnlyIPv6(t *testing.T) {
	w := New(1)
	hub1 := w.Machine("hub1", w.Internet, true, addr("198.51.100.11"), addr("2001:db8::11"))
	w.Machine("hub2", w.Internet, true, addr("198.51.100.12"), addr("2001:db8::12"))
	x := w.Machine("x", w.Internet, false, addr("192.0.2.10"))
	y := w.Machine("y", w.Internet, false, addr("2001:db8:b::10"))
	w.Start(w.All()...)
	w.Run(2 * time.Second)
	s := x.Ping(y, 50*time.Millisecond)
	w.Run(15 * time.Second)
	hub1.Stop()
	w.Run(5 * time.Second)
	if gap := s.Gap(w.Now()); gap > 500*time.Millisecond {
		t.Errorf("silent for %v", gap)
	}
}
