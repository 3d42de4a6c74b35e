package ssh

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Trial is how one ssh went that was made to see how far it gets.
type Trial struct {
	Code   int // ssh's exit code; 255 is its own failure
	Stdout []byte
	Stderr string // the end of it, with what ssh -v says
	Late   bool   // the context ended first
}

// Ways lists the routes to a node, best first.
func (c *Client) Ways(node fleet.NodeName) []Route {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.routes[node])
}

// Try runs words as root over that very route, on a connection of its own, and
// has ssh say what it does. Its error says that there is no ssh to run.
func (c *Client) Try(ctx context.Context, r Route, limit int64, words ...string) (Trial, error) {
	c.running.Add(1)
	defer c.running.Done()
	args := []string{"-v", "-F", c.config, "-T", "-o", "ControlPath=none"}
	if r.Jump != "" {
		args = append(args, "-o", "ProxyJump="+r.Jump)
	}
	if r.User != "root" {
		words = append([]string{"sudo", "-n", "--"}, words...)
	}
	run := exec.CommandContext(ctx, "ssh", append(args, r.Alias, "--", Quote(words...))...)
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
	run.WaitDelay = killDelay
	var stderr tail
	stdout := head{most: limit}
	run.Stdout, run.Stderr = &stdout, &stderr
	err := run.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return Trial{}, hint.Wrap(err, "apt-get install openssh-client")
	}
	t := Trial{Stdout: stdout.Bytes(), Stderr: stderr.String(), Late: err != nil && ctx.Err() != nil}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Code = exit.ExitCode()
	} else if err != nil && !t.Late {
		return t, err
	}
	return t, nil
}

// Settings are what ssh makes of all configuration for a route (ssh -G): for
// each keyword, in lower case, its values.
func (c *Client) Settings(ctx context.Context, alias string) (map[string][]string, error) {
	out, err := exec.CommandContext(ctx, "ssh", "-F", c.config, "-G", alias).Output()
	if err != nil {
		return nil, err
	}
	settings := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			settings[key] = append(settings[key], value)
		}
	}
	return settings, nil
}

// head keeps the beginning of what is written to it, and one byte more.
type head struct {
	bytes.Buffer
	most int64
}

func (h *head) Write(p []byte) (int, error) {
	if room := h.most + 1 - int64(h.Len()); room < int64(len(p)) {
		h.Buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return h.Buffer.Write(p)
}
