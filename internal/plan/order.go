package plan

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
)

// unknown is the error for a node that is not in the file.
func unknown(name fleet.NodeName) error {
	return hint.New(fmt.Sprintf("there is no node %s in the file", name), "moggy status lists them")
}

// Unreachable names the nodes that could not be asked, in the order of the file.
func (p *Plan) Unreachable() []string {
	var names []string
	for _, n := range p.Nodes {
		if n.Action == ActionUnreachable {
			names = append(names, string(n.Node))
		}
	}
	return names
}

// narrow leaves every node behind that is not among only; an empty only names
// all.
func (p *Plan) narrow(only []fleet.NodeName) error {
	if len(only) == 0 {
		return nil
	}
	for _, name := range only {
		if !slices.ContainsFunc(p.Nodes, func(n NodePlan) bool { return n.Node == name }) {
			return unknown(name)
		}
	}
	for i, n := range p.Nodes {
		if n.Action == ActionNone || slices.Contains(only, n.Node) {
			continue
		}
		p.Nodes[i] = NodePlan{Node: n.Node, Action: ActionBehind, From: n.From, To: n.From, Note: "stays behind: " + behind(n)}
	}
	return nil
}

// behind says what a node that is left out misses.
func behind(n NodePlan) string {
	switch n.Action {
	case ActionContact, ActionJoin:
		return "it would be new"
	case ActionRemove:
		return "the others go on taking it"
	case ActionRestore:
		return "it would be put right"
	case ActionUnreachable:
		return n.Note
	case ActionChange, ActionNone, ActionBehind:
	}
	return fmt.Sprintf("it would get generation %d", n.To)
}

// order fills in what a rollout of the plan takes, and in which order.
func (p *Plan) order(in Input) {
	roles := in.Fleet.Roles()
	for _, n := range p.Nodes {
		work, does := map[Action]rollout.Work{
			ActionContact: rollout.WorkContact, ActionChange: rollout.WorkChange,
			ActionRestore: rollout.WorkChange, ActionRemove: rollout.WorkForget,
		}[n.Action]
		if !does {
			continue
		}
		r := roles[n.Node]
		p.Rollout = append(p.Rollout, rollout.Node{
			Name: n.Node, Work: work, Hub: r.Hub, Server: r.Server, From: n.From, To: n.To,
			Packages: len(n.Packages) > 0 || len(n.Images) > 0, Services: restarted(n.Units),
			Unproven: unproven(in.Observed[n.Node].Seen, n.Manifest, in.Binary),
			Named:    slices.Contains(in.Only, n.Node),
		})
	}
	p.Order = rollout.Order(p.Rollout, in.Soak)
	p.Waves = rollout.Waves(p.Order, p.Rollout)
}

// restarted are the services of which the changes restart an instance.
func restarted(changes []UnitChange) []fleet.ServiceName {
	var out []fleet.ServiceName
	for _, c := range changes {
		if s, is := fleet.ServiceOf(c.Name); is && c.Op == UnitRestart {
			out = append(out, s)
		}
	}
	return out
}

// unproven says whether the node gets another binary than it has in force. One
// that waits for its confirmation, since its operator was killed, goes on from
// where it is: its time runs, so another node is watched.
func unproven(seen *fleet.Observed, want fleet.Manifest, binary string) bool {
	f, brings := want.File(binary)
	if !brings || seen == nil || seen.Manifest == nil {
		return false
	}
	old, _ := seen.Manifest.File(binary)
	return f.Digest != old.Digest
}

// newer says whether a version of moggy came after ours. A build on the way to
// a version counts as that version; one whose number makes no sense as none.
func newer(theirs, ours string) bool {
	canonical := func(v string) string { return "v" + strings.TrimSuffix(strings.TrimPrefix(v, "v"), "-dev") }
	theirs, ours = canonical(theirs), canonical(ours)
	return semver.IsValid(theirs) && semver.IsValid(ours) && semver.Compare(theirs, ours) > 0
}
