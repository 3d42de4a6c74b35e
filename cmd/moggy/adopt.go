package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/deploy"
	"github.com/moggyfleet/moggy/internal/engine/operators"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

func newAdoptCommand(a *app) *cobra.Command {
	var yes, lost bool
	cmd := &cobra.Command{
		Use:   "adopt [NODE...]",
		Short: "Write what was changed by hand on nodes into the fleet's file",
		Long: `Adopt looks for managed files that somebody changed by hand and, where the
fleet's file can say the same, writes it there: an operator's key that was put on
a node becomes an operator of the fleet. It shows the change to the file and
asks. What is derived from the whole file, such as the mesh's members, cannot be
adopted; moggy apply puts it right.

With --lock it writes fleet.lock.hcl anew, where that is lost or damaged and git
does not have it: every node knows the mesh's members, their addresses and public
keys. A damaged lock is kept beside it.

Nothing is changed on the nodes: that is moggy apply's, afterwards.`,
		Example: `  moggy adopt
  moggy adopt --lock
  moggy adopt ziggy --yes && git diff fleet.hcl`,
		ValidArgsFunction: a.CompleteNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			if lost {
				return a.adoptLock(cmd.Context(), args, yes)
			}
			d, done, err := a.Deployment()
			if err != nil {
				return err
			}
			defer done()
			seen, err := d.Observe(cmd.Context(), observeWithin)
			if err != nil {
				return cli.Interrupted(cmd.Context(), err)
			}
			found, err := a.drifted(d, args, func(n fleet.NodeName) (*fleet.Observed, string) {
				return seen[n].Seen, seen[n].Problem
			})
			if err != nil {
				return err
			}
			return a.adopt(found, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask before writing")
	cmd.Flags().BoolVar(&lost, "lock", false, "write fleet.lock.hcl anew from what the nodes hold")
	cmd.Flags().BoolVar(&a.AcceptNew, "accept-new", false, "with --lock: take the nodes' host keys as they come")
	return cmd
}

// adoption is what a look at the nodes brought.
type adoption struct {
	more  []fleet.Operator // to be written
	lines []string         // what was found, for people
}

// drifted gathers what hands did on the nodes of names, or on all.
func (a *app) drifted(d *deploy.Deployment, names []string, seen func(fleet.NodeName) (*fleet.Observed, string)) (adoption, error) {
	var out adoption
	if _, err := cli.Named(d.Fleet, names...); err != nil {
		return out, err
	}
	byKey := make(map[string]bool)
	for _, n := range d.Fleet.Nodes {
		if len(names) > 0 && !slices.Contains(names, string(n.Name)) {
			continue
		}
		o, problem := seen(n.Name)
		if o == nil {
			if problem != "" {
				out.say(n.Name, "could not be asked: %s", problem)
			}
			continue
		}
		for _, drift := range o.Drift {
			out.take(d.Fleet, n.Name, drift, byKey)
		}
	}
	return out, nil
}

func (o *adoption) say(node fleet.NodeName, format string, args ...any) {
	o.lines = append(o.lines, fmt.Sprintf("%s: ", node)+fmt.Sprintf(format, args...))
}

// take looks at one drifted file.
func (o *adoption) take(f *fleet.Fleet, node fleet.NodeName, drift fleet.Drift, byKey map[string]bool) {
	list, ours := operators.Adopt(f, drift)
	if !ours {
		o.say(node, "%s: derived from the whole file, so it cannot be adopted; moggy apply restores it", drift.Path)
		return
	}
	for _, line := range list.Added {
		op, err := config.OperatorOf(line, slices.Concat(f.Operators, o.more))
		switch {
		case err != nil:
			o.say(node, "%s: a key that cannot be an operator's: %v", drift.Path, err)
		case byKey[strings.Join(strings.Fields(op.Key)[:2], " ")]:
			o.say(node, "%s: the same key as above", drift.Path)
		default:
			byKey[strings.Join(strings.Fields(op.Key)[:2], " ")] = true
			o.more = append(o.more, op)
			o.say(node, "%s: a key that the file does not have, taken as operator %s", drift.Path, op.Name)
		}
	}
	for _, name := range list.Removed {
		o.say(node, "%s: the key of %s is gone; moggy apply brings it back, unless the file drops %s", drift.Path, name, name)
	}
	if len(list.Added)+len(list.Removed) == 0 {
		o.say(node, "%s: nothing in it that the file could say; moggy apply restores it", drift.Path)
	}
}

// adopt writes what was found, having shown it and asked.
func (a *app) adopt(found adoption, yes bool) error {
	for _, line := range found.lines {
		fmt.Fprintln(a.Stderr, line)
	}
	if a.JSON {
		if err := a.PrintJSON(map[string]any{"version": 1, "found": slices.Concat([]string{}, found.lines), "operators": slices.Concat([]fleet.Operator{}, found.more)}); err != nil {
			return err
		}
	}
	if len(found.more) == 0 {
		fmt.Fprintln(a.Stderr, "Nothing to adopt.")
		return nil
	}
	src, out, err := a.withOperators(found.more)
	if err != nil {
		return err
	}
	if !a.JSON {
		fmt.Fprint(a.Stdout, udiff.Unified(src.Name, src.Name, string(src.Content), string(out)))
	}
	if !yes {
		ok, err := a.Confirm("Write it to "+src.Name+"?", "--yes")
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("not written, nothing was changed")
		}
	}
	if err := cli.ReplaceFile(src.Name, out); err != nil {
		return err
	}
	fmt.Fprintln(a.Stderr, "Written. Next: moggy apply")
	return nil
}

// withOperators is the file that has the fleet block, and its text with more
// operators, which reads without a mistake.
func (a *app) withOperators(more []fleet.Operator) (source.Text, []byte, error) {
	sources, err := a.ReadSources()
	if err != nil {
		return source.Text{}, nil, err
	}
	for i, src := range sources {
		out, err := config.AddOperators(src, more)
		if err != nil {
			if len(sources) == 1 {
				return src, nil, hint.Wrap(err, "write them there by hand")
			}
			continue
		}
		changed := slices.Clone(sources)
		changed[i].Content = out
		if _, diags := config.Parse(changed); diags.Mistakes() > 0 {
			return src, nil, a.Tell(diags)
		}
		return src, out, nil
	}
	return source.Text{}, nil, hint.New("none of the files has a fleet block that operators can be written to", "write them there by hand")
}
