package labcmd

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func newRunCommand(l *app) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "run [--from SITE] [-- COMMAND...]",
		Short: "Run a command of this box as the operator in the lab's internet",
		Long: `Run runs a command of this box, or your shell, in the lab's internet, or with
--from in the LAN of a site. Only its network is the lab's; files, directory and
environment are this box's. An SSH agent with the key of the lab's owner is at
SSH_AUTH_SOCK for as long as the command runs. The exit code is the command's.`,
		Example: `  moggy lab run -- moggy apply
  moggy lab run -- moggy status
  moggy lab run --from london -- ping 192.168.1.11
  moggy lab run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{shell()}
			}
			return passed(theLab.Run(cmd.Context(), fleet.SiteName(from), args, l.stdio()))
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "run in the LAN of this `site`")
	// It cannot fail: the flag is the one above.
	_ = cmd.RegisterFlagCompletionFunc("from", l.completeSite)
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// shell is the user's own.
func shell() string {
	if s := os.Getenv("SHELL"); s != "" {
		return s
	}
	return "/bin/sh"
}

func newExecCommand(l *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec NODE -- COMMAND...",
		Short: "Run a command at a machine's own keyboard",
		Long: `Exec runs a command in a machine as root, as if typed at its own keyboard: it
needs no network there. Standard input passes through, and the exit code is the
command's.`,
		Example: `  moggy lab exec bianco -- ip address
  moggy lab run -- moggy token bianco | moggy lab exec bianco -- /root/moggy join -`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: l.completeNode(1, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			return passed(theLab.Exec(cmd.Context(), fleet.NodeName(args[0]), command(args[1:]), l.stdio()))
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func newSSHCommand(l *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh NODE [-- COMMAND...]",
		Short: "Log in to a machine over ssh, as its owner",
		Long: `Ssh logs in to a machine with the key of the lab's owner: from the lab's internet,
or from within its own site where the machine has no public address. It does not
need the fleet to be applied; "moggy lab run -- moggy ssh NODE" does, and goes the
way an operator would.`,
		Example: `  moggy lab ssh cosmo
  moggy lab ssh bianco -- systemctl status`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: l.completeNode(1, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			return passed(theLab.SSH(cmd.Context(), fleet.NodeName(args[0]), command(args[1:]), l.stdio()))
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// command is what follows the node's name: flags there are the command's, and
// a "--" before it is none of its.
func command(args []string) []string {
	if len(args) > 0 && args[0] == "--" {
		return args[1:]
	}
	return args
}

var errCopyTarget = errors.New("the target is NODE:/path")

func newCopyCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "copy FILE NODE:/PATH",
		Short: "Carry a file to a machine, as with a USB stick",
		Long: `Copy carries a file of this box to a machine that may be reachable in no other
way. The file arrives whole or not at all, with its mode.`,
		Example: `  moggy lab copy ./moggy bianco:/root/moggy`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, path, ok := strings.Cut(args[1], ":")
			if !ok || !strings.HasPrefix(path, "/") {
				return errCopyTarget
			}
			theLab, err := l.open()
			if err != nil {
				return err
			}
			return theLab.Copy(cmd.Context(), args[0], fleet.NodeName(node), path)
		},
	}
}
