package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/status"
)

// Bounds of a token's life: long enough to walk to the machine, short enough
// that one found later is worth nothing.
const (
	minValid = time.Minute
	maxValid = 7 * 24 * time.Hour
)

func newTokenCommand(a *app) *cobra.Command {
	var valid time.Duration
	var replace bool
	cmd := &cobra.Command{
		Use:   "token NODE",
		Short: "Let one machine join as NODE, once",
		Long: `Token prints, on standard output and nowhere else, what lets one machine join as
that node: for machines that nobody can reach from outside. It works once and
expires after an hour, unless --valid says otherwise; the hubs' clocks count. A
new token for the same node ends the one before.

On the machine, as root:

    moggy join           # asks for the token, so that it lands in no history

With --replace the node is one that the fleet knows: a machine installed anew,
or another one, takes its name and its addresses. The old one stays the node
until the new one has joined; from then on the hubs refuse it, and after the
next apply everybody does.

Whoever has the token can become that node until it is used or expires: carry it
as you would a password.`,
		Example: `  moggy token bianco
  moggy token bianco | ssh nico@192.168.1.20 sudo moggy join -
  moggy token bianco --replace  # bianco was installed anew`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.CompleteNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			if valid < minValid || valid > maxValid {
				return hint.New(fmt.Sprintf("--valid %s: out of range", valid), "between %s and %s", minValid, maxValid)
			}
			d, done, err := a.Deployment()
			if err != nil {
				return err
			}
			defer done()
			t, missed, err := d.Invite(cmd.Context(), fleet.NodeName(args[0]), replace, valid, time.Now())
			if err != nil {
				return cli.Interrupted(cmd.Context(), err)
			}
			if len(missed) > 0 {
				fmt.Fprintf(a.Stderr, "moggy: note:  not every hub knows of it, which does no harm as long as another does\n")
			}
			fmt.Fprintf(a.Stderr, "For %s, once, within %s. There, as root: moggy join\n", t.Node, status.Span(valid))
			if a.JSON {
				return a.PrintJSON(map[string]any{"version": 1, "node": t.Node, "token": t.Encode(), "expires": time.Unix(t.Expires, 0).UTC()})
			}
			_, err = fmt.Fprintln(a.Stdout, t.Encode())
			return err
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "for a machine that takes the place of one the fleet knows")
	cmd.Flags().DurationVar(&valid, "valid", time.Hour, "how long it can be used (`duration`: 30m, 24h)")
	return cmd
}
