package nodecmd

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/examine"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func (n *app) examineCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "examine",
		Short: "Say what moggy doctor wants to know of this machine; changes nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			x := examine.Examiner{
				Root: n.root, Run: node.RunCommand, Now: time.Now, Log: n.systemd.Log,
				Observe: func(ctx context.Context) (fleet.Observed, error) { return n.node().Observe(ctx, node.Look{}) },
			}
			return n.answer(x.Examine(cmd.Context()))
		},
	}
}
