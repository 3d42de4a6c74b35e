// Package rollout is how a change goes through a fleet: in which order, what
// must hold before and after each node's turn, and what happens once one
// fails. It is a state machine: events and the time go in, actions come out.
// It has no clock, starts nothing and reaches nobody; what an action means on
// a machine is package deploy's business.
//
// # The order
//
//	contact ─▶ stage ─▶ first ─▶ canary ─▶ workers ─▶ hubs ─▶ forget
//	 (new)    (all,    (nothing  (one      (side by   (and servers,
//	          nothing   to lose: worker)    side)      one by one)
//	          changes)  together)
//
// Each group begins when the one before it is done. Hubs come last, since all
// that stand behind them can then be reached both ways: by who has the change
// and by who has not.
//
// # One node
//
//	            hub, server                       hub, server   brings another moggy
//	idle ─▶ staged ─▶ before ─▶ activating ─▶ after ─▶ soaking ─▶ confirming ─▶ done
//	  │        │        │           │           │         │           │
//	  └────────┴────────┴───────────┤           └─────────┼───────────┘
//	                                ▼                     ▼
//	                              failed ◀───────────── returning
//
// A node that is activated and not confirmed goes back by itself; so what fails
// in after, soaking and confirming takes nothing but time, and is waited for.
//
// # All of them
//
//	running ──first failure, or interrupt──▶ winding down ──nobody under way──▶ over
//	   └──────────────────── all groups done ────────────────────────────────────┘
//
// Of nodes that go side by side, no two are on their way from before to done that
// restart an instance of the same service.
//
// While it winds down no node begins anything; those under way go on to their
// end.
package rollout

import (
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

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

// Work says what a rollout does to a node.
type Work string

// The kinds of work.
const (
	WorkContact Work = "contact" // meet it for the first time
	WorkChange  Work = "change"  // stage a generation and put it in force
	WorkSwitch  Work = "switch"  // put one in force that it has already
	WorkForget  Work = "forget"  // it left the file
)

// Node is a node that a rollout does something to.
type Node struct {
	Name     fleet.NodeName
	Work     Work
	Hub      bool
	Server   bool
	From, To int  // generations
	Packages bool // some are to be installed
	// Unproven is set where it brings another moggy than runs on this node.
	Unproven bool
	// Services are those of which it restarts an instance: no two nodes do so with
	// the same at once.
	Services []fleet.ServiceName
	// Named by the operator: it is not held back for what others would lose.
	Named bool
}

func (n Node) changes() bool { return n.Work == WorkChange || n.Work == WorkSwitch }

// guarded says whether others depend on the node, and on it as it is now.
func (n Node) guarded() bool { return n.changes() && (n.Hub || n.Server) && n.From > 0 }

// Times of a rollout.
const (
	// DefaultSoak is how long the first node with another moggy is watched: a
	// binary that crashes after half a minute is seen.
	DefaultSoak = 45 * time.Second
	// Patience is how long is waited for what must hold before and after a hub's
	// turn. The mesh finds another path within seconds, and a hub that restarted
	// knows everybody again after one heartbeat (20 s).
	Patience = 30 * time.Second
	// ConfirmWithin is how long a node waits for its operator before it goes
	// back: enough to find another way to it, and well under a minute.
	ConfirmWithin = 30 * time.Second
	// again is the pause between two looks at the same thing.
	again = 2 * time.Second
)

// Phase names a group of the order.
type Phase string

// The phases, in their order.
const (
	PhaseContact Phase = "contact"
	PhaseStage   Phase = "stage"
	PhaseFirst   Phase = "first"
	PhaseCanary  Phase = "canary"
	PhaseWorkers Phase = "workers"
	PhaseHubs    Phase = "hubs"
	PhaseForget  Phase = "forget"
)

// Group is nodes that are at the same point of the order.
type Group struct {
	Phase Phase            `json:"phase"`
	Nodes []fleet.NodeName `json:"nodes"`
	// AtOnce is how many of them go side by side.
	AtOnce int `json:"at_once"`
	// Soak is for how long the first of them is watched, in seconds.
	Soak int `json:"soak_s,omitempty"`
}
