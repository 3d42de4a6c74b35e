package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/deploy"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan"
)

func newApplyCommand(a *app) *cobra.Command {
	var yes, noDiff bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make the fleet what its file says",
		Long: `Apply shows the plan, asks, and carries it out over your own ssh.

A machine that is new gets moggy and what it needs from its distribution, and
makes its own keys. Its ssh host key is shown to you once and pinned in
fleet.lock.hcl from then on. Machines that nobody can reach join by token:
moggy token NODE.

Everything is staged before anything changes. Then hubs change one by one and
the others together, each confirmed over a fresh connection. When a node fails,
what comes after it is not begun, and the others keep working on what they
have.`,
		Example: `  moggy apply
  moggy apply --yes --accept-new    # where nobody can be asked`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			started := time.Now()
			d, done, err := a.deployment()
			if err != nil {
				return err
			}
			defer done()
			seen, err := d.Observe(ctx, observeWithin)
			if err != nil {
				return interrupted(ctx, err)
			}
			p, err := d.Plan(ctx, seen)
			if err != nil {
				return err
			}
			if err := a.showPlan(p, !noDiff && !yes); err != nil {
				return err
			}
			if len(p.Waves) == 0 {
				a.tellJoin(p)
				return away(p)
			}
			if !yes {
				ok, err := a.confirm("Carry it out?", "--yes")
				if err != nil {
					return err
				}
				if !ok {
					return errors.New("not carried out, nothing was changed")
				}
			}
			p, err = d.Apply(ctx, p)
			if err != nil {
				return interrupted(ctx, applied(err))
			}
			if err := away(p); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "Done in %.1f s.\n", time.Since(started).Seconds())
			a.tellJoin(p)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask before carrying the plan out")
	cmd.Flags().BoolVar(&noDiff, "no-diff", false, "name the files that change, without their differences")
	cmd.Flags().BoolVar(&a.acceptNew, "accept-new", false, "take the host keys of new machines as they come")
	return cmd
}

// tellJoin names what an apply cannot do for those that nobody can reach.
func (a *app) tellJoin(p *plan.Plan) {
	for _, n := range p.Nodes {
		if n.Action == plan.ActionJoin {
			fmt.Fprintf(a.stderr, "Next, for %s, which nobody can reach: moggy token %s\n", n.Node, n.Node)
		}
	}
}

// applied adds to a failed apply what stands and what to do.
func applied(err error) error {
	var failed deploy.Failed
	if !errors.As(err, &failed) {
		return err
	}
	for name := range failed {
		err = hint.Wrap(err, "look at it: moggy ssh %s -- journalctl -u 'moggy-*' -n 50", name)
		break
	}
	return hint.Wrap(err, "the others keep working on what they have; apply again when mended")
}

// away is the error of an apply that could not ask every node.
func away(p *plan.Plan) error {
	var names []fleet.NodeName
	for _, n := range p.Nodes {
		if n.Action == plan.ActionUnreachable {
			names = append(names, n.Node)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return hint.New(fmt.Sprintf("could not be reached, and left as they are: %v", names), "apply again when they are back")
}
