package main

import (
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/plan"
)

// observeWithin is how long one node has to answer a plan.
const observeWithin = 10 * time.Second

// exitChanges is what plan ends with when there is something to do.
const exitChanges exitCode = 2

func newPlanCommand(a *app) *cobra.Command {
	var noDiff bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what would change, and what one failure would stop",
		Long: `Plan asks every node how it is, compares that with the fleet's file, and shows
per node what an apply would change: files with their differences, units,
packages. Then it says what the loss of any node, any site, or any two nodes
would stop, with the line of the file that would mend it.

It changes nothing, neither on the nodes nor beside the file.

Exit codes: 0 nothing to do, 1 an error, 2 there are changes.`,
		Example: `  moggy plan
  moggy plan --no-diff
  moggy plan --json | jq '.nodes[] | select(.action != "none")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, done, err := a.deployment()
			if err != nil {
				return err
			}
			defer done()
			seen, err := d.Observe(cmd.Context(), observeWithin)
			if err != nil {
				return err
			}
			p, err := d.Plan(cmd.Context(), seen)
			if err != nil {
				return err
			}
			if err := a.showPlan(p, !noDiff); err != nil {
				return err
			}
			if p.Changes() {
				return exitChanges
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&noDiff, "no-diff", false, "name the files that change, without their differences")
	return cmd
}

func (a *app) showPlan(p *plan.Plan, diffs bool) error {
	if a.json {
		return a.printJSON(p.Document())
	}
	return p.Write(a.stdout, a.palette(a.stdout), diffs)
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
