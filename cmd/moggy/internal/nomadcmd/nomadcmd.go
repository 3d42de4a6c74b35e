// Package nomadcmd is moggy nomad and moggy certs, and what plan and apply say of
// the services that Nomad runs. What is done is internal/deploy/cluster's and
// internal/certs'.
package nomadcmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy"
	"github.com/moggyfleet/moggy/internal/deploy/cluster"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// New is moggy nomad.
func New(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:   "nomad ARG...",
		Short: "Run Nomad's own command line on a server, with address, certificate and token",
		Long: `Nomad runs Nomad's own command line, with all its subcommands and flags, on the
first of the fleet's servers that answers: there it has the address, the
certificate and the token that may do all. None of them comes to your machine.`,
		Example: `  moggy nomad node status
  moggy nomad job status web
  moggy nomad alloc logs -f -job web`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, done, err := a.Deployment()
			if err != nil {
				return err
			}
			defer done()
			if d.Fleet.Scheduler != fleet.Nomad {
				return hint.New("this fleet has no Nomad", "scheduler = \"nomad\" in the fleet block of its file, then moggy apply")
			}
			var failed []error
			for _, name := range cluster.Servers(d.Fleet, d.Lock()) {
				argv, err := d.SSH.Interactive(cmd.Context(), name, nomadLine(d.Fleet, name, args)...)
				if err != nil {
					failed = append(failed, fmt.Errorf("%s: %w", name, err))
					continue
				}
				return through(cmd.Context(), a, argv)
			}
			if len(failed) == 0 {
				return hint.New("no server of this fleet has been met yet", "moggy apply")
			}
			return errors.Join(failed...)
		},
	}
}

func nomadLine(f *fleet.Fleet, name fleet.NodeName, args []string) []string {
	line := append([]string{"/usr/local/bin/moggy", "node", "nomad", "--"}, args...)
	if n, _ := f.Node(name); n.SSH.User != "root" {
		line = append([]string{"sudo"}, line...)
	}
	return line
}

// through runs a command with our own input and output, and ends as it does.
func through(ctx context.Context, a *cli.App, argv []string) error {
	run := exec.CommandContext(ctx, argv[0], argv[1:]...)
	run.Stdin, run.Stdout, run.Stderr = os.Stdin, a.Stdout, a.Stderr
	err := run.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return cli.ExitCode(exit.ExitCode())
	}
	return err
}

// Plan shows what would become of the services on Nomad, and says whether
// anything would. Where the nodes change anyway, a Nomad that cannot be asked yet
// is one that the change may mend.
func Plan(ctx context.Context, a *cli.App, d *deploy.Deployment, nodes, diffs bool) (bool, error) {
	jobs, want, err := d.Jobs(ctx)
	if err != nil && nodes {
		fmt.Fprintf(a.Stderr, "What becomes of the services on Nomad is to be seen after that: %v\n", err)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if jobs == nil {
		if !a.JSON {
			for _, w := range want {
				fmt.Fprintf(a.Stdout, "+ %-10s new service      on Nomad, once its servers are there\n", *w.ID)
			}
		}
		return len(want) > 0, nil
	}
	defer jobs.Close()
	changes, err := jobs.Plan(ctx, want)
	if err != nil || a.JSON {
		return len(changes) > 0, err
	}
	signs := map[cluster.JobVerb]string{cluster.JobAdd: "+", cluster.JobEdit: "~", cluster.JobRemove: "-"}
	for _, c := range changes {
		fmt.Fprintf(a.Stdout, "%s %-10s service on Nomad: %s\n", signs[c.Verb], c.Service, c.Verb)
		for _, l := range c.Lines {
			if diffs {
				fmt.Fprintf(a.Stdout, "    ~ %s\n", l)
			}
		}
		for _, l := range c.Unplaced {
			fmt.Fprintf(a.Stdout, "    ! an instance finds no node: %s\n", l)
		}
	}
	return len(changes) > 0, nil
}

// Apply makes Nomad run what the file says.
func Apply(ctx context.Context, d *deploy.Deployment) error {
	jobs, want, err := d.Jobs(ctx)
	if err != nil || jobs == nil {
		return err
	}
	defer jobs.Close()
	changes, err := jobs.Plan(ctx, want)
	if err != nil {
		return err
	}
	return jobs.Apply(ctx, changes, d.Progress)
}
