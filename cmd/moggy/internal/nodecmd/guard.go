package nodecmd

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
)

// guardCommand is what moggy-guard.service runs.
func (n *app) guardCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "guard",
		Short: "Put the generation confirmed last in force, when the machine starts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			starting, err := n.node().Starting()
			if err != nil {
				return err
			}
			if !starting {
				fmt.Fprintln(n.Stdout, "the machine is up: nothing to guard")
				return nil
			}
			n.by = "boot"
			return n.locked(cmd.Context(), "guard", func(h *node.Held) error {
				turned, err := h.Guard(cmd.Context(), func(e protocol.Event) {
					fmt.Fprintf(n.Stdout, "%s %s\n", e.Step, e.Text)
				})
				if err == nil && !turned {
					fmt.Fprintln(n.Stdout, "the generation in force is the one confirmed last")
				}
				return err
			})
		},
	}
}

func (n *app) holdCommand() *cobra.Command {
	var what, session string
	cmd := &cobra.Command{
		Use:   "hold",
		Short: "Keep other operators from this node while stdin gives a line every few seconds",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return n.exit(n.node().Hold(cmd.Context(), what, session, node.HoldPatience, n.Stdin, func() error {
				return n.answer(protocol.Done{Hello: hello()})
			}))
		},
	}
	cmd.Flags().StringVar(&what, "what", "apply", "what `for`, in the words of others' errors")
	cmd.Flags().StringVar(&session, "session", "", "a hold of the same `name` makes way: its operator is back over another connection")
	return cmd
}

func (n *app) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "Say what happened to this node's generations, oldest first",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			turns, err := n.node().History()
			if err != nil {
				return err
			}
			return n.answer(protocol.History{Hello: hello(), Turns: turns})
		},
	}
}

// stepsCommand lets drills go through all of an activation's steps.
func (n *app) stepsCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "steps",
		Short:  "The steps of an activation, in order: where one can be held",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := json.Marshal(node.Steps())
			if err != nil {
				return err
			}
			_, err = n.Stdout.Write(append(b, '\n'))
			return err
		},
	}
}
