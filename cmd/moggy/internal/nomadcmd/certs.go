package nomadcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/certs"
	engine "github.com/moggyfleet/moggy/internal/engine/certs"
)

// NewCerts is moggy certs; log is what its lines are written with.
func NewCerts(log func() *slog.Logger) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Keep this node's certificates fresh (run by systemd)",
		Long: `Keep this node's certificates fresh: those by which Nomad's agents and servers
know each other. A server signs its own, and those of the others, who ask it over
the mesh; each is good for three days and renewed after one.`,
	}
	cmd.AddCommand(newRunCommand(log), newExecCommand())
	return cmd
}

func newRunCommand(log func() *slog.Logger) *cobra.Command {
	o := certs.Options{Now: time.Now}
	var config, key string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Renew them, and sign others' where this node is a server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Log = log()
			text, err := os.ReadFile(config)
			if err != nil {
				return err
			}
			if err := json.Unmarshal(text, &o.Config); err != nil {
				return fmt.Errorf("%s: %w", config, err)
			}
			if o.Authority, err = os.ReadFile(key); err != nil {
				return err
			}
			d, err := certs.New(o)
			if err != nil {
				return err
			}
			return d.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&config, "config", engine.ConfigPath, "who is in the fleet, as moggy apply writes it (`file`)")
	cmd.Flags().StringVar(&key, "authority", filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), "ca.pem"), "this node's authority (`file`)")
	cmd.Flags().StringVar(&o.Dir, "state", os.Getenv("STATE_DIRECTORY"), "where certificates are kept (`directory`)")
	return cmd
}

func newExecCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exec -- PROGRAM [ARG...]",
		Short: "Wait for this node's certificate, then become a program that needs it",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := certs.Wait(cmd.Context(), engine.NomadPair, time.Now); err != nil {
				if errors.Is(err, context.Canceled) {
					return nil // told to stop before there was one
				}
				return err
			}
			return syscall.Exec(args[0], args, os.Environ())
		},
	}
}
