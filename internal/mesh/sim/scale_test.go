package sim

import (
	"flag"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/path"
)

// sizes are how many machines the fleets have whose cost is measured; make
// bench-sim asks for 10, 100, 1,000 and 5,000.
var sizes = flag.String("sizes", someSizes, "how many machines, of which 5 are hubs; several with commas")

// The bars of a fleet of 1,000 with 5 hubs, of which every machine talks with two
// others.
const (
	mostPerNode = 2000            // bytes of control that a machine sends in a second
	mostPerHub  = 200_000         // the same of a hub, what it relays included
	newPathIn   = 2 * time.Second // between any two that never talked
	rehomedIn   = 2 * time.Second // all that the dead hub relayed
)

// crowd is a fleet of many.
type crowd struct {
	*World
	hubs, rest []*Node
}

// newCrowd puts hubs in the open, and the rest at homes of all sorts: of ten, four
// with IPv6 behind a carrier's NAT, three without IPv6, two with a public address,
// and one with IPv6 only.
func newCrowd(seed uint64, size, hubs int) *crowd {
	w := New(seed)
	c := &crowd{World: w}
	for i := range hubs {
		c.hubs = append(c.hubs, w.Machine(fmt.Sprintf("hub%d", i), w.Internet, true,
			netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), addr(fmt.Sprintf("2001:db8:f::%x", i+1))))
	}
	for i := range size - hubs {
		outside := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		name := fmt.Sprintf("node%d", i)
		prefix := netip.MustParsePrefix(fmt.Sprintf("2001:db9:%x::/48", i))
		inside6 := addr(fmt.Sprintf("2001:db9:%x::10", i))
		home := func(v6 netip.Prefix) *Network {
			home := w.Network(time.Duration(1+w.random.IntN(8)) * time.Millisecond)
			w.Router(home, w.Internet, outside, linux, v6)
			return home
		}
		var n *Node
		switch i % 10 {
		case 0, 1, 2, 3:
			n = w.Machine(name, home(prefix), false, addr("192.168.1.10"), inside6)
		case 4, 5, 6:
			n = w.Machine(name, home(netip.Prefix{}), false, addr("192.168.1.10"))
		case 7, 8:
			n = w.Machine(name, w.Internet, false, outside, inside6)
		default:
			n = w.Machine(name, w.Internet, false, inside6)
		}
		c.rest = append(c.rest, n)
	}
	return c
}

// cost is what a fleet sent in some time, and what that took here.
type cost struct {
	mean, most, hub float64       // bytes per second: of a node, of the busiest, of the busiest hub
	hubs            float64       // and of all hubs
	cpu             time.Duration // of the whole fleet, per second of its time
}

// measure lets time pass.
func (c *crowd) measure(d time.Duration) (m cost) {
	before := make(map[*Node]int)
	for _, n := range c.nodes {
		before[n] = n.Control.Bytes
	}
	begin := cpu()
	c.Run(d)
	m.cpu = time.Duration(float64(cpu()-begin) / d.Seconds())
	rate := func(n *Node) float64 { return float64(n.Control.Bytes-before[n]) / d.Seconds() }
	for _, h := range c.hubs {
		m.hub = max(m.hub, rate(h))
		m.hubs += rate(h)
	}
	for _, n := range c.rest {
		m.mean += rate(n) / float64(len(c.rest))
		m.most = max(m.most, rate(n))
	}
	return m
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// two are different ones of the rest.
func (c *crowd) two() (a, b *Node) {
	a = c.rest[c.random.IntN(len(c.rest))]
	for b == nil || b == a {
		b = c.rest[c.random.IntN(len(c.rest))]
	}
	return a, b
}

// newPaths lets pairs talk that never did, and returns how long each took until
// the first answer.
func (c *crowd) newPaths(pairs int) (took []time.Duration) {
	var streams []*Stream
	for range pairs {
		a, b := c.two()
		streams = append(streams, a.Ping(b, 50*time.Millisecond))
		c.Run(20 * time.Millisecond)
	}
	c.Run(3 * time.Second)
	for _, s := range streams {
		s.Stop()
		took = append(took, s.First())
	}
	return took
}

// rehome kills the hub that relays the most of some pairs that talk, and returns
// for how long each of these was silent; and how long new pairs take then.
func (c *crowd) rehome(pairs int) (gaps, paths []time.Duration) {
	type talk struct {
		a, b   *Node
		stream *Stream
	}
	var talks []talk
	for range pairs {
		a, b := c.two()
		talks = append(talks, talk{a, b, a.Ping(b, 50*time.Millisecond)})
	}
	c.Run(5 * time.Second)
	by := make(map[*Node][]*Stream)
	for _, t := range talks {
		for _, h := range c.hubs {
			if t.a.Path(t.b).Route.Hub == h.id || t.b.Path(t.a).Route.Hub == h.id {
				by[h] = append(by[h], t.stream)
			}
		}
	}
	dead := slices.MaxFunc(c.hubs, func(a, b *Node) int { return len(by[a]) - len(by[b]) })
	from := c.Now()
	dead.Stop()
	paths = c.newPaths(pairs)
	for _, s := range by[dead] {
		gaps = append(gaps, s.GapSince(from.Add(-time.Second), c.Now()))
	}
	for _, t := range talks {
		t.stream.Stop()
	}
	return gaps, paths
}

// costs are all that is measured of a fleet of one size.
type costs struct {
	size        int
	start       time.Duration // processor time to boot all at once
	idle, busy  cost
	memory      uint64 // bytes per machine
	paths       []time.Duration
	gaps, later []time.Duration // when a hub died: of what it relayed, and of new paths
}

// costsOf measures a fleet: when nobody talks; when pairs talk that never did; when
// every machine talks with two others, on average; and when a hub dies.
func costsOf(size, pairs int) costs {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c, begin := newCrowd(uint64(size), size, 5), cpu()
	m := costs{size: size}
	c.Start(c.All()...)
	c.Run(path.KeepaliveMax)
	m.start = cpu() - begin
	m.idle = c.measure(20 * time.Second)
	runtime.GC()
	runtime.ReadMemStats(&after)
	m.memory = (after.HeapAlloc - before.HeapAlloc) / uint64(size)
	m.paths = c.newPaths(pairs)
	c.Run(path.Idle)
	for range c.rest {
		a, b := c.two()
		a.Ping(b, time.Second)
	}
	c.Run(10 * time.Second) // the search for direct paths is over
	m.busy = c.measure(path.FullElse)
	m.gaps, m.later = c.rehome(pairs)
	return m
}

func (m costs) String() string {
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return fmt.Sprintf("%8d | %5.0f %5.0f %8.0f %8s | %5.0f %6.0f %8.0f %8s | %5s %5s %5s | %5s %5s %5s | %6d %8s", m.size,
		m.idle.mean, m.idle.most, m.idle.hub, ms(m.idle.cpu), m.busy.mean, m.busy.most, m.busy.hub, ms(m.busy.cpu),
		ms(part(m.paths, 50)), ms(part(m.paths, 99)), ms(part(m.paths, 100)),
		ms(part(m.gaps, 50)), ms(part(m.gaps, 100)), ms(part(m.later, 100)), m.memory>>10, ms(m.start))
}

const head = `
         | nobody talks: B/s          CPU | all talk with two: B/s        CPU | new path, ms      | a hub dies, ms    | memory  boot,
machines |  node  most      hub      ms/s |  node   most      hub      ms/s |   p50   p99   max |   p50   max   new |     kB  CPU ms
`

// TestScale is what a fleet costs, and how fast it is, by its size: CPU is for
// all machines together, per second of theirs.
func TestScale(t *testing.T) {
	var table strings.Builder
	var rows []costs
	for text := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		m := costsOf(size, somePairs)
		rows = append(rows, m)
		fmt.Fprintln(&table, m)
		m.check(t)
	}
	t.Log(head + table.String())
	for i, m := range rows[1:] {
		// What an idle machine costs does not depend on how many there are.
		if was := rows[i]; m.idle.mean > 1.2*was.idle.mean || float64(m.memory) > 1.5*float64(was.memory) && was.size >= 100 {
			t.Errorf("%d machines: %.0f B/s and %d B each; %d: %.0f B/s, %d B", was.size, was.idle.mean, was.memory, m.size, m.idle.mean, m.memory)
		}
	}
}

// check holds the bars. A hub's is for a fleet of 1,000; of fewer, it is their
// share, for hubs on average: chance makes one of them busier.
func (m costs) check(t *testing.T) {
	t.Helper()
	hub, share := m.busy.hub, 1.0
	if m.size < 1000 {
		hub, share = m.busy.hubs/5, float64(m.size)/1000
	}
	if m.idle.most > mostPerNode || m.busy.mean > mostPerNode {
		t.Errorf("%d machines: %.0f B/s of control at the busiest when nobody talks, %.0f on average when all do", m.size, m.idle.most, m.busy.mean)
	}
	if m.size >= 100 && m.size <= 1000 && hub > mostPerHub*share {
		t.Errorf("%d machines: a hub sends %.0f B/s of control, want at most %.0f", m.size, hub, mostPerHub*share)
	}
	if len(m.gaps) == 0 {
		t.Fatalf("%d machines: the hub that died relayed nothing", m.size)
	}
	if worst := max(part(m.paths, 100), part(m.later, 100)); worst > newPathIn {
		t.Errorf("%d machines: a new path took %v", m.size, worst)
	}
	if worst := part(m.gaps, 100); worst > rehomedIn {
		t.Errorf("%d machines: a pair was silent for %v after its hub died", m.size, worst)
	}
}
