package deploy

import (
	"context"
	"fmt"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan"
)

// Rollback takes nodes back to the generation each had before, by the same
// rollout as any change: held, one before all, confirmed. Our own moggy answers
// meanwhile, since the one of the generation before may speak an older
// protocol. The error is a *Stopped once anything was begun.
func (d *Deployment) Rollback(ctx context.Context, b *plan.Back, seen map[fleet.NodeName]plan.Observation, o Options) error {
	ours, err := d.exclusive()
	if err != nil {
		return err
	}
	defer ours.free()
	nodes := make(map[fleet.NodeName]plan.NodePlan, len(b.Rollout))
	names := make([]fleet.NodeName, 0, len(b.Rollout))
	for _, n := range b.Rollout {
		names = append(names, n.Name)
		nodes[n.Name] = plan.NodePlan{Node: n.Name, From: n.From, To: n.To}
	}
	arch := func(n fleet.NodeName) string { return seen[n].Seen.System.Arch }
	if err := d.accompany(ctx, names, "the one before may speak otherwise", arch); err != nil {
		return err
	}
	h, err := d.hold(ctx, ours.session, names)
	if err != nil {
		return err
	}
	defer h.release()
	var moved []string
	for name, now := range d.ask(ctx, names) {
		switch was := seen[name].Seen.Current; {
		case now == nil:
			moved = append(moved, string(name)+" does not answer any more")
		case now.Current.Number != was.Number || now.Current.Previous != was.Previous:
			moved = append(moved, fmt.Sprintf("%s was on generation %d, is on %d", name, was.Number, now.Current.Number))
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(moved) > 0 {
		return hint.New("the fleet moved on meanwhile: "+strings.Join(moved, "; "), "moggy rollback --dry-run shows how it is now")
	}
	return d.roll(ctx, b.Rollout, nodes, h, o)
}
