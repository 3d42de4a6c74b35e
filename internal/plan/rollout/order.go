package rollout

import (
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Bounds of how many nodes go side by side: a tenth of them, so that a change
// that hurts after it was confirmed is seen while most are whole; at least
// enough to keep a small fleet from waiting, at most what one operator's
// machine can hold connections to.
const (
	fewest = 4
	most   = 50
)

func atOnce(n int) int { return min(max(n/10, fewest), most, max(n, 1)) }

// Order puts the nodes into the groups of a rollout, keeping their order
// within each. soak is for how long the first node with another moggy is
// watched.
func Order(nodes []Node, soak time.Duration) []Group {
	by := make(map[Phase][]Node)
	for _, n := range nodes {
		switch n.Work {
		case WorkContact:
			by[PhaseContact] = append(by[PhaseContact], n)
			continue
		case WorkForget:
			by[PhaseForget] = append(by[PhaseForget], n)
			continue
		case WorkChange:
			by[PhaseStage] = append(by[PhaseStage], n)
		case WorkSwitch: // it has the files
		}
		switch {
		case n.From == 0:
			by[PhaseFirst] = append(by[PhaseFirst], n)
		case n.guarded():
			by[PhaseHubs] = append(by[PhaseHubs], n)
		default:
			by[PhaseWorkers] = append(by[PhaseWorkers], n)
		}
	}
	by[PhaseCanary], by[PhaseWorkers] = canary(by[PhaseWorkers])
	var out []Group
	add := func(p Phase, atOnce int) {
		if len(by[p]) > 0 {
			out = append(out, Group{Phase: p, Nodes: names(by[p]), AtOnce: atOnce})
		}
	}
	add(PhaseContact, min(len(by[PhaseContact]), most))
	add(PhaseStage, min(len(by[PhaseStage]), most))
	add(PhaseFirst, min(len(by[PhaseFirst]), most))
	add(PhaseCanary, 1)
	add(PhaseWorkers, atOnce(len(by[PhaseWorkers])))
	add(PhaseHubs, 1)
	add(PhaseForget, len(by[PhaseForget]))
	watch(out, nodes, soak)
	return out
}

// canary takes the one that goes before the other workers: of those that bring
// another moggy if there are any, since that is what can hurt most.
func canary(workers []Node) (first, rest []Node) {
	if len(workers) == 0 {
		return nil, nil
	}
	i := max(slices.IndexFunc(workers, func(n Node) bool { return n.Unproven }), 0)
	return workers[i : i+1], slices.Delete(slices.Clone(workers), i, i+1)
}

// watch gives the soak to the canary, or where there is none to the first hub.
func watch(groups []Group, nodes []Node, soak time.Duration) {
	for i, g := range groups {
		if g.Phase != PhaseCanary && g.Phase != PhaseHubs {
			continue
		}
		if slices.ContainsFunc(nodes, func(n Node) bool { return n.Name == g.Nodes[0] && n.Unproven }) {
			groups[i].Soak = int(soak.Seconds())
		}
		return
	}
}

func names(nodes []Node) []fleet.NodeName {
	out := make([]fleet.NodeName, len(nodes))
	for i, n := range nodes {
		out[i] = n.Name
	}
	return out
}

// Waves are the steps that the groups take, in their order.
func Waves(groups []Group, nodes []Node) []Wave {
	by := make(map[fleet.NodeName]Node, len(nodes))
	for _, n := range nodes {
		by[n.Name] = n
	}
	var out []Wave
	for _, g := range groups {
		var w Wave
		for _, name := range g.Nodes {
			w = append(w, steps(g.Phase, by[name])...)
			if g.Phase == PhaseHubs {
				out, w = append(out, w), nil
			}
		}
		if len(w) > 0 {
			out = append(out, w)
		}
	}
	return out
}

func steps(p Phase, n Node) Wave {
	switch p {
	case PhaseContact:
		return Wave{{Node: n.Name, Kind: StepContact}}
	case PhaseForget:
		return Wave{{Node: n.Name, Kind: StepForget}}
	case PhaseStage:
		w := Wave{{n.Name, StepStage, n.To}}
		if n.Packages {
			w = append(Wave{{Node: n.Name, Kind: StepPackages}}, w...)
		}
		return w
	case PhaseFirst, PhaseCanary, PhaseWorkers, PhaseHubs:
	}
	return Wave{{n.Name, StepActivate, n.To}, {n.Name, StepConfirm, n.To}}
}
