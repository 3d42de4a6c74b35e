package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/status"
)

func newHistoryCommand(a *app) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "history [NODE...]",
		Short: "Who changed the fleet, when, from which commit, and what came of it",
		Long: `History asks the nodes what happened to their generations: each keeps that
itself, so there is nothing to lose with a laptop. Newest first; --json has the
times in UTC.

A commit with "+" behind it is one whose files had changes that were in none.`,
		Example: `  moggy history
  moggy history ziggy -n 50
  moggy history --json | jq '.entries[] | select(.results[].kind == "went back")'`,
		ValidArgsFunction: a.CompleteNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return hint.New(fmt.Sprintf("-n %d: out of range", limit), "0 shows all there is")
			}
			d, done, err := a.Deployment()
			if err != nil {
				return err
			}
			defer done()
			names, err := cli.Named(d.Fleet, args...)
			if err != nil {
				return err
			}
			d.Progress = cli.Quiet{}
			turns, failed := d.History(cmd.Context(), names...)
			if len(turns) == 0 && len(failed) > 0 {
				return cli.Interrupted(cmd.Context(), failed)
			}
			h := status.Recount(d.Fleet.Name, turns, limit)
			for name := range failed {
				h.Silent = append(h.Silent, name)
			}
			slices.Sort(h.Silent)
			if a.JSON {
				return a.PrintJSON(h)
			}
			return h.Write(a.Stdout, a.Palette(a.Stdout), time.Now())
		},
	}
	cmd.Flags().IntVarP(&limit, "number", "n", 20, "how many entries; 0 for all")
	return cmd
}
