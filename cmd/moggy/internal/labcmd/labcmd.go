// Package labcmd is moggy lab: the flags, the words and the screens. The lab
// itself is internal/lab.
package labcmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab"
)

// app is what all lab commands share.
type app struct {
	*cli.App
	name, cache string
}

// New is the command moggy lab.
func New(a *cli.App) *cobra.Command {
	l := &app{App: a}
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "The same fleet as real machines on this box, to rehearse on",
		Long: `Lab boots every node of the fleet's file as a machine on this box: Debian with
systemd and sshd, in network namespaces wired like the fleet's sites, with their
routers, NATs, carriers, and an internet in between that carries documentation
addresses only. The rest of moggy does not know the difference: run it in the
lab's internet with "moggy lab run".

A lab needs root, and touches nothing of this box outside of itself: no address,
route, rule or file. Its machines are rehearsal, not a prison: whoever is root in
one could become root of this box.

Labs have names, the fleet's unless --name says otherwise, and any number of them
can be up side by side.`,
		Example: `  moggy lab up
  moggy lab run -- moggy apply
  moggy lab fail cosmo
  moggy lab drill
  moggy lab down`,
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&l.name, "name", "", "the lab's `name` (the fleet's where it is left out)")
	flags.StringVar(&l.cache, "cache", os.Getenv("MOGGY_CACHE"), "`directory` that keeps root file systems (else $MOGGY_CACHE, else "+lab.CacheDir+")")
	cmd.AddCommand(
		newUpCommand(l), newDownCommand(l), newStatusCommand(l),
		newRunCommand(l), newCurlCommand(l), newExecCommand(l), newSSHCommand(l), newCopyCommand(l),
		newFailCommand(l), newHealCommand(l), newCutCommand(l), newLossCommand(l), newDelayCommand(l), newNATCommand(l), newDrillCommand(l),
		newServeCommand(l),
	)
	return cmd
}

// open returns the lab that is meant.
func (l *app) open() (*lab.Lab, error) {
	name := l.name
	if name == "" {
		var err error
		if name, err = l.meant(); err != nil {
			return nil, err
		}
	}
	return l.named(name)
}

func (l *app) named(name string) (*lab.Lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return lab.New(name, lab.Options{
		Cache: l.cache, Now: time.Now,
		Serve: []string{self, "lab", serveCommand},
	})
}

// meant is the name of the lab where the user gave none: the one of the
// fleet's file, or where there is no file, the only one that is up.
func (l *app) meant() (string, error) {
	sources, err := l.ReadSources()
	if err == nil {
		// Its mistakes are for check and up to speak about.
		if f, _ := config.Parse(sources); f != nil && f.Name != "" {
			return string(f.Name), nil
		}
	}
	up, namesErr := lab.Names()
	switch {
	case namesErr != nil && !errors.Is(namesErr, fs.ErrPermission):
		return "", namesErr
	case len(up) == 1:
		return up[0], nil
	case len(up) > 1:
		return "", hint.New("several labs are up: "+strings.Join(up, ", "), "say which: --name %s", up[0])
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return "", hint.New(fmt.Sprintf("no lab is up, and there is no %s here that would name one", l.Files[0]), "moggy lab up --file FILE")
}

func (l *app) stdio() lab.Stdio { return lab.Stdio{In: l.Stdin, Out: l.Stdout, Err: l.Stderr} }

// passed turns a command's exit code into ours.
func passed(code int, err error) error {
	if err != nil || code == 0 {
		return err
	}
	return cli.ExitCode(code)
}

// completeNode offers the names of the lab's nodes to the shell, and with
// sites those of its sites too.
func (l *app) completeNode(most int, sites bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		f := l.fleetForCompletion()
		if len(args) >= most || f == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var names []string
		for _, n := range f.Nodes {
			names = append(names, string(n.Name)+"\t"+string(n.Site))
		}
		if sites {
			more, _ := l.completeSite(cmd, args, toComplete)
			names = append(names, more...)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeSite offers the names of the lab's sites to the shell.
func (l *app) completeSite(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if f := l.fleetForCompletion(); f != nil {
		for _, s := range f.Sites {
			names = append(names, string(s.Name)+"\tsite")
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// fleetForCompletion is the lab's fleet, or where only root can look at it the
// file's; nil where there is neither.
func (l *app) fleetForCompletion() *fleet.Fleet {
	if theLab, err := l.open(); err == nil {
		if f, err := theLab.Fleet(); err == nil {
			return f
		}
	}
	sources, err := l.ReadSources()
	if err != nil {
		return nil
	}
	f, _ := config.Parse(sources)
	return f
}
