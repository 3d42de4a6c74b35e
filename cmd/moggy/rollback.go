package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan"
)

func newRollbackCommand(a *app) *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "rollback [NODE]",
		Short: "Put the generation before in force again, on one node or on all",
		Long: `Rollback puts in force again what a node had before: on the node you name, or
on every node that stands on the fleet's newest generation. It goes the way of
any change: one worker first, hubs one by one, each node confirmed over a fresh
connection or back where it was. A node that had nothing before is named, and
left as it is.

The fleet's file still says what it said: the next apply brings that forth
again, unless you take the file back, too.`,
		Example: `  moggy rollback --dry-run
  moggy rollback ari
  moggy rollback && git revert HEAD`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.CompleteNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.rollback(cmd.Context(), args, yes, dryRun)
			if err != nil && cmd.Context().Err() != nil {
				cli.Report(a.Stderr, cli.Interrupted(cmd.Context(), err))
				return cli.ExitInterrupted
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show which nodes would go back, and in which order")
	return cmd
}

func (a *app) rollback(ctx context.Context, args []string, yes, dryRun bool) error {
	var named []fleet.NodeName
	for _, n := range args {
		named = append(named, fleet.NodeName(n))
	}
	d, done, err := a.Deployment()
	if err != nil {
		return err
	}
	defer done()
	seen, err := d.Observe(ctx, observeWithin)
	if err != nil {
		return err
	}
	b, err := plan.GoBack(d.Fleet, seen, named)
	if err != nil {
		return err
	}
	if a.JSON {
		err = a.PrintJSON(b)
	} else {
		err = b.Write(a.Stdout, a.Palette(a.Stdout))
	}
	if err != nil || dryRun {
		return err
	}
	if len(b.Rollout) == 0 {
		return notBack(b)
	}
	if !yes {
		ok, err := a.Confirm("Take them back?", "--yes")
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("not taken back, nothing was changed")
		}
	}
	if err := d.Rollback(ctx, b, seen, a.watched(deploy.Options{})); err != nil {
		return a.stopped(err)
	}
	fmt.Fprintln(a.Stderr, "Taken back. The file still says what it said: the next apply brings that forth again.")
	return notBack(b)
}

// notBack is the error of a rollback that somebody asked for and did not get.
func notBack(b *plan.Back) error {
	for _, n := range b.Nodes {
		if n.To == 0 {
			return fmt.Errorf("%s: %s", n.Node, n.Note)
		}
	}
	return nil
}
