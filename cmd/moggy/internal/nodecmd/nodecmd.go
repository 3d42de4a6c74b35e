// Package nodecmd is moggy node: the node's side of what the operator's moggy
// asks over ssh, by arguments, JSON and exit codes. What is done to the machine
// is done by internal/deploy/node and internal/supervise.
package nodecmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/command"
	"github.com/moggyfleet/moggy/internal/deploy/node/image"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/ingress"
	"github.com/moggyfleet/moggy/internal/supervise"
)

// app is what the subcommands of moggy node share.
type app struct {
	*cli.App
	by       string
	root     string
	protocol int
	await    time.Duration
	systemd  node.Systemd
}

// New is the command moggy node of a machine with that systemd.
func New(a *cli.App, systemd node.Systemd) *cobra.Command {
	n := &app{App: a, systemd: systemd}
	cmd := &cobra.Command{
		Use:    "node",
		Short:  "What moggy does on a node for its operator, who runs it over ssh",
		Hidden: true,
		Long: `What moggy does on a node for its operator: moggy apply runs these commands over
ssh, as root. Each answers with JSON on stdout; what went wrong is on stderr.

Exit codes: 0 done, 1 not done, 75 another operator is at work on the node,
76 the operator speaks a newer protocol than this moggy.`,
		PersistentPreRunE: func(*cobra.Command, []string) error { return n.exit(n.check()) },
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&n.by, "by", "", "`who` asks, for the lock and the reports: nico@laptop")
	flags.IntVar(&n.protocol, "protocol", protocol.Version, "the protocol the operator speaks")
	flags.StringVar(&n.root, "root", "/", "the machine's root `directory`, to look at a disk from another system")
	flags.DurationVar(&n.await, "await", 30*time.Second, "how long units may take to start")
	cmd.AddCommand(
		n.initCommand(), n.observeCommand(), n.missingCommand(), n.stageCommand(), n.packagesCommand(), n.pullCommand(),
		n.activateCommand(), n.waitCommand(), n.confirmCommand(), n.backCommand(), n.inviteCommand(), n.examineCommand(),
		n.guardCommand(), n.holdCommand(), n.historyCommand(), n.stepsCommand(), n.nextKeyCommand(),
		n.authorityCommand(), n.secretCommand(), n.nomadCommand(),
	)
	return cmd
}

func (n *app) check() error {
	if err := protocol.Check(n.protocol); err != nil {
		return hint.Wrap(fmt.Errorf("the operator's moggy: %w", err),
			"this node runs moggy %s: apply with a moggy of that version, or install the newer one here first", n.Version)
	}
	if n.root == "/" && os.Geteuid() != 0 {
		return hint.New("moggy node: needs root", "run it with sudo")
	}
	return nil
}

// exit gives errors that the operator's side tells apart their exit code.
func (n *app) exit(err error) error {
	code := 0
	switch {
	case errors.Is(err, node.ErrLocked):
		code = protocol.ExitLocked
	case errors.Is(err, protocol.ErrNewer):
		code = protocol.ExitProtocol
	default:
		return err
	}
	cli.Report(n.Stderr, err)
	return cli.ExitCode(code)
}

func (n *app) node() *node.Node {
	return node.New(node.Options{
		Root: n.root, Systemd: n.systemd, Run: node.RunCommand, Now: time.Now,
		Version: n.Version, By: n.by, Await: n.await,
	})
}

// locked does work while nobody else may change the node.
func (n *app) locked(ctx context.Context, what string, work func(*node.Held) error) error {
	h, err := n.node().Lock(ctx, what)
	if err != nil {
		return n.exit(err)
	}
	return n.exit(errors.Join(work(h), h.Release()))
}

func (n *app) answer(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = n.Stdout.Write(append(b, '\n'))
	return err
}

func hello() protocol.Hello { return protocol.Hello{Protocol: protocol.Version} }

func (n *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make what must exist on a node, its mesh key above all",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return n.locked(cmd.Context(), "init", func(h *node.Held) error {
				key, err := h.Init()
				if err != nil {
					return err
				}
				return n.answer(protocol.Init{Hello: hello(), Moggy: n.Version, Arch: h.Arch(), MeshKey: key})
			})
		},
	}
}

func (n *app) observeCommand() *cobra.Command {
	var look node.Look
	cmd := &cobra.Command{
		Use:   "observe",
		Short: "Say where this node stands; changes nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := n.node().Observe(cmd.Context(), look)
			if err != nil {
				return err
			}
			if s, err := ingress.Ask(cmd.Context(), n.root+fleet.IngressSocket); err == nil {
				o.Ingress = &s
			}
			return n.answer(o)
		},
	}
	cmd.Flags().BoolVar(&look.Deep, "deep", false, "read every managed file again, also those whose inode has not changed")
	cmd.Flags().StringArrayVar(&look.Content, "content", nil, "a managed `path` whose content is wanted; secrets are left out")
	return cmd
}

func (n *app) missingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "missing",
		Short: "Say what content a manifest, on stdin, needs that is not here",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			m, err := protocol.ReadManifest(n.Stdin)
			if err != nil {
				return n.exit(err)
			}
			digests, err := n.node().Missing(m)
			if err != nil {
				return err
			}
			return n.answer(protocol.Missing{Hello: hello(), Digests: digests})
		},
	}
}

func (n *app) stageCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stage",
		Short: "Take in a generation, on stdin; touches nothing that runs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return n.locked(cmd.Context(), "stage", func(h *node.Held) error {
				staged, err := h.Receive(n.Stdin)
				if err != nil {
					return err
				}
				return n.answer(staged)
			})
		},
	}
}

func (n *app) packagesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "packages NAME...",
		Short: "Install packages, by their names in Debian",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			installed, err := n.node().Packages(cmd.Context(), names)
			if err != nil {
				return err
			}
			return n.answer(protocol.Packages{Hello: hello(), Installed: installed})
		},
	}
}

func (n *app) pullCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Pull a container's image",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := (image.Docker{Run: command.Run}).Pull(cmd.Context(), args[0]); err != nil {
				return err
			}
			return n.answer(protocol.Done{Hello: hello()})
		},
	}
}

// activation is what `activate` and `back` are told beside the generation.
type activation struct {
	digest, report, commit string
	within                 time.Duration
}

func (a *activation) flags(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&a.within, "confirm-within", 0, "go back unless it is confirmed within that `time`; 0: it stays")
	cmd.Flags().StringVar(&a.commit, "commit", "", "the git `commit` of the fleet file, for the history")
}

func (n *app) activateCommand() *cobra.Command {
	var with activation
	cmd := &cobra.Command{
		Use:   "activate N",
		Short: "Put generation N in force, as a unit of its own, and follow it",
		Long: `Put generation N in force and follow it. It runs as the unit
moggy-activate-N.service and goes on when this command, or the connection it was
run over, ends; moggy node wait N, or this command again, follows it further.

With --confirm-within the node goes back to the generation that was confirmed
last unless moggy node confirm N comes in time, or when a unit of the new one
crashes meanwhile.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			generation, err := generationArg(args[0])
			if err != nil {
				return err
			}
			if with.report != "" {
				return n.supervise(cmd.Context(), generation, with)
			}
			return n.detach(cmd.Context(), generation, with)
		},
	}
	with.flags(cmd)
	cmd.Flags().StringVar(&with.digest, "digest", "", "only if the staged manifest has this `digest`")
	cmd.Flags().StringVar(&with.report, "foreground", "", "do it in this process, reporting under that `name`")
	return cmd
}

// supervise is the unit's side of an activation.
func (n *app) supervise(ctx context.Context, generation int, with activation) error {
	s := supervise.Supervisor{
		Node:   n.node(),
		Target: node.Target{Generation: generation, Digest: fleet.Digest(with.digest), Commit: with.commit},
		Report: node.ReportID(with.report),
		Within: with.within,
		Tell: func(e protocol.Event) {
			if e.Step != "" { // for the unit's own log
				fmt.Fprintf(n.Stdout, "%s %s\n", e.Step, e.Text)
			}
		},
	}
	return n.exit(s.Run(ctx))
}

// detach is the operator's side: it starts the unit, or finds it running, and
// follows it. The unit runs the very file that runs here, which is none of the
// generation that is to come: a broken binary there breaks no way back.
func (n *app) detach(ctx context.Context, generation int, with activation) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	on := n.node()
	id, err := on.Detach(ctx, generation, func(id node.ReportID) []string {
		return []string{
			executable, "node", "--by", n.by, "--root", n.root, "--await", n.await.String(),
			"activate", "--foreground", string(id), "--digest", with.digest,
			"--confirm-within", with.within.String(), "--commit", with.commit, "--", strconv.Itoa(generation),
		}
	})
	if err != nil {
		return n.exit(err)
	}
	return n.follow(ctx, on, generation, id)
}

func (n *app) follow(ctx context.Context, on *node.Node, generation int, id node.ReportID) error {
	out, err := on.Follow(ctx, generation, id, func(line []byte) error {
		_, err := n.Stdout.Write(append(line, '\n'))
		return err
	})
	if err != nil {
		return err
	}
	if out.Error == "" {
		return nil
	}
	err = errors.New(out.Error)
	for _, h := range slices.Backward(out.Hints) {
		err = hint.Wrap(err, "%s", h)
	}
	return err
}

func (n *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait N",
		Short: "Follow the activation of generation N that runs or ran here",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			generation, err := generationArg(args[0])
			if err != nil {
				return err
			}
			on := n.node()
			id, err := on.LastReport(generation)
			if err != nil {
				return err
			}
			return n.follow(cmd.Context(), on, generation, id)
		},
	}
}

func (n *app) confirmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm N",
		Short: "Generation N stays: going back leads to it from the next",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			generation, err := generationArg(args[0])
			if err != nil {
				return err
			}
			return n.locked(cmd.Context(), "confirm "+args[0], func(h *node.Held) error {
				if err := h.Reports().Pause(cmd.Context(), "confirm", func(string) {}); err != nil {
					return err
				}
				at, err := h.Confirm(generation)
				if err != nil {
					return err
				}
				return n.answer(protocol.Standing{Hello: hello(), Current: at})
			})
		},
	}
}

func (n *app) backCommand() *cobra.Command {
	var with activation
	cmd := &cobra.Command{
		Use:   "back",
		Short: "Put the generation before in force again, as activate does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			previous, err := n.node().Previous()
			if err != nil {
				return err
			}
			return n.detach(cmd.Context(), previous, with)
		},
	}
	with.flags(cmd)
	return cmd
}

func (n *app) inviteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "invite",
		Short: "Hand an invitation, on stdin, to this node's agent",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var i fleet.Invitation
			if err := json.NewDecoder(io.LimitReader(n.Stdin, 64<<10)).Decode(&i); err != nil {
				return fmt.Errorf("invitation: %w", err)
			}
			if err := n.node().Invite(cmd.Context(), i); err != nil {
				return err
			}
			return n.answer(protocol.Done{Hello: hello()})
		},
	}
}

func generationArg(s string) (int, error) {
	g, err := strconv.Atoi(s)
	if err != nil || g < 1 || strconv.Itoa(g) != s {
		return 0, fmt.Errorf("%q: not a generation's number", s)
	}
	return g, nil
}
