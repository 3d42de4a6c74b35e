package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// linux is what masquerade on Linux does, and most home routers with it.
var linux = NAT{Mapping: AddressAndPort, Filtering: AddressAndPort}

// cats is the reference fleet: three hubs, two machines in London behind
// carrier NAT with IPv6, one in Madrid behind carrier NAT without.
type cats struct {
	*World
	cosmo, maco, miki, ari, ziggy, bianco *Node
	london, madrid                        *Router
}

func newCats(seed uint64) *cats {
	w := New(seed)
	c := &cats{World: w}
	c.cosmo = w.Machine("cosmo", w.Internet, true, addr("198.51.100.11"), addr("2001:db8:c0::11"))
	c.maco = w.Machine("maco", w.Internet, true, addr("198.51.100.12"), addr("2001:db8:c0::12"))
	c.miki = w.Machine("miki", w.Internet, true, addr("203.0.113.21"), addr("2001:db8:e1::21"))

	carrier := w.Network(2 * time.Millisecond)
	w.Router(carrier, w.Internet, addr("192.0.2.1"), linux, netip.MustParsePrefix("2001:db8:a::/48"))
	london := w.Network(time.Millisecond)
	c.london = w.Router(london, carrier, addr("100.64.0.5"), linux, netip.MustParsePrefix("2001:db8:a:1::/64"))
	c.ari = w.Machine("ari", london, false, addr("192.168.1.10"), addr("2001:db8:a:1::10"))
	c.ziggy = w.Machine("ziggy", london, false, addr("192.168.1.11"), addr("2001:db8:a:1::11"))

	carrier2 := w.Network(8 * time.Millisecond)
	w.Router(carrier2, w.Internet, addr("192.0.2.2"), linux, netip.Prefix{})
	madrid := w.Network(time.Millisecond)
	c.madrid = w.Router(madrid, carrier2, addr("100.64.0.9"), linux, netip.Prefix{})
	c.bianco = w.Machine("bianco", madrid, false, addr("192.168.1.10"))
	w.Start(w.All()...)
	w.Run(2 * time.Second)
	return c
}

func TestEveryPairTalks(t *testing.T) {
	t.Parallel()
	c := newCats(1)
	for _, a := range c.All() {
		for _, b := range c.All() {
			if a == b {
				continue
			}
			s := a.Ping(b, 200*time.Millisecond)
			c.Run(2 * time.Second)
			s.Stop()
			c.Run(time.Second / 2)
			if s.Answered < s.Sent-1 {
				t.Errorf("%s to %s: %d of %d answered, by %v", a.Name, b.Name, s.Answered, s.Sent, a.Path(b).Route)
			}
		}
	}
	for _, tt := range []struct {
		a, b *Node
		want fleet.PathKind
	}{
		{c.cosmo, c.miki, fleet.PathDirectV6},
		{c.ari, c.cosmo, fleet.PathDirectV6},
		{c.cosmo, c.ari, fleet.PathDirectV6},
		{c.ari, c.ziggy, fleet.PathDirectV6},
		{c.bianco, c.miki, fleet.PathDirectV4},
		{c.miki, c.bianco, fleet.PathDirectV4},
		{c.bianco, c.ari, fleet.PathRelayed},
		{c.ziggy, c.bianco, fleet.PathRelayed},
	} {
		s := tt.a.Ping(tt.b, 100*time.Millisecond)
		c.Run(12 * time.Second)
		s.Stop()
		if got := tt.a.Path(tt.b).Route.Kind(); got != tt.want || !tt.a.Proven(tt.b) {
			t.Errorf("%s to %s goes %s, proven %v; want %s", tt.a.Name, tt.b.Name, got, tt.a.Proven(tt.b), tt.want)
		}
	}
}

// TestHubLost: whichever hub dies, every pair of the others goes on; pairs that
// were relayed by it within a second.
func TestHubLost(t *testing.T) {
	t.Parallel()
	for i := range 3 {
		c := newCats(uint64(10 + i))
		hub := []*Node{c.cosmo, c.maco, c.miki}[i]
		t.Run(hub.Name, func(t *testing.T) {
			var streams []*Stream
			var names []string
			for _, a := range c.All() {
				for _, b := range c.All() {
					if a != b && a != hub && b != hub {
						streams = append(streams, a.Ping(b, 50*time.Millisecond))
						names = append(names, a.Name+" to "+b.Name)
					}
				}
			}
			c.Run(12 * time.Second)
			hub.Stop()
			c.Run(10 * time.Second)
			var worst time.Duration
			for i, s := range streams {
				gap := s.Gap(c.Now())
				worst = max(worst, gap)
				if gap > time.Second {
					t.Errorf("%s: silent for %v", names[i], gap)
				}
			}
			t.Logf("longest gap %v", worst)
		})
	}
}

// TestHubsRestartedInTurn: each comes back empty, and is whole within one
// heartbeat.
func TestHubsRestartedInTurn(t *testing.T) {
	c := newCats(4)
	s := c.bianco.Ping(c.ari, 50*time.Millisecond)
	c.Run(10 * time.Second)
	for _, h := range []*Node{c.cosmo, c.maco, c.miki} {
		h.Stop()
		c.Run(500 * time.Millisecond)
		h.Start()
		c.Run(path.KeepaliveMax)
	}
	s.Stop()
	c.Run(time.Second)
	if gap := s.Gap(c.Now().Add(-time.Second)); gap > time.Second {
		t.Errorf("silent for %v", gap)
	}
	// Idle nodes are registered again as well: only the last restarted hub lives.
	c.cosmo.Stop()
	c.maco.Stop()
	c.Run(time.Second)
	s = c.ziggy.Ping(c.bianco, 50*time.Millisecond)
	c.Run(5 * time.Second)
	if gap := s.Gap(c.Now()); gap > 1500*time.Millisecond {
		t.Errorf("with only miki left: silent for %v", gap)
	}
}

func TestHubDrained(t *testing.T) {
	c := newCats(5)
	s := c.bianco.Ping(c.ari, 20*time.Millisecond)
	c.Run(15 * time.Second)
	via := c.bianco.Path(c.ari).Route.Hub
	for _, h := range []*Node{c.cosmo, c.maco, c.miki} {
		if h.id == via {
			h.Drain()
		}
	}
	lost := s.Sent - s.Answered
	c.Run(5 * time.Second)
	s.Stop()
	c.Run(time.Second)
	if s.Sent-s.Answered > lost {
		t.Errorf("%d packets lost", s.Sent-s.Answered-lost)
	}
}

func TestRestartedPeer(t *testing.T) {
	c := newCats(6)
	s := c.bianco.Ping(c.ari, 50*time.Millisecond)
	c.Run(10 * time.Second)
	c.ari.Stop()
	c.Run(700 * time.Millisecond)
	c.ari.Start()
	c.Run(10 * time.Second)
	if gap := s.Gap(c.Now()); gap > 700*time.Millisecond+1500*time.Millisecond {
		t.Errorf("silent for %v after a restart of 0.7 s", gap)
	}
}

func (n *Node) Start() { n.start() }

func TestQuietFleetSaysLittle(t *testing.T) {
	c := newCats(7)
	c.Run(time.Minute)
	before := c.Sent
	c.Run(10 * time.Minute)
	rate := float64(c.Sent.Bytes-before.Bytes) / 600 / 6
	if rate > 200 {
		t.Errorf("%.0f bytes per second and node when nobody talks", rate)
	}
	t.Logf("%.0f bytes per second and node", rate)
}

// TestOneHubForBoth: a relayed pair settles on one hub for both directions, so
// that only one can break it.
func TestOneHubForBoth(t *testing.T) {
	for seed := range uint64(2 * *runs) {
		c := newCats(seed)
		c.bianco.Ping(c.ari, 50*time.Millisecond)
		c.Run(15 * time.Second)
		if there, back := c.bianco.Path(c.ari).Route, c.ari.Path(c.bianco).Route; there != back {
			t.Errorf("seed %d: there by %v, back by %v", seed, there, back)
		}
	}
}

// TestSameSeedSameRun: what cannot be run again cannot be looked into.
func TestSameSeedSameRun(t *testing.T) {
	run := func() (sent int, changes []string) {
		c := newCats(3)
		c.bianco.Ping(c.ari, 50*time.Millisecond)
		c.Run(10 * time.Second)
		c.cosmo.Stop()
		c.Run(10 * time.Second)
		for _, n := range c.All() {
			for _, ch := range n.Changes {
				changes = append(changes, fmt.Sprint(n.Name, ch.At, ch.Peer, ch.Use))
			}
		}
		return c.Sent.Bytes, changes
	}
	sent, changes := run()
	again, same := run()
	if sent != again {
		t.Errorf("%d bytes were sent, then %d", sent, again)
	}
	if diff := cmp.Diff(changes, same); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
}

// TestDeadHubCostsLittle: a hub that is gone for long is looked for now and then,
// not all the time.
func TestDeadHubCostsLittle(t *testing.T) {
	c := newCats(14)
	c.maco.Stop()
	c.Run(time.Minute)
	packets := 0
	c.Drop = func(p Packet) bool {
		if slices.Contains(c.maco.addrs, p.Dst.Addr()) {
			packets++
		}
		return false
	}
	c.Run(time.Minute)
	// Five nodes, one of them without IPv6, every two seconds.
	if most := 9 * 60 / 2; packets > most+9 || packets == 0 {
		t.Errorf("%d packets to it in a minute, want some, at most %d", packets, most)
	}
}
