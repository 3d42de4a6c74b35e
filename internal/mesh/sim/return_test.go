package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestReturn: however long a fault lasted, the better path is used again soon
// after it is over, and kept.
func TestReturn(t *testing.T) {
	t.Parallel()
	seeds := max(*runs/5, 1)
	table := fmt.Sprintf("%-28s %8s %26s %14s\n", "better path used again", "after", "p50 p95 max", "most changes")
	lossy := func(c *cats, a, b *Node) func() {
		return drop(c, a, b, func(Packet) bool { return c.random.IntN(100) < 30 })
	}
	homeAndHub := func(c *cats) (a, b *Node) { return c.bianco, c.cosmo }
	for _, f := range append(faults(), fault{"30 % lost, home to hub", homeAndHub, lossy, noneDirect, bothDirect}) {
		durations := []time.Duration{2 * time.Second, 40 * time.Second}
		if f.name == "30 % lost" {
			durations = append(durations, 10*time.Minute)
		}
		for _, lasts := range durations {
			t.Run(fmt.Sprint(f.name, " for ", lasts), func(t *testing.T) {
				var back []time.Duration
				var changes []int
				for seed := range uint64(seeds) {
					took, n := f.returns(t, seed, lasts)
					back, changes = append(back, took), append(changes, n)
				}
				table += fmt.Sprintf("%-28s %8v %8v %8v %8v %10d\n", f.name, lasts, part(back, 50), part(back, 95), part(back, 100), slices.Max(changes))
			})
		}
	}
	t.Logf("%d runs each:\n%s", seeds, table)
}

// returns says how long after the fault the better path was used again, and how
// often either end changed its path in the minute after that.
func (f fault) returns(t *testing.T, seed uint64, lasts time.Duration) (took time.Duration, changes int) {
	t.Helper()
	c := newCats(seed)
	a, b := f.pair(c)
	defer c.drawn(t, a, b)()
	a.Ping(b, 50*time.Millisecond)
	stream := a.Transfer(b, 25*time.Millisecond)
	c.Run(20*time.Second + time.Duration(seed)*41*time.Millisecond)
	mend := f.inflict(c, a, b)
	c.Run(2 * time.Second)
	stream.Stop()
	c.Run(min(lasts, 7*time.Second) - 2*time.Second)
	before := changesOf(a, b)
	c.Run(lasts - min(lasts, 7*time.Second))
	if n := changesOf(a, b) - before; n > mostFlaps {
		t.Errorf("seed %d: %d changes of path while the fault lasted", seed, n)
	}
	mend()
	took, ok := c.RunUntil(backWithin, func() bool { return f.back(a, b) })
	if !ok {
		t.Errorf("seed %d: not on the better path again after %v", seed, took)
	}
	before = changesOf(a, b)
	c.Run(time.Minute)
	if changes = changesOf(a, b) - before; changes > mostFlaps {
		t.Errorf("seed %d: %d changes of path in the minute after the return", seed, changes)
	}
	return took, changes
}

// TestLossyForLong: a direct path that loses some, but not so much that it is
// always worse than a relay, is not taken and left again and again.
func TestLossyForLong(t *testing.T) {
	t.Parallel()
	for _, percent := range []int{3, 10} {
		c := newCats(1)
		a, b := hubs(c)
		a.Ping(b, 50*time.Millisecond)
		a.Transfer(b, 25*time.Millisecond)
		c.Run(20 * time.Second)
		drop(c, a, b, func(Packet) bool { return c.random.IntN(100) < percent })
		c.Run(10 * time.Second)
		before := changesOf(a, b)
		c.Run(5 * time.Minute)
		// Of both ends: each leaves it when four of 32 probes were lost, for at most
		// HoldMax without loss.
		if n := changesOf(a, b) - before; n > 30 {
			t.Errorf("%d %% lost each way: %d changes of path in five minutes", percent, n)
		}
	}
}
