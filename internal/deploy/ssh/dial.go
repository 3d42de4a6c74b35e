package ssh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// route returns a way to the node that works. Ways are tried in order, the
// next beside the one before as soon as that is slow, and the first to answer
// is kept for the commands that follow.
func (c *Client) route(ctx context.Context, node fleet.NodeName) (Route, error) {
	c.mu.Lock()
	r, ok := c.ready[node]
	routes := c.routes[node]
	c.mu.Unlock()
	if ok {
		return r, nil
	}
	if len(routes) == 0 {
		return Route{}, &Unreachable{Node: node}
	}
	r, err := c.race(ctx, node, routes)
	if err != nil {
		return Route{}, err
	}
	c.mu.Lock()
	c.ready[node] = r
	c.mu.Unlock()
	return r, nil
}

func (c *Client) race(ctx context.Context, node fleet.NodeName, routes []Route) (Route, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	type answer struct {
		route Route
		err   error
	}
	answers := make(chan answer, len(routes))
	var failed []error
	pending := 0
	next := time.NewTimer(0)
	defer next.Stop()
	for i := 0; ; {
		select {
		case <-next.C:
			if i < len(routes) {
				r := routes[i]
				go func() { answers <- answer{r, c.exec(ctx, r, Command{Args: []string{"true"}})} }()
				i++
				pending++
				next.Reset(hedge)
			}
		case a := <-answers:
			pending--
			if a.err == nil {
				return a.route, nil
			}
			failed = append(failed, a.err)
			if final(a.err) {
				return Route{}, &Unreachable{node, failed}
			}
			next.Reset(0)
		}
		if i == len(routes) && pending == 0 {
			return Route{}, &Unreachable{node, failed}
		}
	}
}

// HostKeys asks the node for the key it shows to somebody who knows none, over
// each straight route in turn. Nobody logs in, nothing is sent.
func (c *Client) HostKeys(ctx context.Context, node fleet.NodeName) ([]string, error) {
	c.mu.Lock()
	routes := slices.Clone(c.routes[node])
	c.mu.Unlock()
	var failed []error
	for _, r := range routes {
		keys, err := c.hostKeys(ctx, r)
		if len(keys) > 0 {
			return keys, nil
		}
		failed = append(failed, err)
	}
	return nil, &Unreachable{node, failed}
}

func (c *Client) hostKeys(ctx context.Context, r Route) ([]string, error) {
	dir, err := os.MkdirTemp(c.dir, "first-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "known_hosts")
	err = c.exec(ctx, r, Command{Args: []string{"true"}, Fresh: true},
		"-o", "UserKnownHostsFile="+file, "-o", "StrictHostKeyChecking=accept-new", "-o", "HashKnownHosts=no",
		"-o", "PreferredAuthentications=none")
	b, readErr := os.ReadFile(file)
	if readErr != nil {
		return nil, err
	}
	var keys []string
	for line := range strings.Lines(string(b)) {
		if _, key, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			keys = append(keys, key)
		}
	}
	return keys, err
}

// ExitError is a command that ran and failed.
type ExitError struct {
	Code   int
	Args   []string
	Stderr string
}

func (e *ExitError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("%s: exit code %d", strings.Join(e.Args, " "), e.Code)
	}
	return e.Stderr
}

// Unreachable is a node that no route leads to; Tried says why not, for each.
type Unreachable struct {
	Node  fleet.NodeName
	Tried []error
}

func (e *Unreachable) Error() string {
	if len(e.Tried) == 0 {
		return "no way to it: it has no address outside the mesh, and no hub is up"
	}
	return e.Tried[0].Error()
}

// Unwrap gives the reasons of all routes.
func (e *Unreachable) Unwrap() []error { return e.Tried }

// connectionError is ssh's own failure.
type connectionError struct {
	route  Route
	reason string
}

func (e *connectionError) Error() string {
	where := e.route.Host
	if e.route.Jump != "" {
		where += " through " + string(e.route.Hub)
	}
	if e.reason == "" {
		return "ssh " + where + ": connection lost"
	}
	return "ssh " + where + ": " + e.reason
}

// final says whether trying another route would be wrong or useless: somebody
// answered, and it is about who they or we are.
func final(err error) bool {
	var c *connectionError
	return errors.As(err, &c) && (denied(c) || changed(c))
}

func denied(c *connectionError) bool { return strings.Contains(c.reason, "Permission denied") }

func changed(c *connectionError) bool {
	return strings.Contains(c.reason, "Host key verification failed")
}

// Explain adds to a failure to reach a node what its operator can do.
func Explain(node fleet.NodeName, user string, err error) error {
	var c *connectionError
	if !errors.As(err, &c) {
		return err
	}
	switch {
	case changed(c):
		return hint.Wrap(err, "%s shows another host key than fleet.lock.hcl holds: if it was reinstalled, remove host_keys from its block there; if not, somebody is in between", node)
	case denied(c):
		return hint.Wrap(err, "your key must be among %s's authorized keys on %s, and in your agent if it has a passphrase: ssh-add", user, node)
	}
	return err
}
