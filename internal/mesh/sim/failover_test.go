package sim

import (
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// runs is how often a fault is tried, each time with another seed: 50 for the
// figures in docs (go test ./internal/mesh/sim -run TestFailover -v -runs 50).
var runs = flag.Int("runs", fewRuns, "how often each fault is tried")

// fault breaks the path that a talks to b by, and returns what mends it.
type fault struct {
	name    string
	pair    func(*cats) (a, b *Node)
	inflict func(c *cats, a, b *Node) (mend func())
	// left says whether the broken path was left; nil: it may be kept.
	left func(c *cats, a, b *Node) bool
	// back says whether the better path is in use again.
	back func(a, b *Node) bool
}

func hubs(c *cats) (a, b *Node)  { return c.cosmo, c.miki }
func homes(c *cats) (a, b *Node) { return c.bianco, c.ari }
func flat(c *cats) (a, b *Node)  { return c.ari, c.ziggy }

func bothDirect(a, b *Node) bool {
	return a.Path(b).Route.Direct() && b.Path(a).Route.Direct()
}

func noneDirect(_ *cats, a, b *Node) bool {
	return !a.Path(b).Route.Direct() && !b.Path(a).Route.Direct()
}

func bothRelayed(a, b *Node) bool {
	return a.Path(b).Route.Kind() == fleet.PathRelayed && b.Path(a).Route.Kind() == fleet.PathRelayed
}

// drop loses what passes between two machines, both ways, and says so.
func drop(c *cats, a, b *Node, lost func(Packet) bool) (mend func()) {
	there, back := between([]*Node{a}, []*Node{b}), between([]*Node{b}, []*Node{a})
	c.Drop = func(p Packet) bool { return (there(p) || back(p)) && lost(p) }
	return func() { c.Drop = nil }
}

func always(Packet) bool { return true }

func faults() []fault {
	return []fault{
		{"direct lost to relay", hubs, func(c *cats, a, b *Node) func() { return drop(c, a, b, always) }, noneDirect, bothDirect},
		{"direct lost, no hub", flat, func(c *cats, a, b *Node) func() { return drop(c, a, b, always) }, noneDirect, bothDirect},
		{"hub lost to other hub", homes, func(c *cats, a, b *Node) func() {
			hub := c.hubOf(a, b)
			hub.Stop()
			return hub.start
		}, func(c *cats, a, b *Node) bool { return c.hubOf(a, b).up }, bothRelayed},
		{"cut one way", hubs, func(c *cats, a, b *Node) func() {
			c.Drop = between([]*Node{a}, []*Node{b})
			return func() { c.Drop = nil }
		}, func(_ *cats, a, b *Node) bool { return !a.Path(b).Route.Direct() }, bothDirect},
		{"30 % lost", hubs, func(c *cats, a, b *Node) func() {
			return drop(c, a, b, func(Packet) bool { return c.random.IntN(100) < 30 })
		}, noneDirect, bothDirect},
		{"large packets lost", hubs, func(c *cats, a, b *Node) func() {
			return drop(c, a, b, func(p Packet) bool { return len(p.Data) > 1000 })
		}, noneDirect, bothDirect},
		{"refused by its own machine", hubs, func(_ *cats, a, b *Node) func() {
			a.Refuse = func(to netip.AddrPort) bool { return slices.Contains(b.addrs, to.Addr()) }
			return func() { a.Refuse = nil }
		}, func(_ *cats, a, b *Node) bool { return !a.Path(b).Route.Direct() }, bothDirect},
	}
}

// hubOf is the hub that a sends to b by.
func (c *cats) hubOf(a, b *Node) *Node {
	for _, h := range []*Node{c.cosmo, c.maco, c.miki} {
		if h.id == a.Path(b).Route.Hub {
			return h
		}
	}
	return nil
}

// figures are what all runs of a fault gave.
type figures struct {
	ping, stream, back []time.Duration
	changes            []int
}

const (
	gapWanted  = time.Second      // p95
	backWithin = 60 * time.Second // always
	mostFlaps  = 4                // changes of either end while the fault lasts, after the first seconds
)

// TestFailover breaks a path under traffic, a ping every 50 ms and a stream of
// full packets, in all the ways that paths break: how long is the longest
// silence, does it settle, and is the better path used again?
func TestFailover(t *testing.T) {
	t.Parallel()
	table := fmt.Sprintf("%-28s %26s %26s %20s %10s\n", "longest gap, p50 p95 max", "ping 50 ms", "stream", "back, p50 max", "changes")
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			var all figures
			for seed := range uint64(*runs) {
				f.run(t, seed, &all)
			}
			table += fmt.Sprintf("%-28s %8v %8v %8v %8v %8v %8v %9v %10v %10d\n", f.name,
				part(all.ping, 50), part(all.ping, 95), part(all.ping, 100),
				part(all.stream, 50), part(all.stream, 95), part(all.stream, 100),
				part(all.back, 50), part(all.back, 100), slices.Max(all.changes))
			if got := part(all.ping, 95); got > gapWanted {
				t.Errorf("longest gap of a ping, p95: %v", got)
			}
			if got := part(all.stream, 95); got > gapWanted {
				t.Errorf("longest gap of a stream, p95: %v", got)
			}
		})
	}
	t.Logf("%d runs each:\n%s", *runs, table)
}

func part(all []time.Duration, percent int) time.Duration {
	slices.Sort(all)
	return all[min((len(all)*percent+99)/100, len(all))-1].Round(10 * time.Millisecond)
}

func (f fault) run(t *testing.T, seed uint64, all *figures) {
	t.Helper()
	c := newCats(seed)
	a, b := f.pair(c)
	defer c.drawn(t, a, b)()
	first := a.Ping(b, 50*time.Millisecond)
	c.Run(17*time.Second + time.Duration(seed)*41*time.Millisecond)
	first.Stop()
	ping, stream := a.Ping(b, 50*time.Millisecond), a.Transfer(b, 25*time.Millisecond)
	c.Run(3 * time.Second)
	mend := f.inflict(c, a, b)
	c.Run(7 * time.Second)
	all.ping, all.stream = append(all.ping, ping.Gap(c.Now())), append(all.stream, stream.Gap(c.Now()))
	changes := changesOf(a, b)
	stream.Stop()
	c.Run(30*time.Second + time.Duration(seed)*211*time.Millisecond)
	if f.left != nil && !f.left(c, a, b) {
		t.Errorf("seed %d: 37 s after the fault it goes %v, back %v", seed, a.Path(b).Route.Kind(), b.Path(a).Route.Kind())
	}
	n := changesOf(a, b) - changes
	all.changes = append(all.changes, n)
	if n > mostFlaps {
		t.Errorf("seed %d: %d changes of path in the 30 s after the first seven", seed, n)
	}
	mend()
	took, ok := c.RunUntil(backWithin, func() bool { return f.back(a, b) })
	all.back = append(all.back, took)
	if !ok {
		t.Errorf("seed %d: not on the better path again after %v", seed, took)
	}
}

// changesOf counts how often either end changed its path to the other.
func changesOf(a, b *Node) (n int) {
	for _, c := range a.Changes {
		if c.Peer == b.Name {
			n++
		}
	}
	for _, c := range b.Changes {
		if c.Peer == a.Name {
			n++
		}
	}
	return n
}
