package nodecmd

import (
	"encoding/json"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/authority"
	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/pki"
)

func (n *app) keys() authority.Keys {
	return authority.Keys{Disk: &disk.Disk{Root: n.root}, Dir: node.Dir + "/keys"}
}

// maxConstraints bounds what an authority is to be bound to, in bytes.
const maxConstraints = 1 << 20

func (n *app) authorityCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "authority",
		Short: "Make this node's authority for certificates, bound to what is on stdin",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var c pki.Constraints
			if err := json.NewDecoder(io.LimitReader(n.Stdin, maxConstraints)).Decode(&c); err != nil {
				return err
			}
			return n.locked(cmd.Context(), "authority", func(*node.Held) error {
				ca, err := n.keys().Make(c, time.Now())
				if err != nil {
					return err
				}
				return n.answer(protocol.Authority{Hello: hello(), CA: ca})
			})
		},
	}
}

// secretCommand is the way of a secret that several nodes share from one to the
// other: through the operator's memory, never his disk.
func (n *app) secretCommand() *cobra.Command {
	var keep, show bool
	cmd := &cobra.Command{
		Use:   "secret NAME",
		Short: "Say the digest of a secret that several nodes share; or keep one, from stdin",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer := protocol.Secret{Hello: hello()}
			if keep {
				err := n.locked(cmd.Context(), "secret", func(*node.Held) error { return n.keys().Keep(args[0], n.Stdin) })
				if err != nil {
					return err
				}
			}
			content, err := n.keys().Secret(args[0])
			if err != nil {
				return err
			}
			if content != nil {
				answer.Digest = fleet.DigestOf(content)
			}
			if show {
				answer.Content = content
			}
			return n.answer(answer)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the one on stdin; another that is there is not replaced")
	cmd.Flags().BoolVar(&show, "show", false, "answer with its content")
	return cmd
}
