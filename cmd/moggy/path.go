package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/status"
)

// pathWithin is how long a node has to answer: it probes all ways first.
const pathWithin = 10 * time.Second

func newPathCommand(a *app) *cobra.Command {
	here := false
	cmd := &cobra.Command{
		Use:   "path FROM TO",
		Short: "Show how one node reaches another, and why not a better way",
		Long: `Path asks a node, over ssh, how it reaches another over the mesh: which path is in
use and since when, its round-trip time and loss; then every other way: how long
ago it was proven, or why it cannot be used as far as the node knows; and how much
of their traffic each hub relayed. All ways are probed first. Each direction is chosen by its own sender: ask both.`,
		Example: `  moggy path bianco ari
  moggy path bianco ari --json | jq '.to.ways'`,
		Args: func(_ *cobra.Command, args []string) error {
			if here && len(args) == 1 || !here && len(args) == 2 {
				return nil
			}
			return hint.New("path needs two nodes", "moggy path FROM TO")
		},
		ValidArgsFunction: a.CompleteNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			if here {
				return pathHere(cmd.Context(), fleet.AgentSocket, args[0], a.Stdout)
			}
			p, err := a.path(cmd.Context(), fleet.NodeName(args[0]), fleet.NodeName(args[1]))
			if err != nil {
				return err
			}
			if a.JSON {
				return a.PrintJSON(p)
			}
			return p.Write(a.Stdout, a.Palette(a.Stdout))
		},
	}
	cmd.Flags().BoolVar(&here, "here", false, "on a node: ask its own agent")
	cmd.Flag("here").Hidden = true
	return cmd
}

// path asks a node.
func (a *app) path(ctx context.Context, from, to fleet.NodeName) (status.Path, error) {
	d, done, err := a.Deployment()
	if err != nil {
		return status.Path{}, err
	}
	defer done()
	if _, err := cli.Named(d.Fleet, from, to); err != nil {
		return status.Path{}, err
	}
	if from == to {
		return status.Path{}, hint.New("both are "+string(from), "moggy path FROM TO")
	}
	ctx, cancel := context.WithTimeout(ctx, pathWithin)
	defer cancel()
	out, err := d.SSH.Output(ctx, from, nil, agent.BinaryPath, "path", "--here", string(to))
	if err != nil {
		n, _ := d.Fleet.Node(from)
		return status.Path{}, unansweredPath(from, ssh.Explain(from, n.SSH.User, err))
	}
	p := status.Path{Version: status.PathVersion, From: from, At: time.Now()}
	if err := json.Unmarshal(out, &p.To); err != nil {
		return status.Path{}, fmt.Errorf("%s: what it said of its path: %w", from, err)
	}
	return p, nil
}

// unansweredPath says what the node's own moggy said, where that is the reason.
func unansweredPath(from fleet.NodeName, err error) error {
	var exit *ssh.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	text := strings.TrimSpace(exit.Stderr)
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	if strings.Contains(text, "unknown command") || strings.Contains(text, "unknown flag") {
		return hint.New(fmt.Sprintf("%s: its moggy is too old to say", from), "moggy apply")
	}
	return fmt.Errorf("%s: %s", from, strings.TrimPrefix(text, "moggy: error: "))
}

// maxWays bounds, in bytes, what an agent may say of one peer.
const maxWays = 1 << 20

// pathHere asks the agent on this machine, and prints its answer as it is.
func pathHere(ctx context.Context, socket, peer string, w io.Writer) error {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/ways/"+url.PathEscape(peer), nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("its agent does not answer: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxWays))
	switch {
	case err != nil:
		return fmt.Errorf("agent: %w", err)
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("its mesh has no node %s", peer)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("agent: %s", resp.Status)
	}
	_, err = w.Write(bytes.TrimSpace(b))
	return err
}
