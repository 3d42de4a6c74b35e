package plan

import "github.com/moggyfleet/moggy/internal/fleet"

// StepKind is what a step does to its node.
type StepKind string

// The steps, in the order a node takes them.
const (
	StepContact  StepKind = "contact"  // check the host key, install the binary, make the mesh key
	StepPackages StepKind = "packages" // what the distribution must supply
	StepStage    StepKind = "stage"    // bring the generation's files, changing nothing that runs
	StepActivate StepKind = "activate" // put it in force
	StepConfirm  StepKind = "confirm"  // over a fresh connection: it stays
	StepForget   StepKind = "forget"   // drop a removed node from the lock
)

// Step is one thing to do to one node.
type Step struct {
	Node       fleet.NodeName `json:"node"`
	Kind       StepKind       `json:"kind"`
	Generation int            `json:"generation,omitempty"`
}

// Wave is steps of several nodes. Nodes of one wave go side by side, each
// taking its own steps in order; a wave begins when the one before is done.
type Wave []Step

// waves orders the steps. What is new is contacted first, since the others
// need its key; everything is staged before anything changes; then hubs one by
// one, so that the rest can always be reached through another; then the rest
// together. Where no hub has ever run there is nothing to protect, and the
// hubs go together as well.
func waves(f *fleet.Fleet, nodes []NodePlan) []Wave {
	roles := f.Roles()
	var contact, stage, workers, newHubs, forget Wave
	var hubs []Wave
	for _, n := range nodes {
		switch n.Action {
		case ActionContact:
			contact = append(contact, Step{Node: n.Node, Kind: StepContact})
		case ActionRemove:
			forget = append(forget, Step{Node: n.Node, Kind: StepForget})
		case ActionChange, ActionRestore:
			if len(n.Packages) > 0 {
				stage = append(stage, Step{Node: n.Node, Kind: StepPackages})
			}
			stage = append(stage, Step{n.Node, StepStage, n.To})
			activate := Wave{{n.Node, StepActivate, n.To}, {n.Node, StepConfirm, n.To}}
			switch {
			case !roles[n.Node].Hub:
				workers = append(workers, activate...)
			case n.From == 0:
				newHubs = append(newHubs, activate...)
			default:
				hubs = append(hubs, activate)
			}
		case ActionNone, ActionJoin, ActionUnreachable:
		}
	}
	var out []Wave
	add := func(ws ...Wave) {
		for _, w := range ws {
			if len(w) > 0 {
				out = append(out, w)
			}
		}
	}
	add(contact, stage, newHubs)
	add(hubs...)
	add(workers, forget)
	return out
}
