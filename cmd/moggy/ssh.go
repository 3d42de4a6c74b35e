package main

import (
	"errors"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
)

func newSSHCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh NODE [-- COMMAND...]",
		Short: "Log in to a node by name, wherever it is",
		Long: `Ssh logs in to a node with your own ssh: straight where it has a public address,
through any hub that is up where it has none. Its host key is checked against
fleet.lock.hcl. With a command, runs that instead of a shell; the exit code is
the command's.`,
		Example: `  moggy ssh bianco
  moggy ssh bianco -- journalctl -u moggy-agent -n 50`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.CompleteNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, done, err := a.Deployment()
			if err != nil {
				return err
			}
			defer done()
			names, err := cli.Named(d.Fleet, args[0])
			if err != nil {
				return err
			}
			name := names[0]
			argv, err := d.SSH.Interactive(cmd.Context(), name, args[1:]...)
			if err != nil {
				n, _ := d.Fleet.Node(name)
				return ssh.Explain(name, n.SSH.User, err)
			}
			run := exec.CommandContext(cmd.Context(), argv[0], argv[1:]...)
			run.Stdin, run.Stdout, run.Stderr = os.Stdin, a.Stdout, a.Stderr
			err = run.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() > 0 {
				return cli.ExitCode(exit.ExitCode())
			}
			return err
		},
	}
}
