package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/leave"
)

func newLeaveCommand(a *app) *cobra.Command {
	var yes, here bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take moggy off this machine, to the last file",
		Long: `Leave makes this machine what it was before it became a node: it stops what moggy
runs, gives back what its files replaced, and removes the rest, its mesh key
included. What somebody had put by hand into moggy's paths is moved to
/root/moggy-replaced-DATE. Packages of the distribution stay installed.

Run it as root, on the machine. It goes on by itself when the connection it was
run over ends, as one over the mesh does, and can be run again when the power
failed. The fleet knows the node until its line is removed from the file, and an
apply has told the others.`,
		Example: `  sudo moggy leave
  moggy ssh bianco -- moggy leave --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return hint.New("leave needs root", "run it with sudo")
			}
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			m := leave.Machine{
				Root: "/", Executable: exe, Systemd: node.Systemctl{Run: node.RunCommand}, Run: node.RunCommand,
				Now: time.Now, Version: version, Say: func(text string) { fmt.Fprintln(a.Stdout, text) },
			}
			if here {
				return leaveHere(cmd.Context(), a, m)
			}
			return a.leave(cmd.Context(), m, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&here, "here", false, "in this process")
	cmd.Flags().Lookup("here").Hidden = true
	return cmd
}

// leaveHere is the unit's side. Its log is on its stdout, errors included.
func leaveHere(ctx context.Context, a *app, m leave.Machine) error {
	kept, err := m.Leave(ctx)
	if err != nil {
		cli.Report(a.Stdout, err)
		return cli.ExitCode(1)
	}
	if kept != "" {
		m.Say("what was put there by hand is in " + kept)
	}
	return nil
}

// leave is the owner's side: it asks, starts the unit, and says how it went.
func (a *app) leave(ctx context.Context, m leave.Machine, yes bool) error {
	s, err := m.Look(ctx)
	if err != nil {
		return err
	}
	what := "this machine, which moggy no longer knows by name,"
	if s.Node != "" {
		what = fmt.Sprintf("this machine, node %s of fleet %s,", s.Node, s.Fleet)
	}
	if s.Mesh {
		fmt.Fprintln(a.Stderr, "moggy: note:  a connection over the mesh ends with it; leaving goes on by itself")
	}
	if !yes {
		ok, err := a.Confirm(fmt.Sprintf("Take moggy off %s with its key and all its generations?", what), "--yes")
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("not taken off, nothing was changed")
		}
	}
	said, err := m.Detach(ctx, "leave", "--here")
	for _, line := range said {
		fmt.Fprintln(a.Stderr, line)
	}
	if err != nil {
		return err
	}
	if a.JSON {
		return a.PrintJSON(map[string]any{"version": 1, "fleet": s.Fleet, "node": s.Node, "packages": s.Packages})
	}
	fmt.Fprintln(a.Stdout, "Nothing of moggy is left on this machine.")
	if len(s.Packages) > 0 {
		fmt.Fprintf(a.Stdout, "Packages it may have installed stay: %s\n", strings.Join(s.Packages, ", "))
	}
	if s.Node != "" {
		fmt.Fprintf(a.Stdout, "Next, at the operator's: remove node %s from the file and apply, so that the others forget it;\n"+
			"or take it back: moggy token %s --replace, or moggy forget %s where apply reaches it.\n", s.Node, s.Node, s.Node)
	}
	return nil
}
