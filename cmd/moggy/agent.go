package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/mesh"
)

// Bounds of the agent's memory. What WireGuard holds while packets are under way
// is bounded (mesh/link), to some 75 MB with all else of a small fleet: the limit
// is for what is beyond, and well above, because a collector that runs all the time
// costs a third of the throughput.
const (
	agentMemory = 112 << 20 // bytes, soft
	agentGOGC   = 50        // percent
)

func newAgentCommand(a *app) *cobra.Command {
	opt := mesh.Options{Version: version}
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Keep this node on the mesh (run by systemd)",
		Long: `Keep this node on the mesh: bring its interface up, find the best path to every
other node, relay for others where this node is a hub.

systemd runs it (moggy-agent.service). It reads one file, which SIGHUP makes it
read again, and needs no name server, no operator and no other node. What it
knows is at /run/moggy/agent.sock; wg(8) shows the interface as well.

Where a network driver spoils packets that the kernel takes or gives several at a
time (UDP GSO and GRO), MOGGY_NO_OFFLOAD=1 in its environment does without.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt.Log = slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
			return runAgent(cmd.Context(), opt)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opt.ConfigPath, "config", fleet.AgentConfigPath, "the mesh, as moggy apply writes it (`file`)")
	flags.StringVar(&opt.KeyPath, "key", agentKeyPath(), "this node's private key (`file`)")
	flags.StringVar(&opt.GatewayKeyPath, "gateway-key", "", "the private key that all hubs serve devices with (`file`)")
	flags.StringVar(&opt.SocketPath, "socket", fleet.AgentSocket, "where to answer questions (`path`)")
	flags.StringVar(&opt.StateDir, "state", os.Getenv("STATE_DIRECTORY"), "what must outlive a restart (`directory`)")
	flags.StringVar(&opt.Interface, "interface", fleet.MeshInterface, "`name` of the network interface")
	return cmd
}

// agentKeyPath is where systemd puts the key (LoadCredential), or where it is
// kept.
func agentKeyPath() string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		return filepath.Join(dir, "mesh.key")
	}
	return "/var/lib/moggy/keys/mesh.key"
}

// withoutTime leaves the time to the journal.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 && os.Getenv("JOURNAL_STREAM") != "" {
		return slog.Attr{}
	}
	return a
}

func runAgent(ctx context.Context, opt mesh.Options) error {
	debug.SetGCPercent(agentGOGC)
	debug.SetMemoryLimit(agentMemory)
	opt.Notify = ready
	opt.NoOffload = os.Getenv("MOGGY_NO_OFFLOAD") == "1"
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil {
		opt.Watchdog = time.Duration(usec) * time.Microsecond / 2
	}
	agent := mesh.New(opt)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for range hup {
			_ = agent.Reload(ctx) // it is in the log
		}
	}()
	err := agent.Run(ctx)
	if errors.Is(err, os.ErrPermission) {
		return hint.Wrap(err, "the agent needs CAP_NET_ADMIN: systemctl start moggy-agent")
	}
	return err
}

// notifySystemd tells systemd of our state (sd_notify(3)); without systemd, or
// if it does not listen, nothing happens.
func notifySystemd(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
