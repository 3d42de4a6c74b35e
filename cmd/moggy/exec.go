package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/operate"
)

func newExecCommand(a *app) *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use:   "exec SERVICE -- COMMAND...",
		Short: "Run a command inside a service's instance",
		Long: `Exec runs a command inside the container of a service's instance, on the first
node that has one, or on --node. The exit code is the command's. A service that
is a program has no inside of its own: moggy ssh NODE is where it is.`,
		Example: `  moggy exec web -- sh
  moggy exec db --node ari -- psql -c 'select 1'`,
		Args:              cobra.MinimumNArgs(2),
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
			n := s.Nodes[0]
			if svc, _ := d.Fleet.Service(s.Service); svc.Image == "" {
				return hint.New(fmt.Sprintf("%s is no container", args[0]), "moggy ssh %s -- COMMAND", n)
			}
			argv, err := d.SSH.Interactive(cmd.Context(), n, operate.Inside(s.Service, term.IsTerminal(int(os.Stdin.Fd())), args[1:])...)
			if err != nil {
				return ssh.Explain(n, "root", err)
			}
			if term.IsTerminal(int(os.Stdin.Fd())) {
				argv = append(argv[:1:1], append([]string{"-t"}, argv[1:]...)...)
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
	cmd.Flags().StringVar(&only, "node", "", "the instance on this `node`")
	return cmd
}
