package main

import (
	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/operate"
)

func newRestartCommand(a *app) *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use:   "restart SERVICE",
		Short: "Restart a service's instances, one after the other",
		Long: `Restart restarts the instances of a service, each once the one before is well
again; one that is not ends it, and the others go on running. What the fleet
shall be is not changed by it: moggy apply does that.`,
		Example: `  moggy restart web
  moggy restart web --node ari`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.CompleteSubject,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, done, err := a.Deployment()
			if err != nil {
				return err
			}
			defer done()
			s, err := operate.Find(d.Fleet, args[0], fleet.NodeName(only))
			if err != nil {
				return err
			}
			if s.Service == "" {
				return hint.New(args[0]+" is a node", "moggy ssh %s -- systemctl restart UNIT", s.Nodes[0])
			}
			return operate.Restart(cmd.Context(), d.SSH, d.Ask, s, func(n fleet.NodeName, text string) { d.Progress.Step(string(n), text) })
		},
	}
	cmd.Flags().StringVar(&only, "node", "", "only the instance on this `node`")
	return cmd
}
