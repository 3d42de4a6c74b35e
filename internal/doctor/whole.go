package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// JudgeAll is the result of a probe of the fleet as a whole.
func (f *Fleet) JudgeAll(name Name) Result {
	switch name {
	case YourClock:
		return f.yourClock()
	case AllHubs:
		return f.allHubs()
	case Quorum:
		return f.quorum()
	case Pairs:
		return f.pairs()
	case Versions:
		return f.versions()
	default:
	}
	return fail("", "there is no such probe")
}

// agreement is what the nodes say about the operator's clock.
type agreement struct {
	skew      time.Duration // of the median node
	agree, of int
}

// consensus is the median node's skew and how many are near it. One node alone
// agrees with nobody.
func (f *Fleet) consensus() agreement {
	var skews []time.Duration
	for _, a := range f.Answers {
		skews = append(skews, a.Skew())
	}
	if len(skews) < 2 {
		return agreement{of: len(skews)}
	}
	slices.Sort(skews)
	out := agreement{skew: skews[len(skews)/2], of: len(skews)}
	for _, s := range skews {
		if (s - out.skew).Abs() <= clockWrong {
			out.agree++
		}
	}
	return out
}

func (f *Fleet) yourClock() Result {
	c := f.consensus()
	next := "timedatectl set-ntp true, here"
	switch {
	case c.of < 2:
		return pass("one node alone does not tell whose is wrong")
	case 2*c.agree <= c.of:
		return warn("timedatectl, here and there", "the nodes' clocks do not agree with each other")
	case c.skew.Abs() > clockWrong:
		return fail(next, fmt.Sprintf("yours is %s those of %d of %d nodes", ahead(-c.skew), c.agree, c.of))
	case c.skew.Abs() > clockOff:
		return warn(next, fmt.Sprintf("yours is %s those of the nodes", ahead(-c.skew)))
	}
	return pass(fmt.Sprintf("agrees with %d of %d nodes", c.agree, c.of))
}

func (f *Fleet) allHubs() Result {
	hubs := f.hubNames()
	var up, alone []fleet.NodeName
	for _, h := range hubs {
		switch s := f.Results(ID{h, Agent}).Status; {
		case s != Passed && s != Warned:
		case f.island(h):
			alone = append(alone, h)
		default:
			up = append(up, h)
		}
	}
	switch {
	case len(alone) > 0:
		return fail(fmt.Sprintf("is UDP port %d open? %s, and the firewall in front of it", f.Fleet.Port, sshTo(alone[0], "nft", "list", "ruleset")),
			list(alone)+": its agent runs, but nobody reaches it on the mesh, nor it anybody")
	case len(hubs) == 0:
		return warn("moggy plan", "there is none: nodes behind NAT may not reach each other")
	case len(up) < len(hubs):
		return warn("", fmt.Sprintf("%d of %d are up", len(up), len(hubs)))
	case len(hubs) == 1:
		return warn("moggy plan", "there is only one: its loss cuts off those behind NAT")
	}
	return pass(fmt.Sprintf("all %d are up", len(hubs)))
}

func (f *Fleet) quorum() Result {
	up, of := 0, 0
	for name, r := range f.Fleet.Roles() {
		if !r.Server {
			continue
		}
		of++
		if f.Results(ID{name, Agent}).good() {
			up++
		}
	}
	text := fmt.Sprintf("%d of %d servers are up", up, of)
	if 2*up <= of {
		return warn("", text+": no majority")
	}
	return pass(text)
}

// pairs looks for two that run and have no path to each other. A node that
// reaches no hub, or nobody at all, has been named for that.
func (f *Fleet) pairs() Result {
	var cut []string
	names := slices.Sorted(maps.Keys(f.Answers))
	for i, a := range names {
		if !f.views().from[a] || f.down(a) || f.Results(ID{a, Hubs}).Status == Failed {
			continue
		}
		for _, b := range names[i+1:] {
			_, there := f.reaches(a, b)
			_, back := f.reaches(b, a)
			if f.views().from[b] && !there && !back && !f.down(b) && f.Results(ID{b, Hubs}).Status != Failed {
				cut = append(cut, string(a)+" and "+string(b))
			}
		}
	}
	if len(cut) > 0 {
		first, _, _ := strings.Cut(cut[0], " and ")
		return fail(sshTo(fleet.NodeName(first), "journalctl", "-u", "moggy-agent", "-n", "50"), "no path between "+list(cut))
	}
	return pass(fmt.Sprintf("all of %d nodes", len(names)))
}

func (f *Fleet) versions() Result {
	by := make(map[string][]string)
	for _, name := range slices.Sorted(maps.Keys(f.Answers)) {
		if o := f.Answers[name].Observed; o != nil && o.Mesh != nil {
			by[o.Mesh.Agent] = append(by[o.Mesh.Agent], string(name))
		}
	}
	var have []string
	for _, v := range slices.Sorted(maps.Keys(by)) {
		have = append(have, v+" on "+list(by[v]))
	}
	_, ours := by[f.Moggy]
	switch {
	case len(by) > 1:
		return warn("moggy apply", "agents differ: "+list(have))
	case len(by) == 1 && !ours:
		return warn("moggy apply brings yours", "agents run "+list(have)+", you "+f.Moggy)
	}
	return pass("all the same")
}
