// Package doctor reasons about what must be true for an operator to reach and
// change a node, and for the node to work: the graph of probes, what each finds
// from the facts it is given, and the one verdict of them all. It is pure:
// package deploy runs the probes.
//
//	         you: ssh, files, config, key, network
//	                           │
//	  lock ┐             name ─▶ tcp          via HUB (over the mesh, where
//	       │                      │              │     the node has no other way)
//	       │                      └── or one of ─┘
//	       └────────────▶ host key ◀──┘
//	                         │
//	                       login ─▶ root ─▶ systemd ─▶ moggy
//	                                                     │
//	  ┌───────┬────────┬────────┬─────────┬──────────┬───┴──────┐
//	clock   kernel   disk    memory    ports    generation    units
//	          │                          │          │   └─▶ drift
//	          └────────▶ agent ◀─────────┴──────────┘
//	                       └─▶ mesh ─▶ all hubs (the fleet's) ─▶ hubs
//
//	  the fleet: your clock, quorum, pairs, versions
//
// A probe runs as soon as what it needs has passed. Where that failed it is
// skipped, and names the probe that failed first. So every failure is a cause,
// and the verdict is the first of them in the order of the graph.
package doctor

import (
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Name says what a probe looks at.
type Name string

// The probes of the operator's own machine.
const (
	Client  Name = "ssh"     // a client is installed
	Files   Name = "files"   // the fleet's file and lock can be read
	Config  Name = "config"  // what ssh is told can be written
	Keys    Name = "key"     // there is a key to show
	Network Name = "network" // the machine has a way out
)

// The probes of a node, in the order in which one needs the other.
const (
	Member     Name = "lock" // the lock knows the node
	Resolve    Name = "name"
	TCP        Name = "tcp" // its sshd answers at an address of its own
	HostKey    Name = "host key"
	Login      Name = "login"
	Root       Name = "root"
	Systemd    Name = "systemd"
	Moggy      Name = "moggy"
	Clock      Name = "clock"
	Kernel     Name = "kernel"
	Disk       Name = "disk"
	Memory     Name = "memory"
	Generation Name = "generation"
	Drift      Name = "drift"
	Ports      Name = "ports"
	Units      Name = "units"
	Agent      Name = "agent"
	Mesh       Name = "mesh"
	Hubs       Name = "hubs"
)

// The probes of the fleet as a whole.
const (
	YourClock Name = "your clock"
	AllHubs   Name = "all hubs"
	Quorum    Name = "quorum"
	Pairs     Name = "pairs"
	Versions  Name = "versions"
)

// viaPrefix begins the name of a probe that goes through a hub.
const viaPrefix = "via "

// Via is the probe of the way through a hub.
func Via(hub fleet.NodeName) Name { return Name(viaPrefix + string(hub)) }

// ID names one probe. Node is "" for what is about no node alone.
type ID struct {
	Node fleet.NodeName
	Name Name
}

// String is the ID for people: "cosmo: login".
func (id ID) String() string {
	if id.Node == "" {
		return string(id.Name)
	}
	return string(id.Node) + ": " + string(id.Name)
}

// Probe is one thing to be looked at.
type Probe struct {
	ID    ID
	Needs []ID // all must have passed
	Any   []ID // one of them must have passed, where there are any
	After []ID // must be over, however they ended
	// Instead names a probe that makes this one unneeded when it passes; it is
	// over before this one begins.
	Instead ID
	Hub     fleet.NodeName // that a Via goes through
}

// Status is how a probe ended.
type Status string

// The statuses. A warning counts as passed for what needs it.
const (
	Passed   Status = "passed"
	Warned   Status = "warning"
	Failed   Status = "failed"
	Skipped  Status = "skipped"
	Unneeded Status = "unneeded"
)

// Result is what a probe found.
type Result struct {
	Status  Status
	Text    string   // what was found, in a line
	Next    string   // the command, or the line of the file, that mends it
	Details []string // the last lines of a log
	Because ID       // the probe that failed, where this one is Skipped
	Took    time.Duration
	// Silent is set where nobody answered at all: neither a host nor a router
	// said no.
	Silent bool
}

func (r Result) good() bool { return r.Status == Passed || r.Status == Warned }

func pass(text string) Result       { return Result{Status: Passed, Text: text} }
func warn(next, text string) Result { return Result{Status: Warned, Text: text, Next: next} }
func fail(next, text string) Result { return Result{Status: Failed, Text: text, Next: next} }
