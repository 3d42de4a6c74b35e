package deploy

import (
	"context"
	"errors"
	"fmt"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan"
)

// equip makes sure that each node's moggy speaks as ours does: where its own
// speaks an older protocol, or a newer one, ours is brought along and answers
// for this run. Nothing that runs is touched by it.
func (d *Deployment) equip(ctx context.Context, nodes []plan.NodePlan, names []fleet.NodeName) error {
	seen := make(map[fleet.NodeName]*fleet.Observed, len(nodes))
	for _, n := range nodes {
		seen[n.Node] = n.Seen()
	}
	var foreign []fleet.NodeName
	for _, name := range names {
		if o := seen[name]; o != nil && max(o.Protocol, 1) != protocol.Version {
			foreign = append(foreign, name)
		}
	}
	return d.accompany(ctx, foreign, "its own speaks otherwise", func(name fleet.NodeName) string { return seen[name].System.Arch })
}

// accompany has our own binary answer on those nodes from now on; why is for
// people.
func (d *Deployment) accompany(ctx context.Context, names []fleet.NodeName, why string, arch func(fleet.NodeName) string) error {
	failed := d.each(ctx, names, func(ctx context.Context, name fleet.NodeName) error {
		ctx, stop := context.WithTimeoutCause(ctx, contactTimeout, errors.New("bringing moggy took too long"))
		defer stop()
		bin, err := d.Binaries.For(arch(name))
		if err != nil {
			return err
		}
		d.Progress.Step(string(name), "bringing moggy "+d.Version+": "+why)
		if err := d.bring(ctx, name, bin); err != nil {
			return err
		}
		d.answersWith(name)
		return nil
	})
	if len(failed) > 0 {
		return fmt.Errorf("nothing was changed: %w", gather(failed))
	}
	return nil
}

// answersWith has our own binary on the node, as first contact or accompany
// brought it, come before the generation's.
func (d *Deployment) answersWith(name fleet.NodeName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.own == nil {
		d.own = make(map[fleet.NodeName]bool)
	}
	d.own[name] = true
}
