package nodecmd

import (
	"os"
	"syscall"

	"github.com/spf13/cobra"

	engine "github.com/moggyfleet/moggy/internal/engine/nomad"
	"github.com/moggyfleet/moggy/internal/nomad"
)

// nomadCommand serves Nomad's API on stdin and stdout, or is Nomad's own command
// line: with this node's certificate and token, which stay here.
func (n *app) nomadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "nomad [-- ARG...]",
		Short: "Pass HTTP requests on stdin on to Nomad; or run nomad with these arguments",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := nomad.OnNode()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return l.Serve(cmd.Context(), nomad.Conn{Reader: n.Stdin, Writer: n.Stdout, Closer: os.Stdin.Close})
			}
			env, err := l.Environment()
			if err != nil {
				return err
			}
			return syscall.Exec(engine.BinaryPath, append([]string{"nomad"}, args...), append(os.Environ(), env...))
		},
	}
}
