package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/health"
	"github.com/moggyfleet/moggy/internal/deploy/node/ledger"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// agentUnit is whose log says why the mesh reaches nobody.
const agentUnit = "moggy-agent.service"

// beforePatience bounds the look before the change.
const beforePatience = 6 * time.Second

// otherHubs are the hubs in the mesh's configuration in force, but for this
// machine.
func (n *Node) otherHubs() []fleet.MeshNode {
	var c fleet.AgentConfig
	if n.readJSON(fleet.AgentConfigPath, &c) != nil {
		return nil
	}
	keys, err := n.key().Keys()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(c.Nodes, func(m fleet.MeshNode) bool { return !m.Hub || slices.Contains(keys, m.Key) })
}

// before finds out, while the generation before is still in force, which of the
// target's checks hold: one that does not now is not the change's fault
// later. A command's is: it may be about what the change brings.
func (a *activation) before(ctx context.Context) {
	if a.journal.Held == nil {
		a.journal.Held = make(map[string]bool)
	}
	ctx, cancel := context.WithTimeout(ctx, beforePatience)
	defer cancel()
	checks := slices.DeleteFunc(slices.Clone(a.target.Checks), func(c fleet.Check) bool {
		_, known := a.journal.Held[checkKey(c)]
		return known || c.Kind == fleet.CheckRun
	})
	holds := make([]bool, len(checks))
	var wait sync.WaitGroup
	for i, c := range checks {
		wait.Go(func() {
			holds[i] = a.health.Look(ctx, c) == nil && (c.Kind != fleet.CheckMesh || len(a.otherHubs()) > 0)
		})
	}
	wait.Wait()
	for i, c := range checks {
		a.journal.Held[checkKey(c)] = holds[i]
	}
}

func checkKey(c fleet.Check) string { return string(c.Kind) + " " + c.Address }

// check waits until what the generation says of itself holds. On the way back
// nothing is checked: there is nowhere else to go.
func (a *activation) check(ctx context.Context) error {
	if a.journal.Back != nil {
		return nil
	}
	var checks []fleet.Check
	for _, c := range a.target.Checks {
		held, known := a.journal.Held[checkKey(c)]
		if known && !held && !a.touched(c.Unit) {
			a.tell(StepCheck, "passed over, since it did not hold before either: "+c.Name)
			continue
		}
		checks = append(checks, c)
	}
	err := a.health.Await(ctx, checks)
	var f *health.Failure
	if !errors.As(err, &f) {
		return err
	}
	switch f.Check.Kind {
	case fleet.CheckMesh:
		return a.Logged(ctx, err, agentUnit)
	case fleet.CheckSSH:
		states, serr := a.states(ctx, fleet.Manifest{Units: []fleet.Unit{{Name: "sshd.service", Foreign: true}}})
		if serr == nil {
			return a.Logged(ctx, err, states[0].Name)
		}
	case fleet.CheckTCP, fleet.CheckHTTP:
		return a.Logged(ctx, err, f.Check.Unit)
	case fleet.CheckRun:
	}
	return err
}

// touched says whether the change is to that unit.
func (a *activation) touched(unit string) bool {
	from, err := a.manifest(a.journal.From)
	return err != nil || ledger.Differs(from, a.target, unit)
}
