// Package ingresscmd is `moggy ingress`: the daemon on an ingress node, what systemd
// runs before it, and what it says of itself. The work is package ingress'.
package ingresscmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/ingress"
	"github.com/moggyfleet/moggy/internal/ingress/certstore"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// memory is where the collector of the ingress works harder, in bytes: agent
// and ingress together stay under 120 MB.
const memory = 72 << 20

const secretsPath = "/run/moggy-ingress/secrets"

// New is the command. The daemon writes to log, and calls ready when it serves.
func New(a *cli.App, log func() *slog.Logger, ready func(string)) *cobra.Command {
	opt := ingress.Options{Version: a.Version, HTTPPort: 80, HTTPSPort: 443, Notify: ready}
	cmd := &cobra.Command{
		Use:   "ingress",
		Short: "Answer HTTPS for the fleet's services (run by systemd)",
		Long: `Answer HTTPS for the fleet's services on an ingress node: find which service a
request is for and which of its instances are well, get certificates and share
them with the other ingress nodes.

systemd runs it (moggy-ingress.service). It reads one file, which SIGHUP makes it
read again, and needs no scheduler, no operator and no other node. What it knows
is at /run/moggy-ingress/ingress.sock; "moggy ingress status" shows it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt.Log = log()
			return run(cmd.Context(), opt)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opt.ConfigPath, "config", fleet.IngressConfigPath, "the routes, as moggy apply writes them (`file`)")
	flags.StringVar(&opt.SecretsPath, "secrets", secretsPath, "what this node shares with each other ingress node (`file`)")
	flags.StringVar(&opt.SocketPath, "socket", fleet.IngressSocket, "where to answer questions (`path`)")
	flags.StringVar(&opt.StateDir, "state", os.Getenv("STATE_DIRECTORY"), "where certificates are kept (`directory`)")
	flags.StringVar(&opt.SitesDir, "sites", fleet.SitesDir, "where the folders of static services are (`directory`)")
	flags.IntVar(&opt.HTTPPort, "http-port", opt.HTTPPort, "`port` of HTTP, which leads to HTTPS")
	flags.IntVar(&opt.HTTPSPort, "https-port", opt.HTTPSPort, "`port` of HTTPS")
	cmd.AddCommand(newKeysCommand(), newStatusCommand(a))
	return cmd
}

func run(ctx context.Context, opt ingress.Options) error {
	debug.SetMemoryLimit(memory)
	if opt.StateDir == "" {
		return hint.New("the ingress does not know where to keep certificates", "systemctl start moggy-ingress, or give --state a directory")
	}
	in := ingress.New(opt)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for range hup {
			_ = in.Reload(ctx) // it is in the log
		}
	}()
	err := in.Run(ctx)
	if errors.Is(err, os.ErrPermission) {
		return hint.Wrap(err, "the ingress needs CAP_NET_BIND_SERVICE: systemctl start moggy-ingress")
	}
	return err
}

// newKeysCommand is what systemd runs as root before the ingress: the
// ingress, which the internet talks to, is not to see the mesh's private key.
func newKeysCommand() *cobra.Command {
	var config, key, out string
	cmd := &cobra.Command{
		Use:    "keys",
		Short:  "Derive what this node shares with each other ingress node (run by systemd)",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE:   func(*cobra.Command, []string) error { return writeKeys(config, key, out) },
	}
	flags := cmd.Flags()
	flags.StringVar(&config, "config", fleet.IngressConfigPath, "the routes, as moggy apply writes them (`file`)")
	flags.StringVar(&key, "key", "/var/lib/moggy/keys/mesh.key", "this node's private key (`file`)")
	flags.StringVar(&out, "out", secretsPath, "where to write it, for the owner of the directory alone (`file`)")
	return cmd
}

func writeKeys(config, key, out string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var cfg fleet.IngressConfig
	if err := json.Unmarshal(text, &cfg); err != nil {
		return fmt.Errorf("%s: %w", config, err)
	}
	if text, err = os.ReadFile(key); err != nil {
		return err
	}
	own, err := wire.ParsePrivateKeys(text)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	secrets, listed, err := certstore.DeriveAll(own, cfg)
	if err != nil {
		return err
	}
	if !listed {
		return fmt.Errorf("%s: no ingress node has this machine's key, which is %s", config, own[0].Public())
	}
	if text, err = json.Marshal(secrets); err != nil {
		return err
	}
	return writeForOwner(out, text)
}

// writeForOwner writes a file that only the owner of its directory reads: systemd
// made that for the unit's user, whose number nobody knows before.
func writeForOwner(path string, text []byte) error {
	st, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(0o400))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // nothing is left to do when it was replaced
	if _, err := f.Write(text); err != nil {
		return err
	}
	if owner, ok := st.Sys().(*syscall.Stat_t); ok && os.Getuid() == 0 {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return f.CloseAtomicallyReplace()
}

func newStatusCommand(a *cli.App) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Routes, backends and certificates, as this node's ingress sees them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ingress.Ask(cmd.Context(), socket)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
				return hint.Wrap(fmt.Errorf("no ingress runs here: %w", err), "on an ingress node: systemctl status moggy-ingress")
			}
			if err != nil {
				return err
			}
			e := json.NewEncoder(a.Stdout)
			e.SetIndent("", "  ")
			return e.Encode(s)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", fleet.IngressSocket, "where the ingress answers (`path`)")
	return cmd
}
