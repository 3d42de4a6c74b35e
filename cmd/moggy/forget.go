package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

func newForgetCommand(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "forget NODE",
		Short: "Meet a node anew: its machine was installed from scratch",
		Long: `Forget drops from fleet.lock.hcl what is known of a node's machine: its ssh host
keys and its mesh key. The node keeps its name and its addresses. The next apply
makes first contact with it, showing you its host key, and tells the others its
new mesh key; the old one is refused from then on.

It is for machines that are reached by ssh from outside. One that nobody can
reach takes its place back with moggy token NODE --replace; one that is to go
leaves by removing it from the file.`,
		Example:           `  moggy forget cosmo && moggy apply`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.CompleteNode,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.forget(fleet.NodeName(args[0]), yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) forget(name fleet.NodeName, yes bool) error {
	f, err := a.LoadFleet()
	if err != nil {
		return err
	}
	file, err := a.LoadLock(f)
	if err != nil {
		return err
	}
	lock := file.Lock().Clone()
	entry := lock.Node(name)
	n, listed := f.Node(name)
	switch {
	case !listed:
		return hint.New(fmt.Sprintf("there is no node %s in the file", name), "moggy apply forgets those that have left it")
	case entry.MeshKey.IsZero() && len(entry.HostKeys) == 0:
		return hint.New(fmt.Sprintf("nothing is known of the machine of %s", name), "moggy plan shows how it is met")
	case !n.Reachable():
		return hint.New(fmt.Sprintf("nobody can reach %s from outside, so that apply could not meet it anew", name),
			"a machine that was installed anew takes its place back: moggy token %s --replace", name)
	}
	if !yes {
		ok, err := a.Confirm(fmt.Sprintf("Forget the keys of %s, until the next apply meets it anew?", name), "--yes")
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("not forgotten, nothing was changed")
		}
	}
	entry.MeshKey, entry.NextKey, entry.OldKey, entry.GoneKey = fleet.Key{}, fleet.Key{}, fleet.Key{}, fleet.Key{}
	entry.HostKeys, entry.Generation, entry.Arch = nil, 0, ""
	lock.Put(entry)
	if err := a.SaveLock(file, lock); err != nil {
		return err
	}
	a.tellCutOff(f, lock, name)
	fmt.Fprintf(a.Stderr, "Forgotten. Next: moggy apply, which meets %s as a new machine.\n", name)
	return nil
}

// tellCutOff names the nodes that knew the fleet by the forgotten key alone:
// no hub is left that could tell them of another.
func (a *app) tellCutOff(f *fleet.Fleet, l *fleet.Lock, forgotten fleet.NodeName) {
	roles := f.Roles()
	if !roles[forgotten].Hub {
		return
	}
	var alone []fleet.NodeName
	for _, n := range f.Nodes {
		known := !l.Node(n.Name).MeshKey.IsZero()
		switch {
		case known && roles[n.Name].Hub:
			return
		case known && !n.Reachable():
			alone = append(alone, n.Name)
		}
	}
	for _, name := range alone {
		fmt.Fprintf(a.Stderr, "moggy: note:  %s was the only hub: on %s, moggy leave, then join again: moggy token %s --replace\n", forgotten, name, name)
	}
}
