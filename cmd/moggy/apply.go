package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/cmd/moggy/internal/nomadcmd"
	"github.com/moggyfleet/moggy/internal/deploy"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
)

// applyFlags are the operator's choices.
type applyFlags struct {
	nodes                          []string
	yes, noDiff, dryRun, downgrade bool
	soak                           time.Duration
}

func (f applyFlags) options() deploy.Options {
	o := deploy.Options{Soak: f.soak, Downgrade: f.downgrade}
	for _, n := range f.nodes {
		if name := fleet.NodeName(n); !slices.Contains(o.Only, name) {
			o.Only = append(o.Only, name)
		}
	}
	slices.Sort(o.Only)
	return o
}

func newApplyCommand(a *app) *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:   "apply [FILE]",
		Short: "Make the fleet what its file says",
		Long: `Apply shows the plan, asks, and carries it out over your own ssh.

A machine that is new gets moggy and what it needs from its distribution, and
makes its own keys. Its ssh host key is shown to you once and pinned in
fleet.lock.hcl from then on. Machines that nobody can reach join by token:
moggy token NODE.

Everything is staged before anything changes. Then one worker changes, then the
other workers side by side, then hubs and servers one by one, each only while
the others can spare it. A node stays on what it got only if you can reach it
over a fresh connection; otherwise it goes back by itself, whatever becomes of
you. At the first failure nothing new is begun, and the others keep working on
what they have. Where moggy itself changes, the first node is watched for a
while (--soak) before the others get it.

Ctrl-C lets nothing new begin and waits for the nodes under way; a second one
leaves at once, and they end by themselves. While an apply is at work no other
operator can change the same nodes.

With FILE, a plan that was saved with moggy plan --out, it is carried out only
if nothing moved on meanwhile: neither the file, nor the lock, nor any node.`,
		Example: `  moggy apply
  moggy apply --node ari            # only this one changes
  moggy apply --dry-run             # the plan, and the order it would take
  moggy apply --yes --accept-new    # where nobody can be asked`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.apply(cmd.Context(), f, args)
			if err != nil && cmd.Context().Err() != nil {
				cli.Report(a.Stderr, cli.Interrupted(cmd.Context(), err))
				return cli.ExitInterrupted
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask before carrying the plan out")
	flags.BoolVar(&f.noDiff, "no-diff", false, "name the files that change, without their differences")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show the plan and the order it would take, and change nothing")
	flags.BoolVar(&f.downgrade, "downgrade", false, "let nodes go from a newer moggy to yours")
	flags.BoolVar(&a.AcceptNew, "accept-new", false, "take the host keys of new machines as they come")
	a.rolloutFlags(cmd, &f)
	return cmd
}

// rolloutFlags are those that all commands have which begin a rollout.
func (a *app) rolloutFlags(cmd *cobra.Command, f *applyFlags) {
	a.nodeFlag(cmd, &f.nodes)
	cmd.Flags().DurationVar(&f.soak, "soak", rollout.DefaultSoak, "how long the first node with another moggy is watched; 0 for not at all")
}

func (a *app) nodeFlag(cmd *cobra.Command, nodes *[]string) {
	cmd.Flags().StringArrayVar(nodes, "node", nil, "only this `node` changes, also where the others can hardly spare it; give it again for more")
	err := cmd.RegisterFlagCompletionFunc("node", func(cmd *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
		return a.CompleteNode(cmd, nil, part)
	})
	if err != nil {
		panic(err) // the flag was named just above
	}
}

func (a *app) apply(ctx context.Context, f applyFlags, saved []string) error {
	started := time.Now()
	o := f.options()
	d, done, err := a.Deployment()
	if err != nil {
		return err
	}
	defer done()
	seen, err := d.Observe(ctx, observeWithin)
	if err != nil {
		return err
	}
	p, err := d.Plan(ctx, seen, o)
	if err != nil {
		return err
	}
	if len(saved) > 0 {
		if err := a.compareSaved(saved[0], d, p, o); err != nil {
			return err
		}
	}
	if p.Changes() {
		p.Names = namesOf(ctx, d.Fleet)
	}
	if err := a.showPlan(p, !f.noDiff && !f.yes); err != nil {
		return err
	}
	jobs, err := nomadcmd.Plan(ctx, a.App, d, p.Changes(), !f.noDiff && !f.yes)
	if err != nil {
		return err
	}
	if f.dryRun && !a.JSON {
		if err := p.WriteOrder(a.Stdout, a.Palette(a.Stdout)); err != nil {
			return err
		}
	}
	if len(p.Rollout) == 0 && !jobs || f.dryRun {
		a.tellJoin(p)
		return away(p)
	}
	if !f.yes {
		ok, err := a.Confirm("Carry it out?", "--yes")
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("not carried out, nothing was changed")
		}
	}
	if p, err = a.carryOut(ctx, d, p, o); err != nil {
		return err
	}
	a.tellGone(p)
	if err := away(p); err != nil {
		return err
	}
	fmt.Fprintf(a.Stderr, "Done in %.1f s.\n", time.Since(started).Seconds())
	a.tellJoin(p)
	return nil
}

// carryOut changes the nodes, then the services that Nomad runs on them.
func (a *app) carryOut(ctx context.Context, d *deploy.Deployment, p *plan.Plan, o deploy.Options) (*plan.Plan, error) {
	var err error
	if len(p.Rollout) > 0 {
		if p, err = d.Apply(ctx, p, a.watched(o)); err != nil {
			return p, a.stopped(err)
		}
	}
	return p, nomadcmd.Apply(ctx, d)
}

// watched adds what a Ctrl-C does: the first ends ctx, the second everything.
func (a *app) watched(o deploy.Options) deploy.Options {
	kill := make(chan struct{})
	o.Kill = kill
	o.Told = func(underWay []fleet.NodeName) {
		if len(underWay) > 0 {
			fmt.Fprintf(a.Stderr, "Nothing new begins. Under way, and waited for: %v. Ctrl-C again leaves them to end by themselves.\n", underWay)
		}
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		go func() {
			<-again
			close(kill)
		}()
	}
	return o
}

// tellJoin names what an apply cannot do for those that nobody can reach.
func (a *app) tellJoin(p *plan.Plan) {
	for _, n := range p.Nodes {
		if n.Action == plan.ActionJoin {
			fmt.Fprintf(a.Stderr, "Next, for %s, which nobody can reach: moggy token %s\n", n.Node, n.Node)
		}
	}
}

// tellGone says what stays on machines that left the file.
func (a *app) tellGone(p *plan.Plan) {
	for _, n := range p.Nodes {
		if n.Action == plan.ActionRemove {
			fmt.Fprintf(a.Stderr, "%s left the fleet: the other nodes refuse it from now on. moggy, its key and what it "+
				"was given stay on the machine; to clean it, there: moggy leave\n", n.Node)
		}
	}
}

// stopped says where the nodes stand after a rollout that came to no end, and
// adds what to do.
func (a *app) stopped(err error) error {
	var s *deploy.Stopped
	if !errors.As(err, &s) {
		return err
	}
	fmt.Fprintln(a.Stderr, "Where the nodes stand:")
	for _, line := range s.Summary() {
		fmt.Fprintf(a.Stderr, "  %s\n", line)
	}
	for name := range s.Failed {
		err = hint.Wrap(err, "look at it: moggy doctor %s, or moggy ssh %s -- journalctl -u 'moggy-*' -n 50", name, name)
		break
	}
	return hint.Wrap(err, "the others keep working on what they have; apply again when mended")
}

// away is the error of an apply that could not ask every node.
func away(p *plan.Plan) error {
	names := p.Unreachable()
	if len(names) == 0 {
		return nil
	}
	return hint.New("could not be reached, and left as they are: "+strings.Join(names, ", "), "apply again when they are back")
}
