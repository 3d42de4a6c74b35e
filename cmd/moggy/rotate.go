package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan"
)

func newRotateCommand(a *app) *cobra.Command {
	var yes, all bool
	cmd := &cobra.Command{
		Use:   "rotate NODE | --all",
		Short: "Give a node a new mesh key, without a gap",
		Long: `Rotate gives a node a new mesh key, in three rounds of which each is an apply:
every node learns the new key beside the old one; the node goes by the new one;
every node forgets the old one, and refuses it from then on. The private key is
made on the node and never leaves it. Nothing restarts, and nobody notices.

Cut short at any point (Ctrl-C, a lost laptop, a node that does not answer) both
keys are good; moggy rotate NODE goes on from there, and moggy plan and moggy
status say so. A node that cannot be reached at the start stops it: it would not
know the new key.

With --all the nodes get theirs one after the other. Tokens of moggy token name
a hub by its key: make new ones after a hub's key has changed.`,
		Example: `  moggy rotate ari
  moggy rotate --all --yes`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.CompleteNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.rotate(cmd.Context(), args, all, yes)
			if err != nil && cmd.Context().Err() != nil {
				cli.Report(a.Stderr, cli.Interrupted(cmd.Context(), err))
				return cli.ExitInterrupted
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&all, "all", false, "every node, one after the other")
	return cmd
}

// rotated is what `moggy rotate --json` prints.
type rotated struct {
	Version int        `json:"version"` // 1
	Fleet   fleet.Name `json:"fleet"`
	Nodes   []newKey   `json:"nodes"`
}

type newKey struct {
	Node fleet.NodeName `json:"node"`
	Key  fleet.Key      `json:"key"` // the public half
}

func (a *app) rotate(ctx context.Context, args []string, all, yes bool) error {
	d, done, err := a.Deployment()
	if err != nil {
		return err
	}
	defer done()
	names, err := toRotate(d, args, all)
	if err != nil {
		return err
	}
	if !yes {
		ok, err := a.Confirm(a.rotateQuestion(d.Lock(), names), "--yes")
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("no new key, nothing was changed")
		}
	}
	out := rotated{Version: 1, Fleet: d.Fleet.Name}
	for _, name := range names {
		started := time.Now()
		err := d.Rotate(ctx, name, a.watched(deploy.Options{}), func(n int, _ *plan.Plan) {
			fmt.Fprintf(a.Stderr, "%d of 3: %s\n", n, roundText(n, name))
		})
		if err != nil {
			if lock := d.Lock(); lock.Node(name).Rotating() {
				err = hint.Wrap(a.stopped(err), "both keys of %s are good; moggy rotate %s goes on", name, name)
			} else {
				err = a.stopped(err)
			}
			return err
		}
		key := d.Lock().Node(name).MeshKey
		out.Nodes = append(out.Nodes, newKey{name, key})
		if !a.JSON {
			fmt.Fprintf(a.Stdout, "%s has a new mesh key: %s (%.1f s)\n", name, key, time.Since(started).Seconds())
		}
	}
	if a.JSON {
		return a.PrintJSON(out)
	}
	return nil
}

func roundText(n int, name fleet.NodeName) string {
	switch n {
	case 1:
		return fmt.Sprintf("every node learns the new key of %s", name)
	case 2:
		return fmt.Sprintf("%s goes by it", name)
	}
	return "every node forgets the old one"
}

func (a *app) rotateQuestion(l *fleet.Lock, names []fleet.NodeName) string {
	if len(names) > 1 {
		return fmt.Sprintf("Give %d nodes a new mesh key, one after the other?", len(names))
	}
	if l.Node(names[0]).Rotating() {
		return fmt.Sprintf("Go on giving %s its new mesh key?", names[0])
	}
	return fmt.Sprintf("Give %s a new mesh key?", names[0])
}

// toRotate are the nodes that are meant, those first that are under way.
func toRotate(d *deploy.Deployment, args []string, all bool) ([]fleet.NodeName, error) {
	lock := d.Lock()
	if !all && len(args) == 0 {
		return nil, hint.New("rotate: which node?", "moggy rotate NODE, or moggy rotate --all")
	}
	if all && len(args) > 0 {
		return nil, errors.New("rotate: a node and --all exclude each other")
	}
	var names []fleet.NodeName
	if !all {
		var err error
		if names, err = cli.Named(d.Fleet, args[0]); err != nil {
			return nil, err
		}
	}
	for _, under := range []bool{true, false} {
		for _, n := range d.Fleet.Nodes {
			if all && lock.Node(n.Name).Rotating() == under {
				names = append(names, n.Name)
			}
		}
	}
	for _, name := range names {
		if lock.Node(name).MeshKey.IsZero() {
			return nil, hint.New(fmt.Sprintf("%s has no mesh key yet", name), "moggy apply makes it one")
		}
	}
	if !all {
		for _, r := range plan.RotationsIn(d.Fleet, lock) {
			if r.Node != names[0] {
				return nil, hint.New(fmt.Sprintf("%s is getting a new mesh key: one after the other", r.Node), "%s goes on with it", r.Next)
			}
		}
	}
	return names, nil
}
