package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/operate"
)

func newLogsCommand(a *app) *cobra.Command {
	var l operate.Logs
	var only string
	cmd := &cobra.Command{
		Use:   "logs SERVICE | NODE",
		Short: "Read what a service's instances say, from all nodes in one stream",
		Long: `Logs reads the journals of the nodes that a service runs on and puts the lines in
the order of their times; with a node's name, the lines of all of moggy's units
there. With --follow it stays, and finds a node again whose connection is lost.

A service and a node of the same name are service.NAME and node.NAME.`,
		Example: `  moggy logs web
  moggy logs web --follow --lines 0
  moggy logs web --node ari --since 2h
  moggy logs node.bianco --json | jq .text`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.CompleteSubject,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, done, err := a.Deployment()
			if err != nil {
				return err
			}
			defer done()
			s, err := operate.Find(d.Fleet, args[0], fleet.NodeName(only))
			if err != nil {
				return err
			}
			return l.Read(cmd.Context(), d.SSH, s, a.showLine(s), func(n fleet.NodeName, err error) {
				if err == nil {
					err = fmt.Errorf("%s: its journal ended", n)
				}
				fmt.Fprintf(a.Stderr, "moggy: %v; looking for it again\n", ssh.Explain(n, "root", err))
			})
		},
	}
	// -f is what everybody types for this one; the fleet's file is --file here.
	cmd.Flags().StringArrayVar(&a.Files, "file", []string{"fleet.hcl"}, "the fleet's `file`; give it again for more than one")
	cmd.Flags().BoolVarP(&l.Follow, "follow", "f", false, "stay, and show what comes")
	cmd.Flags().IntVarP(&l.Last, "lines", "n", 100, "the last so many `lines` of each node")
	cmd.Flags().DurationVar(&l.Since, "since", 0, "none older than that `time`: 2m, 1h30m")
	cmd.Flags().StringVar(&only, "node", "", "only the instance on this `node`")
	return cmd
}

// showLine prints one line of a log: when, where, what.
func (a *app) showLine(s operate.Subject) func(operate.Line) error {
	if a.JSON {
		out := json.NewEncoder(a.Stdout)
		return func(l operate.Line) error { return out.Encode(l) }
	}
	c := a.Palette(a.Stdout)
	width := 0
	for _, n := range s.Nodes {
		width = max(width, len(n))
	}
	return func(l operate.Line) error {
		where := fmt.Sprintf("%-*s", width, l.Node)
		if s.Service == "" {
			where = strings.TrimSuffix(strings.TrimPrefix(l.Unit, "moggy-"), ".service")
		}
		_, err := fmt.Fprintf(a.Stdout, "%s %s  %s\n", c.Dim(l.At.Local().Format(time.DateTime)), c.Strong(where), l.Text)
		return err
	}
}
