package mesh

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// thorough says whether the long forms are wanted: `make test-mesh`.
func thorough() bool { return os.Getenv("MOGGY_MESH") == "all" }

// runs is how often each fault is tried: MOGGY_MESH_RUNS, 50 where the long form
// is wanted, else once.
func runs(t *testing.T) int {
	t.Helper()
	text := os.Getenv("MOGGY_MESH_RUNS")
	switch n, err := strconv.Atoi(text); {
	case err == nil:
		return n
	case text != "":
		t.Fatalf("MOGGY_MESH_RUNS: %v", err)
	case thorough():
		return 50
	}
	return 1
}

// trouble is one way to break what a pair talks by.
type trouble struct {
	name string
	pair func(c *fleetOfCats) (a, b *machine)
	// inflict breaks it, and returns what mends it.
	inflict func(c *fleetOfCats, a, b *machine) (mend func())
	// left says whether the broken path is in use no more.
	left func(a, b *machine) bool
	// back says whether the better path is in use again.
	back func(a, b *machine) bool
}

// fleetOfCats is what cats makes, and a third hub.
type fleetOfCats struct {
	*world
	hub1, hub2, hub3, ari, bianco *machine
}

func relayedCats(t *testing.T) *fleetOfCats {
	t.Helper()
	w, hub1, hub2, ari, bianco := cats(t)
	w.symmetric("madrid") // so that ari and bianco stay relayed
	w.symmetric("london")
	hub3 := w.public("hub3", true, "203.0.113.13", "2001:db8::13")
	return &fleetOfCats{w, hub1, hub2, hub3, ari, bianco}
}

// outside are the addresses that others see a machine at.
func (c *fleetOfCats) outside(m *machine) (v4, v6 string) {
	switch m {
	case c.hub1:
		return "203.0.113.11", "2001:db8::11"
	case c.hub2:
		return "203.0.113.12", "2001:db8::12"
	case c.hub3:
		return "203.0.113.13", "2001:db8::13"
	case c.ari:
		return "203.0.113.101", "2001:db8:a::10"
	}
	return "203.0.113.102", "2001:db8:b::10" // bianco has no IPv6; nobody has this
}

// lose loses what comes to b from a, or that part of it that how (of nftables)
// says. Neither machine is told.
func (c *fleetOfCats) lose(a, b *machine, how string) (mend func()) {
	v4, v6 := c.outside(a)
	table := "lose_" + a.name
	c.Sh(b.name, fmt.Sprintf(`nft -f - <<'E'
table inet %[1]s {
	chain in { type filter hook prerouting priority -500; policy accept;
		ip saddr %[2]s %[4]s drop
		ip6 saddr %[3]s %[4]s drop
	}
}
E`, table, v4, v6, how))
	return func() { c.Sh(b.name, "nft delete table inet "+table) }
}

func (c *fleetOfCats) loseBoth(a, b *machine, how string) (mend func()) {
	there, back := c.lose(a, b, how), c.lose(b, a, how)
	return func() { there(); back() }
}

// refuse makes a's own firewall refuse what it sends to b: sendmsg(2) fails.
func (c *fleetOfCats) refuse(a, b *machine) (mend func()) {
	v4, v6 := c.outside(b)
	c.Sh(a.name, fmt.Sprintf(`nft -f - <<'E'
table inet refuse {
	chain out { type filter hook output priority 0; policy accept;
		ip daddr %s reject
		ip6 daddr %s reject
	}
}
E`, v4, v6))
	return func() { c.Sh(a.name, "nft delete table inet refuse") }
}

func bothDirect(a, b *machine) bool { return direct(a.peer(b)) && direct(b.peer(a)) }

func noneDirect(a, b *machine) bool { return !direct(a.peer(b)) && !direct(b.peer(a)) }

func direct(p fleet.PeerStatus) bool {
	return p.Path == fleet.PathDirectV4 || p.Path == fleet.PathDirectV6
}

func bothRelayed(a, b *machine) bool {
	return a.peer(b).Path == fleet.PathRelayed && b.peer(a).Path == fleet.PathRelayed
}

// troubles are in an order in which those that take the longest to be forgiven
// come first: their time runs while the others are tried.
func troubles() []trouble {
	return []trouble{
		{
			"direct lost to relay",
			func(c *fleetOfCats) (a, b *machine) { return c.ari, c.hub1 },
			func(c *fleetOfCats, a, b *machine) func() { return c.loseBoth(a, b, "") },
			noneDirect, bothDirect,
		},
		{
			"cut one way",
			func(c *fleetOfCats) (a, b *machine) { return c.ari, c.hub2 },
			func(c *fleetOfCats, a, b *machine) func() { return c.lose(a, b, "") },
			func(a, b *machine) bool { return !direct(a.peer(b)) }, bothDirect,
		},
		{
			"30 % lost",
			func(c *fleetOfCats) (a, b *machine) { return c.bianco, c.hub1 },
			func(c *fleetOfCats, a, b *machine) func() { return c.loseBoth(a, b, "numgen random mod 100 < 30") },
			noneDirect, bothDirect,
		},
		{
			"large packets lost",
			func(c *fleetOfCats) (a, b *machine) { return c.bianco, c.hub2 },
			func(c *fleetOfCats, a, b *machine) func() { return c.loseBoth(a, b, "meta length > 1000") },
			// The other end sends acknowledgements, which pass.
			func(a, b *machine) bool { return !direct(a.peer(b)) }, bothDirect,
		},
		{
			"refused by its own machine",
			func(c *fleetOfCats) (a, b *machine) { return c.hub3, c.ari },
			func(c *fleetOfCats, a, b *machine) func() { return c.refuse(a, b) },
			func(a, b *machine) bool { return !direct(a.peer(b)) }, bothDirect,
		},
		{
			"hub lost to other hub",
			func(c *fleetOfCats) (a, b *machine) { return c.bianco, c.ari },
			func(c *fleetOfCats, a, b *machine) func() {
				hub := c.nodes[string(a.peer(b).Via)]
				hub.stop(syscall.SIGKILL)
				return hub.start
			},
			bothRelayed, bothRelayed,
		},
	}
}

const (
	gapWanted  = time.Second      // p95
	backWithin = 60 * time.Second // always
	mostFlaps  = 4                // changes of either end's path once it was left
)

// figures are what all runs of one trouble gave.
type figures struct {
	ping, stream, back []time.Duration
	flaps              []int
}

// TestNetnsFailover breaks what a pair talks by, under a ping every 50 ms and a
// stream of TCP, in all the ways that paths break: how long is the longest
// silence, does it settle, and is the better path in use again?
func TestNetnsFailover(t *testing.T) {
	all := make(map[string]*figures)
	n := runs(t)
	for i := range n {
		t.Run(fmt.Sprint("run ", i+1), func(t *testing.T) {
			c := relayedCats(t)
			c.startAll()
			var waiting []func()
			for _, tr := range troubles() {
				if all[tr.name] == nil {
					all[tr.name] = &figures{}
				}
				waiting = append(waiting, tr.run(t, c, all[tr.name]))
				if thorough() {
					waiting[len(waiting)-1]()
				}
			}
			if !thorough() {
				waiting[0]() // it is back by now
			}
		})
	}
	table := fmt.Sprintf("%-28s %-24s %-24s %-16s %s\n", "longest gap: p50 p95 max", "ping every 50 ms", "TCP stream", "back: p50 max", "flaps, most")
	for _, tr := range troubles() {
		f := all[tr.name]
		if f == nil || len(f.ping) == 0 {
			continue
		}
		table += fmt.Sprintf("%-28s %-7v %-7v %-8v %-7v %-7v %-8v %-7v %-8v %v\n", tr.name,
			part(f.ping, 50), part(f.ping, 95), part(f.ping, 100),
			part(f.stream, 50), part(f.stream, 95), part(f.stream, 100),
			part(f.back, 50), part(f.back, 100), most(f.flaps))
		// One run on a machine that is busy with something else says less.
		wanted := gapWanted
		if n < 20 {
			wanted *= 5
		}
		if got := max(part(f.ping, 95), part(f.stream, 95)); got > wanted {
			t.Errorf("%s: silent for %v, want at most %v", tr.name, got, wanted)
		}
	}
	t.Logf("%d runs:\n%s", n, table)
}

// part is the value below which so many percent are.
func part(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[max(len(all)*percent+99, 100)/100-1].Round(10 * time.Millisecond)
}

func most(all []int) string {
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprint(slices.Max(all))
}

// run inflicts the trouble, and returns what waits until the better path is used
// again.
func (tr trouble) run(t *testing.T, c *fleetOfCats, f *figures) (wait func()) {
	t.Helper()
	a, b := tr.pair(c)
	ping, stream := a.flow(b), a.stream(b)
	c.wait(tr.name+": the pair is on its best path", 40*time.Second, func() bool {
		return a.path(b).RTTMicro > 0 && b.path(a).RTTMicro > 0 && tr.back(a, b)
	})
	settled := time.Now()
	c.wait("it flows", 5*time.Second, func() bool { return time.Since(settled) > 600*time.Millisecond })
	before := ping.gap(settled)
	begin := time.Now()
	mend := tr.inflict(c, a, b)
	c.wait(tr.name+": the broken path is left", 10*time.Second, func() bool { return tr.left(a, b) })
	left := c.changes(a, b)
	c.wait("it goes on", 10*time.Second, func() bool { return time.Since(begin) > 2*time.Second })
	pings, streams := ping.gap(begin), stream.gap(t, begin)
	f.ping, f.stream = append(f.ping, pings), append(f.stream, streams)
	stream.end()
	changed := c.changes(a, b)
	if flaps := changed - left; flaps > mostFlaps {
		t.Errorf("%s: %d changes of path after the broken one was left", tr.name, flaps)
	}
	mend()
	mended := time.Now()
	back := make(chan time.Duration, 1)
	go func() {
		for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
			if tr.back(a, b) || time.Since(mended) > backWithin {
				tick.Stop()
				back <- time.Since(mended)
				return
			}
		}
	}()
	t.Logf("%s: ping silent for %v (%v before), stream for %v", tr.name, pings, before, streams)
	return func() {
		took := <-back
		f.back = append(f.back, took)
		if took > backWithin {
			t.Errorf("%s: after %v not on the better path again: %+v, back %+v", tr.name, took, a.peer(b), b.peer(a))
		}
		if !thorough() {
			return // what else was broken meanwhile made it change as well
		}
		c.wait("a while", 10*time.Second, func() bool { return time.Since(mended) > took+3*time.Second })
		flaps := max(c.changes(a, b)-changed-2, 0) // both ends' return is none
		f.flaps = append(f.flaps, flaps)
		if flaps > mostFlaps {
			t.Errorf("%s: %d changes of path but for the return", tr.name, flaps)
		}
	}
}

// changes is how often either end changed its path to the other.
func (c *fleetOfCats) changes(a, b *machine) int {
	return a.logged("msg=path peer="+b.name+" ") + b.logged("msg=path peer="+a.name+" ")
}
