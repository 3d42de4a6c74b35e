package main

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/cmd/moggy/internal/labcmd"
	"github.com/moggyfleet/moggy/cmd/moggy/internal/nodecmd"
	"github.com/moggyfleet/moggy/cmd/moggy/internal/nomadcmd"
	"github.com/moggyfleet/moggy/internal/deploy/node"
)

// app is what every subcommand of this package is given.
type app struct{ *cli.App }

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{cli.New(version, stdin, stdout, stderr)}
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "moggy",
		Short: "One file describes a fleet of odd machines; moggy makes it a platform",
		Long: `One file, fleet.hcl, describes a fleet of odd machines: rented servers, old
computers at home, some behind a carrier's NAT. moggy makes it a platform: a
mesh that no machine's loss cuts, changes that reach every machine over your own
ssh, and one screen that says how all of it is.

Results go to standard output and everything else to standard error; --json
makes results one JSON document. Colours and live lines appear on a terminal
only, and never where NO_COLOR is set. Errors end in a hint: what to do next.`,
		Example: `  moggy init && moggy check      # write a file, find its mistakes
  moggy plan                     # what would change, what one failure would stop
  moggy apply                    # make it so
  moggy status                   # how it is
  sudo moggy lab up              # the same machines, on this box`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	flags := root.PersistentFlags()
	root.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "fleet" { // what one may well try
			name = "file"
		}
		return pflag.NormalizedName(name)
	})
	flags.StringArrayVarP(&a.Files, "file", "f", []string{"fleet.hcl"}, "the fleet's `file`; give it again for more than one")
	flags.BoolVar(&a.JSON, "json", false, "print the result as one JSON document")
	flags.BoolVar(&a.Plain, "plain", false, "plain lines instead of a live screen")
	groups := []struct {
		title    string
		commands []*cobra.Command
	}{
		{"The file:", []*cobra.Command{newInitCommand(a), newCheckCommand(a), newFmtCommand(a)}},
		{"Its services:", []*cobra.Command{newLogsCommand(a), newRestartCommand(a), newExecCommand(a)}},
		{"The fleet:", []*cobra.Command{newPlanCommand(a), newApplyCommand(a), newRollbackCommand(a), newRotateCommand(a), newStatusCommand(a), newPathCommand(a), newDoctorCommand(a), newHistoryCommand(a), newAdoptCommand(a), newSSHCommand(a), nomadcmd.New(a.App), nomadcmd.NewCA(a.App), newTokenCommand(a), newJoinCommand(a), newForgetCommand(a), newLeaveCommand(a)}},
		{"To rehearse:", []*cobra.Command{labcmd.New(a.App)}},
	}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.title
			root.AddCommand(c)
		}
	}
	root.AddCommand(newVersionCommand(a), newAgentCommand(a), newFirewallCommand(a), nomadcmd.NewCerts(a.log), newIngressCommand(a), nodecmd.New(a.App, node.Systemctl{Run: node.RunCommand}))
	return root
}

// log is where a daemon of ours writes.
func (a *app) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
}
