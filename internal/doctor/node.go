package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Answer is what a node said of itself, and when it was asked.
type Answer struct {
	fleet.Examination
	// Sent and Received are before the question and after the answer, on the
	// operator's clock.
	Sent, Received time.Time
}

// Fleet is what the probes of nodes are judged against: what shall be, and
// what all said so far. The maps hold the nodes that answered.
type Fleet struct {
	Fleet   *fleet.Fleet
	Lock    *fleet.Lock
	Moggy   string // the operator's version
	Answers map[fleet.NodeName]Answer
	Results func(ID) Result // how a probe ended, so far

	// worked out once
	known  *views
	roster []fleet.NodeLock
	relays []fleet.NodeName
}

// Limits from which a resource is short. A generation takes 30 to 60 MB; a
// disk nine tenths full leaves little time, and is what status calls a problem.
const (
	diskFull     = 64 << 20 // bytes
	diskShort    = 0.90     // used part of the whole
	inodesFull   = 200
	inodesShort  = 0.95
	memoryFull   = 16 << 20 // bytes
	memoryShort  = 0.95
	restartsMany = 5
)

// Limits of a clock: what is further off breaks certificates and logs (status
// calls it wrong), what is less is worth a look.
const (
	clockWrong = 30 * time.Second
	clockOff   = 2 * time.Second
)

// Judge is the result of a probe of a node that answered.
func (f *Fleet) Judge(id ID) Result {
	a, ok := f.Answers[id.Node]
	if !ok {
		return fail("", "it did not answer")
	}
	switch id.Name {
	case Moggy:
		return f.moggy(a)
	case Clock:
		return f.clock(a)
	case Kernel:
		return f.kernel(id.Node, a)
	default:
	}
	if a.Observed == nil {
		return fail(sshTo(id.Node, "moggy", "node", "observe"), "what moggy keeps there makes no sense: "+a.Unknown["observed"])
	}
	switch id.Name {
	case Disk:
		return disk(id.Node, a)
	case Memory:
		return memory(id.Node, a.Observed.System)
	case Generation:
		return f.generation(id.Node, a.Observed)
	case Drift:
		return drift(a.Observed)
	case Ports:
		return f.ports(a)
	case Units:
		return units(id.Node, a)
	case Agent:
		return agent(id.Node, a)
	case Mesh:
		return f.mesh(id.Node, a.Observed.Mesh)
	case Hubs:
		return f.hubs(id.Node)
	default:
	}
	return fail("", "there is no such probe")
}

// sshTo is the command line that runs words on a node.
func sshTo(n fleet.NodeName, words ...string) string {
	return "moggy ssh " + string(n) + " -- " + strings.Join(words, " ")
}

// Member is the result for a node's entry in the lock.
func (f *Fleet) Member(n fleet.Node) Result {
	l := f.Lock.Node(n.Name)
	switch {
	case l.MeshKey.IsZero() && n.Reachable():
		return fail("moggy apply", "is in the file, but not in the fleet yet")
	case l.MeshKey.IsZero():
		return fail("moggy token "+string(n.Name), "is in the file, but not in the fleet yet; nobody reaches it from outside")
	case len(l.HostKeys) == 0:
		return fail("moggy apply", "fleet.lock.hcl holds no host key of it")
	}
	return pass(fmt.Sprintf("generation %d, %s", l.Generation, l.V4))
}

func (f *Fleet) moggy(a Answer) Result {
	took := a.Received.Sub(a.Sent).Round(10 * time.Millisecond)
	if why := a.Unknown["examine"]; why != "" {
		return warn("moggy apply", why)
	}
	version := ""
	if a.Observed != nil {
		version = " " + a.Observed.Moggy
	}
	return pass(fmt.Sprintf("moggy%s, protocol %d, answered in %s", version, a.Protocol, took))
}

// Skew is how far the node's clock is from the operator's at the least: the
// answer was written at some time between the question and its arrival.
func (a Answer) Skew() time.Duration {
	switch {
	case a.Clock.Before(a.Sent):
		return a.Clock.Sub(a.Sent)
	case a.Clock.After(a.Received):
		return a.Clock.Sub(a.Received)
	}
	return 0
}

func (f *Fleet) clock(a Answer) Result {
	skew, whose, alone := a.Skew(), "yours", len(f.Answers) < 2
	if f.Results(ID{"", YourClock}).Status == Failed {
		skew, whose = skew-f.consensus().skew, "the others'"
	}
	next := "timedatectl set-ntp true, there (or install chrony, systemd-timesyncd)"
	switch off := skew.Abs(); {
	case off > clockWrong && a.NTP == fleet.Yes && alone:
		return fail("compare: timedatectl, here and there", "is "+ahead(skew)+" "+whose+"; a time server keeps it, so look at yours, too")
	case off > clockWrong:
		return fail(next, "is "+ahead(skew)+" "+whose)
	case off > clockOff:
		return warn(next, "is "+ahead(skew)+" "+whose)
	case a.NTP == fleet.No:
		return warn(next, "is right, but no time server keeps it")
	}
	return pass("is right")
}

// ahead says a skew in words: "3 s behind".
func ahead(skew time.Duration) string {
	way := "ahead of"
	if skew < 0 {
		way = "behind"
	}
	d := skew.Abs()
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days %s", d/(24*time.Hour), way)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min %s", d/time.Minute, way)
	}
	return fmt.Sprintf("%d s %s", d/time.Second, way)
}

func (f *Fleet) kernel(name fleet.NodeName, a Answer) Result {
	for _, fact := range []string{"examine", "kernel"} {
		if why := a.Unknown[fact]; why != "" {
			return pass("not known: " + why)
		}
	}
	n, _ := f.Fleet.Node(name)
	site, _ := f.Fleet.Site(n.Site)
	switch {
	case a.Kernel.TUN != "":
		return fail("in a container or on a small VPS: switch TUN on in its settings; else: "+sshTo(name, "modprobe", "tun"),
			"/dev/net/tun cannot be used: "+a.Kernel.TUN)
	case a.Kernel.NoIPv6 && site.IPv6:
		return fail(sshTo(name, "sysctl", "net.ipv6.conf.all.disable_ipv6=0")+`, or ipv6 = false for its site in the file`,
			fmt.Sprintf("IPv6 is switched off, but site %s has it", n.Site))
	case a.Kernel.NFTables != "":
		return warn("", "no nftables: "+a.Kernel.NFTables)
	case a.Kernel.Cgroup == 0:
		return warn("", "no cgroups were found")
	}
	nft := ", nftables"
	if a.Unknown["nftables"] != "" {
		nft = "" // it is there with packages that need it
	}
	return pass(fmt.Sprintf("TUN, cgroup v%d%s", a.Kernel.Cgroup, nft))
}

func disk(name fleet.NodeName, a Answer) Result {
	if len(a.Mounts) == 0 { // what its observation says is what there is
		s := a.Observed.System
		a.Mounts = []fleet.Mount{{Path: "/var/lib/moggy", Total: s.DiskTotal, Free: s.DiskFree}}
	}
	what, where := "", ""
	var worst Result
	for _, m := range a.Mounts {
		used := usedPart(m.Total, m.Free)
		inodes := usedPart(m.Inodes, m.InodesFree)
		state := m.Path
		look := sshTo(name, "du", "-xhd2", m.Path)
		var res Result
		switch {
		case m.ReadOnly:
			res = fail(sshTo(name, "dmesg", "--level=err,warn")+" says whether the disk failed; mount -o remount,rw "+m.Path+" mends it",
				m.Path+" is mounted read-only")
		case m.Total == 0:
			continue
		case m.Free < diskFull:
			res = fail(look, fmt.Sprintf("%s is full: %s of %s free", state, size(m.Free), size(m.Total)))
		case m.Inodes > 0 && m.InodesFree < inodesFull:
			res = fail(sshTo(name, "du", "--inodes", "-xd2", m.Path), fmt.Sprintf("%s can take no more files: %d of %d inodes free", state, m.InodesFree, m.Inodes))
		case used > diskShort:
			res = warn(look, fmt.Sprintf("%s is %.0f %% full: %s of %s free", state, used*100, size(m.Free), size(m.Total)))
		case inodes > inodesShort:
			res = warn(look, fmt.Sprintf("%s has %.0f %% of its inodes used", state, inodes*100))
		}
		if res.Status == Failed || worst.Status == "" {
			worst = res
		}
		if worst.Status == Failed {
			return worst
		}
		if what == "" {
			what, where = size(m.Free), m.Path
		}
	}
	if worst.Status != "" {
		return worst
	}
	return pass(what + " free at " + where)
}

func usedPart(total, free uint64) float64 {
	if total == 0 {
		return 0
	}
	return 1 - float64(free)/float64(total)
}

func size(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%d kB", n>>10)
}

func memory(name fleet.NodeName, s fleet.System) Result {
	used := usedPart(s.MemTotal, s.MemFree)
	text := fmt.Sprintf("%s of %s available", size(s.MemFree), size(s.MemTotal))
	look := sshTo(name, "systemd-cgtop", "-m", "-b", "-n", "1")
	switch {
	case s.MemTotal == 0:
		return pass("not known")
	case s.MemFree < memoryFull:
		return fail(look, "is used up: "+text)
	case used > memoryShort:
		return warn(look, text)
	}
	return pass(text)
}

func (f *Fleet) generation(name fleet.NodeName, o *fleet.Observed) Result {
	at, m, act := o.Current, o.Manifest, o.Activation
	switch {
	case m != nil && (m.Fleet != f.Fleet.Name || m.Node != name):
		return fail("look which machine it is: "+sshTo(name, "hostname"), fmt.Sprintf("it is node %s of fleet %s", m.Node, m.Fleet))
	case act != nil && act.Running:
		return warn("moggy history", fmt.Sprintf("%d is being put in force by %s (%s)", act.Generation, act.By, act.Step))
	case act != nil:
		return fail("moggy apply", fmt.Sprintf("putting %d in force was interrupted at %q", act.Generation, act.Step))
	case at.Number == 0:
		return fail("moggy apply", "none is in force")
	case o.Probation != nil:
		return warn("moggy status", fmt.Sprintf("%d waits for %s to confirm it, or goes back to %d", at.Number, o.Probation.By, o.Probation.Previous))
	case !at.Confirmed:
		return fail("moggy apply", fmt.Sprintf("%d was never confirmed", at.Number))
	case m == nil:
		return fail("moggy apply", fmt.Sprintf("the manifest of %d cannot be read", at.Number))
	case f.Lock.Node(name).Generation > at.Number:
		return warn("moggy plan", fmt.Sprintf("%d is in force, fleet.lock.hcl says %d", at.Number, f.Lock.Node(name).Generation))
	}
	return pass(fmt.Sprintf("%d, confirmed", at.Number))
}

func drift(o *fleet.Observed) Result {
	var what []string
	for _, d := range o.Drift {
		how := "was changed by hand"
		switch d.Kind {
		case fleet.DriftMissing:
			how = "was removed by hand"
		case fleet.DriftMode:
			how = "has other permissions than it was given"
		case fleet.DriftChanged:
		}
		what = append(what, d.Path+" "+how)
	}
	if len(o.Missing) > 0 {
		what = append(what, "packages are missing: "+list(o.Missing))
	}
	if len(what) > 0 {
		return fail("moggy plan shows it, moggy apply restores it", list(what))
	}
	files := 0
	if o.Manifest != nil {
		files = len(o.Manifest.Files)
	}
	return pass(fmt.Sprintf("none in %d files", files))
}

// maxListed is how many of a kind are named.
const maxListed = 3

func list[T ~string](names []T) string {
	more := ""
	if len(names) > maxListed {
		more = fmt.Sprintf(" and %d more", len(names)-maxListed)
		names = names[:maxListed]
	}
	var words []string
	for _, n := range names {
		words = append(words, string(n))
	}
	return strings.Join(words, ", ") + more
}
