package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func newCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Find every mistake in the fleet's file",
		Long: `Check reads the fleet's file, and the lock beside it, and reports every mistake
at once: where it is, the line, what is wrong, and what was probably meant. It
asks no machine and changes nothing.

Warnings are worth a thought, but stop nothing.

With --json the mistakes are one document on stdout:
  {"version": 1, "mistakes": 1, "warnings": 0, "diagnostics": [
    {"severity": "error", "file": "fleet.hcl", "line": 27, "column": 15, ...}]}

Exit codes: 0 no mistake, 1 mistakes.`,
		Example: `  moggy check
  moggy check -f fleet.hcl -f more.hcl
  moggy check --json | jq -r '.diagnostics[] | "\(.line): \(.message)"'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.check() },
	}
}

func (a *app) check() error {
	sources, err := a.ReadSources()
	if err != nil {
		return err
	}
	f, diags := config.Parse(sources)
	lock, lockDiags, err := a.ReadLock()
	if err != nil {
		return err
	}
	diags = append(diags, lockDiags...)
	if f != nil && lock != nil {
		diags = append(diags, lock.Check(f)...)
	}
	if a.JSON {
		if _, err := a.Stdout.Write(diags.JSON()); err != nil {
			return err
		}
		if diags.Mistakes() > 0 {
			return cli.ExitCode(1)
		}
		return nil
	}
	if err := a.Tell(diags); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.Stdout, summary(f))
	return err
}

// summary is a fleet in one line.
func summary(f *fleet.Fleet) string {
	var hubs, servers int
	for _, r := range f.Roles() {
		if r.Hub {
			hubs++
		}
		if r.Server {
			servers++
		}
	}
	return fmt.Sprintf("%s: no mistakes. %s at %s, %s, %s.", f.Name,
		several(len(f.Nodes), "node"), several(len(f.Sites), "site"), several(hubs, "hub"), several(servers, "server"))
}

func several(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
