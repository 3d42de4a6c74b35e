package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/join"
	"github.com/moggyfleet/moggy/internal/mesh"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
	"github.com/moggyfleet/moggy/internal/token"
)

func newJoinCommand(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "join [-]",
		Short: "Make this machine a node of the fleet that its token is from",
		Long: `Join makes this machine a node: for machines that nobody can reach from outside.
The token comes from "moggy token NODE" at the operator's.

Run it as root: it asks for the token and does not show it. With - it reads it
from standard input. It takes none as an argument, which would be in the list of
processes, in the shell's history and in the log of sudo.

The hubs say first whether they take the token, by their own clocks; a join that
is refused leaves nothing behind. Then the machine makes its own key, which never
leaves it, tells the hubs its public half, and starts the mesh. What else the
node is to run comes with the operator's next "moggy apply". An interrupted join
can be run again with the same token.`,
		Example: `  sudo moggy join
  moggy token bianco | ssh nico@192.168.1.20 sudo moggy join -`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runJoin(cmd.Context(), a, args, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "install an ssh server without asking, if there is none")
	return cmd
}

func runJoin(ctx context.Context, a *app, args []string, yes bool) error {
	if len(args) == 1 && args[0] != "-" {
		return refuseArgument(args[0])
	}
	if os.Geteuid() != 0 {
		return hint.New("join needs root", "run it with sudo")
	}
	text, err := a.readToken(args)
	if err != nil {
		return err
	}
	t, err := token.Parse(text)
	if err != nil {
		return hint.Wrap(err, "copy it whole, from moggy1_ to its end; or make a new one at the operator's: moggy token NODE")
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	m := join.Machine{
		Root: "/", Executable: exe, Version: version, By: "join",
		Systemd: node.Systemctl{Run: node.RunCommand}, Run: node.RunCommand, Knock: mesh.Knock, Enter: mesh.Join,
		Say: func(text string) { fmt.Fprintf(a.Stderr, "%s: %s\n", t.Node, text) },
		Ask: func(question string) (bool, error) {
			if yes {
				return true, nil
			}
			return a.Confirm(question, "--yes")
		},
	}
	r, err := m.Join(ctx, t)
	if ctx.Err() != nil && err != nil {
		return hint.New("interrupted", "the same token can be used again on this machine")
	}
	if err != nil {
		return err
	}
	return a.printJoined(t, r)
}

// refuseArgument is the error of a token given as an argument. It does not
// repeat it: a third place to find it in is one too many.
func refuseArgument(arg string) error {
	const what = "join takes no token as an argument: it is in the list of processes now, and in the shell's history"
	t, err := token.Parse(arg)
	if err != nil {
		return hint.New(what, "run moggy join without one: it asks")
	}
	return hint.New(what, "make a new one, after which nobody can use this one: moggy token %s; then moggy join, which asks for it", t.Node)
}

// readToken takes the token from where it is least seen.
func (a *app) readToken(args []string) (string, error) {
	switch {
	case len(args) == 0:
		if f, ok := a.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			fmt.Fprint(a.Stderr, "Token: ")
			b, err := term.ReadPassword(int(f.Fd()))
			fmt.Fprintln(a.Stderr)
			return string(b), err
		}
		fallthrough
	default:
		b, err := io.ReadAll(io.LimitReader(a.Stdin, 64<<10))
		if err == nil && len(strings.TrimSpace(string(b))) == 0 {
			return "", hint.New("no token on standard input", "at the operator's: moggy token NODE")
		}
		return string(b), err
	}
}

func (a *app) printJoined(t token.Token, r join.Result) error {
	var agreed, silent []string
	for _, told := range r.Told {
		if told.Status == wire.JoinOK {
			agreed = append(agreed, string(told.Hub))
		} else {
			silent = append(silent, string(told.Hub))
		}
	}
	if a.JSON {
		return a.PrintJSON(map[string]any{
			"version": 1, "fleet": t.Fleet, "node": t.Node, "v4": t.V4, "v6": t.V6,
			"agreed": agreed, "silent": silent, "peers": r.Peers,
		})
	}
	fmt.Fprintf(a.Stdout, "This machine is node %s of fleet %s, %s and %s on the mesh.\n", t.Node, t.Fleet, t.V4, t.V6)
	for _, p := range slices.SortedFunc(slices.Values(r.Peers), func(x, y fleet.PeerStatus) int {
		return strings.Compare(string(x.Name), string(y.Name))
	}) {
		rtt := time.Duration(p.RTTMicro) * time.Microsecond
		fmt.Fprintf(a.Stdout, "  %-12s %s, %s\n", p.Name, p.Path, rtt.Round(100*time.Microsecond))
	}
	if len(silent) > 0 {
		fmt.Fprintf(a.Stderr, "moggy: note:  %s did not agree, which does no harm: apply tells it\n", strings.Join(silent, ", "))
	}
	_, err := fmt.Fprintln(a.Stdout, "Next, at the operator's: moggy apply")
	return err
}
