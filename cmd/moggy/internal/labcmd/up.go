package labcmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab"
)

func newUpCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Boot the fleet's machines",
		Long: `Up boots every node of the fleet's file as a machine. The first time on a box it
builds a root file system with debootstrap and fetches the packages that apply
will install, both kept for all later labs; that needs a Debian mirror and about
1 GB. On a lab that is up already, it boots the machines that are off, and adds
what the file has more than before.

What is left half-made by an error or by Ctrl-C it takes away again.`,
		Example: `  moggy lab up
  moggy lab up --file examples/cats/fleet.hcl --name rehearsal`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := l.LoadFleet()
			if err != nil {
				return err
			}
			name := l.name
			if name == "" {
				name = string(f.Name)
			}
			theLab, err := l.named(name)
			if err != nil {
				return err
			}
			names := []string{lab.PartRoot, lab.PartNetwork, lab.PartInternet}
			for _, n := range f.Nodes {
				names = append(names, string(n.Name))
			}
			took, err := theLab.Up(cmd.Context(), f, l.Board(names...))
			if errors.Is(err, context.Canceled) {
				return upInterrupted(took)
			}
			if err != nil {
				return err
			}
			l.tellUp(theLab, f, took)
			return nil
		},
	}
}

var errInterrupted = errors.New("interrupted")

func upInterrupted(took lab.Timing) error {
	if took.Fresh {
		return fmt.Errorf("%w; what was made is gone again", errInterrupted)
	}
	return hint.Wrap(errInterrupted, "moggy lab status shows what is on; moggy lab up goes on")
}

func (l *app) tellUp(theLab *lab.Lab, f *fleet.Fleet, took lab.Timing) {
	second := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
	switch {
	case !took.Fresh && took.Booted == 0:
		fmt.Fprintf(l.Stderr, "lab %s was up already, with all of its %d machines\n", theLab.Name(), len(f.Nodes))
	case !took.Fresh:
		fmt.Fprintf(l.Stderr, "lab %s was up already; booted %d of its %d machines in %s\n",
			theLab.Name(), took.Booted, len(f.Nodes), second(took.Boot))
	default:
		fmt.Fprintf(l.Stderr, "lab %s is up: root file system %s, network %s, boot %s\n",
			theLab.Name(), second(took.Root), second(took.Network), second(took.Boot))
		fmt.Fprintf(l.Stderr, "as the operator in its internet: moggy lab run -- moggy apply\n")
	}
}

func newDownCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take the lab away, with everything its machines wrote",
		Long: `Down kills the lab's machines and removes every namespace, cgroup and file of the
lab; what is kept is the cached root file system. It does so whatever state the
lab is in, also after a command that was killed, and is no error where there is
no lab.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			return theLab.Down(cmd.Context())
		},
	}
}

// serveCommand is what the lab starts of itself to serve its internet.
const serveCommand = "serve"

func newServeCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:    serveCommand + " NAME",
		Short:  "Serve the lab's internet (the lab starts this itself)",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.named(args[0])
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return theLab.Serve(ctx)
		},
	}
}
