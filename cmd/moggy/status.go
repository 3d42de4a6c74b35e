package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/status"
)

// statusWithin is how long one node has to answer: a status is on the screen
// within three seconds whoever is down.
const statusWithin = 2500 * time.Millisecond

func newStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the fleet is: problems first, then the nodes and the paths between them",
		Long: `Status asks every node at once how it is and shows, first, what wants attention,
each with the next command; then a line per node: for how long it is up, the
generation in force, load, memory, disk, and how it reaches the others
(directly over IPv6 or IPv4, or relayed by which hub, with the round-trip time).

A node that does not answer within 2.5 seconds is shown as away, with what the
others know of it.

Exit codes: 0 all is well, 1 an error, 2 there are problems.`,
		Example: `  moggy status
  moggy status --json | jq '.problems'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, done, err := a.Deployment()
			if err != nil {
				return err
			}
			defer done()
			seen, err := d.Observe(cmd.Context(), statusWithin)
			if err != nil {
				return err
			}
			answers := make(map[fleet.NodeName]status.Answer, len(seen))
			for name, o := range seen {
				via, _ := d.SSH.Via(name)
				answers[name] = status.Answer{Seen: o.Seen, Problem: o.Problem, Via: via.Hub}
			}
			s := status.Summarise(d.Fleet, d.Lock(), answers, time.Now())
			if a.JSON {
				err = a.PrintJSON(s)
			} else {
				err = s.Write(a.Stdout, a.Palette(a.Stdout))
			}
			if err == nil && len(s.Problems) > 0 {
				return cli.ExitCode(2)
			}
			return err
		},
	}
}
