package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	rules "github.com/moggyfleet/moggy/internal/engine/firewall"
	"github.com/moggyfleet/moggy/internal/firewall"
)

func newFirewallCommand(a *app) *cobra.Command {
	k := firewall.Keeper{Notify: notifySystemd}
	cmd := &cobra.Command{
		Use:   "firewall",
		Short: "Keep this node's access rules in force (run by systemd)",
		Long: `Keep the access rules of this node in force: load them into an nftables table of
our own, and again when somebody changes or deletes it. No other table is touched.

systemd runs it (moggy-firewall.service) on nodes that an allow block of fleet.hcl
leads to. SIGHUP makes it start anew, with the rules in force all the while.
Stopped, it takes the table away.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k.Log = slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
			return runFirewall(cmd.Context(), k)
		},
	}
	cmd.Flags().StringVar(&k.Rules, "rules", rules.RulesPath, "what nft is given, as moggy apply writes it (`file`)")
	return cmd
}

// runFirewall keeps the rules. Asked to reload, it becomes the moggy that is in
// force by then: so neither another file nor another binary leaves the node
// without rules for a moment.
func runFirewall(ctx context.Context, k firewall.Keeper) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	for {
		err := k.Run(ctx, hup)
		if !errors.Is(err, firewall.ErrReload) {
			return err
		}
		if filepath.IsAbs(os.Args[0]) { // as systemd starts it
			signal.Ignore(syscall.SIGHUP) // the next one would kill us until it is heard again
			return syscall.Exec(os.Args[0], os.Args, os.Environ())
		}
	}
}
