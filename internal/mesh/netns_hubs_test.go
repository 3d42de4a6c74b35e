package mesh

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestNetnsHubs takes one hub after the other from a fleet that pings all over:
// killed, restarted on purpose, cut from some nodes only; and all but one of them.
// Nobody else is cut off, and none of them keeps anything that the others need.
func TestNetnsHubs(t *testing.T) {
	c := relayedCats(t)
	c.startAll()
	all := []*machine{c.hub1, c.hub2, c.hub3, c.ari, c.bianco}
	hubs := all[:3]
	type pair struct{ a, b *machine }
	flows := make(map[pair]*flow)
	for i, a := range all {
		for _, b := range all[i+1:] {
			flows[pair{a, b}] = a.flow(b)
		}
	}
	steady := func(what string, but ...*machine) {
		t.Helper()
		took := c.wait(what, 20*time.Second, func() bool {
			for p, f := range flows {
				if !slices.Contains(but, p.a) && !slices.Contains(but, p.b) && time.Since(f.last()) > 300*time.Millisecond {
					return false
				}
			}
			return true
		})
		t.Logf("%s: after %v", what, took.Round(10*time.Millisecond))
	}
	// quiet is the longest silence of pairs without these since then.
	quiet := func(what string, since time.Time, within time.Duration, but ...*machine) {
		t.Helper()
		longest, of := time.Duration(0), ""
		for p, f := range flows {
			if slices.Contains(but, p.a) || slices.Contains(but, p.b) {
				continue
			}
			if gap := f.gap(since); gap > longest {
				longest, of = gap, p.a.name+" and "+p.b.name
			}
		}
		t.Logf("%s: longest silence %v, of %s", what, longest, of)
		if longest > within {
			t.Errorf("%s: %s silent for %v", what, of, longest)
		}
	}
	pass := func(d time.Duration) {
		begin := time.Now()
		c.wait("time passes", d+5*time.Second, func() bool { return time.Since(begin) > d })
	}
	const bar = slack * 2 * time.Second // the bar is 1 s; five agents and ten pings share two cores here
	steady("all pairs talk")
	for _, hub := range hubs {
		begin := time.Now()
		hub.stop(syscall.SIGKILL)
		pass(1500 * time.Millisecond)
		quiet(hub.name+" killed", begin, bar, hub)
		hub.start()
		steady(hub.name + " is back")
	}
	some := hubs
	if !thorough() {
		some = hubs[1:2]
	}
	for _, hub := range some {
		begin := time.Now()
		hub.stop(syscall.SIGTERM) // as `apply` restarts it
		hub.start()
		pass(time.Second)
		quiet(hub.name+" restarted on purpose", begin, bar, hub)
		steady(hub.name + " is back")
	}
	for i, hub := range some {
		begin := time.Now()
		mend := c.loseBoth(all[3+i%2], hub, "") // and the others not
		pass(1500 * time.Millisecond)
		quiet(fmt.Sprintf("%s cut from %s", hub.name, all[3+i%2].name), begin, bar)
		mend()
	}
	begin := time.Now()
	c.hub1.stop(syscall.SIGKILL)
	c.hub3.stop(syscall.SIGKILL)
	pass(2 * time.Second)
	quiet("hub2 is the only one left", begin, bar, c.hub1, c.hub3)
}
