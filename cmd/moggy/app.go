package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	screen "github.com/moggyfleet/moggy/internal/term"
)

// app is what every subcommand is given: where to read and write, and the
// flags they share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	files  []string // --file: the fleet's description
	json   bool     // --json
	noLive bool     // --plain

	acceptNew bool // --accept-new: take unknown host keys as they come
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{stdin: stdin, stdout: stdout, stderr: stderr}
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
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	flags := root.PersistentFlags()
	root.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "fleet" { // what one may well try
			name = "file"
		}
		return pflag.NormalizedName(name)
	})
	flags.StringArrayVarP(&a.files, "file", "f", []string{"fleet.hcl"}, "the fleet's `file`; give it again for more than one")
	flags.BoolVar(&a.json, "json", false, "print the result as one JSON document")
	flags.BoolVar(&a.noLive, "plain", false, "plain lines instead of a live screen")
	groups := []struct {
		title    string
		commands []*cobra.Command
	}{
		{"The file:", []*cobra.Command{newInitCommand(a), newCheckCommand(a), newFmtCommand(a)}},
		{"The fleet:", []*cobra.Command{newPlanCommand(a), newApplyCommand(a), newRollbackCommand(a), newStatusCommand(a), newDoctorCommand(a), newHistoryCommand(a), newAdoptCommand(a), newSSHCommand(a), newTokenCommand(a), newJoinCommand(a), newForgetCommand(a), newLeaveCommand(a)}},
		{"To rehearse:", []*cobra.Command{newLabCommand(a)}},
	}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.title
			root.AddCommand(c)
		}
	}
	root.AddCommand(newVersionCommand(a), newAgentCommand(a), newNodeCommand(a))
	return root
}

// terminal returns the file behind w if it is a terminal.
func terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// palette colours what goes to w: only on a terminal, never where NO_COLOR is
// set (no-color.org).
func (a *app) palette(w io.Writer) screen.Palette {
	_, tty := terminal(w)
	return screen.NewPalette(tty && os.Getenv("NO_COLOR") == "")
}

// board shows progress on stderr for the names.
func (a *app) board(names ...string) *screen.Board {
	f, live := terminal(a.stderr)
	columns := 0
	if live {
		columns, _, _ = term.GetSize(int(f.Fd()))
	}
	return screen.NewBoard(a.stderr, live && !a.noLive, columns, a.palette(a.stderr), names...)
}
