package sim

import (
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/path"
)

// TestManyHubs: of a fleet with 16 hubs, every pair has one in common without
// keeping in touch with all; also a pair of which one has only IPv4 and the other
// only IPv6. That holds when hubs die: the one that relays, and all but a few.
func TestManyHubs(t *testing.T) {
	t.Parallel()
	pairs := max(somePairs/4, 10)
	c := newCrowd(16, 16+max(somePairs/2, 20), 16)
	c.Start(c.All()...)
	c.Run(path.KeepaliveMax)
	if m := c.measure(20 * time.Second); m.most > 500 {
		t.Errorf("with 16 hubs a machine says %.0f B/s when nobody talks", m.most)
	}
	check := func(when string, took []time.Duration) {
		t.Helper()
		if worst := part(took, 100); worst > newPathIn {
			t.Errorf("%s: a new path took %v", when, worst)
		}
	}
	check("at first", c.newPaths(pairs))
	v4, v6 := c.rest[4], c.rest[9] // IPv4 behind a NAT, and IPv6 only
	check("IPv4 to IPv6", c.talk(v4, v6))
	hub := c.byID[v4.Path(v6).Route.Hub]
	if hub == nil {
		t.Fatalf("goes %v", v4.Path(v6).Route)
	}
	gaps, later := c.rehome(pairs)
	check("after a hub died", later)
	if worst := part(gaps, 100); worst > rehomedIn {
		t.Errorf("a pair was silent for %v after its hub died", worst)
	}
	for _, h := range c.hubs[3:] {
		h.Stop()
	}
	c.Run(path.KeepaliveMax + 5*time.Second) // until all have noticed
	check("three hubs are left", c.newPaths(pairs))
}

// talk lets two machines talk for a while, and returns how long it took until the
// first answer came.
func (c *crowd) talk(a, b *Node) []time.Duration {
	s := a.Ping(b, 50*time.Millisecond)
	c.Run(3 * time.Second)
	s.Stop()
	return []time.Duration{s.First()}
}
