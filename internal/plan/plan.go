// Package plan turns what a fleet shall be and what was seen of it into
// ordered steps, and says what a single failure would stop. It is pure: it
// reads nothing, asks nobody, and carries nothing out.
//
//	fleet.Fleet ──┐
//	fleet.Lock  ──┼─▶ Compute ─▶ Plan: per node what changes, and
//	Observation ──┤                    waves of steps that make it so
//	fleet.Part  ──┘
package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
)

// Observation is what could be learned of one node.
type Observation struct {
	Seen *fleet.Observed // nil where the node has no agent of ours yet, or did not answer
	// Problem says why a node that should have answered did not.
	Problem string
}

// Input is all a plan is made from.
type Input struct {
	Fleet *fleet.Fleet
	Lock  *fleet.Lock // addresses allocated
	// Observed has an entry for every node that was asked.
	Observed map[fleet.NodeName]Observation
	// Contents are files of generations in force, for their differences: text,
	// and no secret. Nodes that hold the same share an entry.
	Contents map[fleet.Digest]string
	// Parts are what the engines want of each node.
	Parts map[fleet.NodeName][]fleet.Part
	// Binary is where nodes have our own binary, Moggy the version of the one
	// that plans; "" where nothing depends on them.
	Binary, Moggy string
	// Only these nodes change, if there are any; the rest stays behind.
	Only []fleet.NodeName
	// Soak is for how long the first node with another binary is watched.
	Soak time.Duration
}

// Action says what happens to a node.
type Action string

// The actions.
const (
	ActionNone        Action = "none"
	ActionContact     Action = "contact"     // never seen: first contact over ssh
	ActionJoin        Action = "join"        // never seen, and nobody reaches it: it joins by token
	ActionChange      Action = "change"      // a new generation
	ActionRestore     Action = "restore"     // the same generation put right again
	ActionRemove      Action = "remove"      // left the file
	ActionUnreachable Action = "unreachable" // known, but did not answer
	ActionBehind      Action = "behind"      // would change, but others were named
)

// NodePlan is what happens to one node, and why.
type NodePlan struct {
	Node   fleet.NodeName `json:"node"`
	Action Action         `json:"action"`
	// From and To are generations, equal when nothing is staged.
	From     int          `json:"from"`
	To       int          `json:"to"`
	Files    []FileChange `json:"files,omitempty"`
	Units    []UnitChange `json:"units,omitempty"`
	Packages []string     `json:"packages,omitempty"` // to be installed
	Images   []string     `json:"images,omitempty"`   // to be pulled
	// Note is what the operator should know: where a new node is reached, why
	// one is not.
	Note string `json:"note,omitempty"`
	// Newer is the version of the node's moggy where it is newer than ours.
	Newer string `json:"newer,omitempty"`
	// Manifest and Want are what is staged, for ActionChange and ActionRestore.
	Manifest fleet.Manifest `json:"-"`
	Want     []fleet.File   `json:"-"`

	seen *fleet.Observed // what was decided on
}

// Seen is what the plan for the node was made from; nil where it did not answer.
func (np *NodePlan) Seen() *fleet.Observed { return np.seen }

// UnitChange is what happens to one unit.
type UnitChange struct {
	Name string `json:"name"`
	Op   UnitOp `json:"op"`
}

// UnitOp is a verb of systemctl.
type UnitOp string

// The operations on units.
const (
	UnitStart   UnitOp = "start"
	UnitStop    UnitOp = "stop"
	UnitRestart UnitOp = "restart"
	UnitReload  UnitOp = "reload"
)

// Plan is the way from what is to what shall be.
type Plan struct {
	Fleet fleet.Name
	Base  int        // the fleet's generation as it stands
	Next  int        // the number new generations take
	Nodes []NodePlan // in the file's order; removed nodes last
	Order []rollout.Group
	Waves []rollout.Wave
	// Rollout has the nodes that Order is made of.
	Rollout []rollout.Node
	// Rotations are changes of mesh keys that are under way.
	Rotations []Rotating
	// Names are what the public DNS lacks, where it was asked: no apply sets it.
	Names []NameChange
	// Failures is the single-point-of-failure report.
	Failures Report
}

// Changes says whether an apply would do anything.
func (p *Plan) Changes() bool {
	return slices.ContainsFunc(p.Nodes, func(n NodePlan) bool {
		return n.Action != ActionNone && n.Action != ActionUnreachable && n.Action != ActionBehind
	})
}

// Newer are the nodes that an apply would change and whose moggy is newer than
// ours.
func (p *Plan) Newer() []NodePlan {
	var out []NodePlan
	for _, n := range p.Nodes {
		if n.Newer != "" && (n.Action == ActionChange || n.Action == ActionRestore) {
			out = append(out, n)
		}
	}
	return out
}

// Count is how many nodes are added, changed and removed, and how many cannot
// be reached.
func (p *Plan) Count() (add, change, remove, unreachable int) {
	for _, n := range p.Nodes {
		switch n.Action {
		case ActionContact, ActionJoin:
			add++
		case ActionChange, ActionRestore:
			change++
		case ActionRemove:
			remove++
		case ActionUnreachable:
			unreachable++
		case ActionNone, ActionBehind:
		}
	}
	return add, change, remove, unreachable
}

// Compute makes the plan. The error names parts that contradict each other.
func Compute(in Input) (*Plan, error) {
	p := &Plan{Fleet: in.Fleet.Name, Base: in.Lock.Generation, Next: nextGeneration(in)}
	locks := make(map[fleet.NodeName]fleet.NodeLock, len(in.Lock.Nodes))
	for _, l := range in.Lock.Nodes {
		locks[l.Name] = l
	}
	diffs := diffCache{in.Contents, make(map[[2]fleet.Digest]string)}
	for _, n := range in.Fleet.Nodes {
		np, err := nodePlan(n, locks[n.Name], in, p.Next, diffs)
		if err != nil {
			return nil, err
		}
		p.Nodes = append(p.Nodes, np)
		delete(locks, n.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(locks)) {
		p.Nodes = append(p.Nodes, NodePlan{
			Node: name, Action: ActionRemove, From: locks[name].Generation,
			Note: "left the file: the others refuse it from now on; what is on it stays until moggy leave, there",
		})
	}
	if err := p.narrow(in.Only); err != nil {
		return nil, err
	}
	p.order(in)
	p.Rotations = RotationsIn(in.Fleet, in.Lock)
	p.Failures = Analyse(in.Fleet)
	return p, nil
}

// nextGeneration is a number that no node has used: a lock may be older than
// its nodes, when another operator's was not merged.
func nextGeneration(in Input) int {
	highest := in.Lock.Generation
	for _, o := range in.Observed {
		if o.Seen != nil {
			highest = max(highest, o.Seen.Current.Number, slices.Max(append(o.Seen.Kept, 0)))
		}
	}
	return highest + 1
}

func nodePlan(n fleet.Node, l fleet.NodeLock, in Input, next int, diffs diffCache) (NodePlan, error) {
	o := in.Observed[n.Name]
	np := NodePlan{Node: n.Name, From: l.Generation, To: l.Generation, Action: ActionNone}
	switch {
	case l.MeshKey.IsZero() && n.Reachable():
		np.Action, np.Note = ActionContact, "new node: first contact over ssh, "+n.SSH.User+"@"+n.DialHost()
		if o.Problem != "" {
			np.Note += " (" + o.Problem + ")"
		}
		return np, nil
	case l.MeshKey.IsZero():
		np.Action, np.Note = ActionJoin, "new node: joins by token, nobody can reach it: moggy token "+string(n.Name)
		return np, nil
	case o.Seen == nil:
		np.Action, np.Note = ActionUnreachable, o.Problem
		return np, nil
	}
	manifest, want, err := Assemble(in.Fleet.Name, n.Name, in.Parts[n.Name])
	if err != nil {
		return np, err
	}
	np.seen = o.Seen
	np.From = o.Seen.Current.Number
	np.Manifest, np.Want = manifest, want
	np.Packages = missingPackages(o.Seen, manifest)
	np.Images = newImages(o.Seen, manifest)
	if newer(o.Seen.Moggy, in.Moggy) {
		np.Newer = o.Seen.Moggy
	}
	np.compare(o, next, diffs)
	return np, nil
}

// compare fills in what differs between the node as seen and its manifest.
func (np *NodePlan) compare(o Observation, next int, diffs diffCache) {
	seen := fleet.Manifest{}
	if o.Seen.Manifest != nil {
		seen = *o.Seen.Manifest
	}
	if sameContent(seen, np.Manifest) && o.Seen.Current.Number > 0 {
		np.To = np.From
		np.Files = driftChanges(o.Seen.Drift, np.Want)
		np.Units = brokenUnits(o.Seen.Units, np.Manifest.Units)
		if len(np.Files)+len(np.Units)+len(np.Packages) > 0 || !o.Seen.Current.Confirmed || interrupted(o.Seen) {
			np.Action = ActionRestore
		}
	} else {
		np.Action, np.To = ActionChange, next
		np.Files = fileChanges(seen, np.Want, o, diffs)
		np.Units = unitChanges(seen.Units, np.Manifest.Units, np.Files)
	}
	np.Manifest.Generation = np.To
}

// interrupted says whether an activation was killed on its way.
func interrupted(seen *fleet.Observed) bool {
	return seen.Activation != nil && !seen.Activation.Running
}

// missingPackages are those the node lacks, and those no generation on it has
// asked for yet.
func missingPackages(seen *fleet.Observed, want fleet.Manifest) []string {
	var had []string
	if seen.Manifest != nil {
		had = seen.Manifest.Packages
	}
	var out []string
	for _, p := range want.Packages {
		if !slices.Contains(had, p) || slices.Contains(seen.Missing, p) {
			out = append(out, p)
		}
	}
	return out
}

// newImages are those that no generation on the node has asked for yet. One that
// is gone since is pulled when its container starts.
func newImages(seen *fleet.Observed, want fleet.Manifest) []string {
	if seen.Manifest == nil {
		return want.Images
	}
	return slices.DeleteFunc(slices.Clone(want.Images), func(i string) bool { return slices.Contains(seen.Manifest.Images, i) })
}

// Assemble adds up a node's parts. Two parts that name the same path with
// other content, or the same unit with other rules, are an error.
func Assemble(name fleet.Name, node fleet.NodeName, parts []fleet.Part) (fleet.Manifest, []fleet.File, error) {
	var files []fleet.File
	m := fleet.Manifest{Version: fleet.ManifestVersion, Fleet: name, Node: node}
	owner := make(map[string]string)
	for _, part := range parts {
		for _, f := range part.Files {
			if other, ok := owner[f.Path]; ok {
				return m, nil, fmt.Errorf("node %s: %s and %s both write %s", node, other, part.Engine, f.Path)
			}
			owner[f.Path] = part.Engine
			files = append(files, f)
		}
		for _, u := range part.Units {
			if other, ok := owner[u.Name]; ok {
				return m, nil, fmt.Errorf("node %s: %s and %s both own the unit %s", node, other, part.Engine, u.Name)
			}
			owner[u.Name] = part.Engine
			m.Units = append(m.Units, u)
		}
		m.Packages = append(m.Packages, part.Packages...)
		m.Images = append(m.Images, part.Images...)
		m.Checks = append(m.Checks, part.Checks...)
	}
	slices.SortFunc(files, func(a, b fleet.File) int { return cmp.Compare(a.Path, b.Path) })
	for _, f := range files {
		m.Files = append(m.Files, fleet.ManifestFile{Path: f.Path, Mode: f.Mode, Digest: f.Digest, Secret: f.Secret})
	}
	slices.Sort(m.Packages)
	m.Packages = slices.Compact(m.Packages)
	slices.Sort(m.Images)
	m.Images = slices.Compact(m.Images)
	return m, files, nil
}
