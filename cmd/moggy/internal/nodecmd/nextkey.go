package nodecmd

import (
	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func (n *app) nextKeyCommand() *cobra.Command {
	var current, wanted string
	cmd := &cobra.Command{
		Use:   "next-key",
		Short: "Make the mesh key that this node shall have next; it goes on with the one it has",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			have, err := fleet.ParseKey(current)
			if err != nil {
				return err
			}
			var want fleet.Key
			if wanted != "" {
				if want, err = fleet.ParseKey(wanted); err != nil {
					return err
				}
			}
			return n.locked(cmd.Context(), "next-key", func(h *node.Held) error {
				key, err := h.NextKey(cmd.Context(), have, want)
				if err != nil {
					return err
				}
				return n.answer(protocol.NextKey{Hello: hello(), Key: key})
			})
		},
	}
	cmd.Flags().StringVar(&current, "current", "", "the public `key` that the node has now")
	cmd.Flags().StringVar(&wanted, "wanted", "", "the public `key` to go on with, if the node has it")
	return cmd
}
