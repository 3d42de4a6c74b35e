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

// route returns a way to the node that works, and keeps it for the commands
// that follow. A node with an address of its own is tried there first, then
// over the mesh through each hub in turn.
func (c *Client) route(ctx context.Context, node fleet.NodeName) (Route, error) {
	c.mu.Lock()
	ready, ok := c.ready[node]
	routes := c.routes[node]
	c.mu.Unlock()
	if ok {
		return ready, nil
	}
	var ways []way
	if len(routes) > 0 && routes[0].Jump == "" {
		ways = append(ways, func(ctx context.Context) (Route, error) { return c.straight(ctx, node) })
	}
	for _, r := range routes {
		if r.Jump != "" {
			ways = append(ways, func(ctx context.Context) (Route, error) { return c.through(ctx, r) })
		}
	}
	r, err := race(ctx, node, ways)
	if err == nil {
		c.keep(r)
	}
	return r, err
}

func (c *Client) keep(r Route) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready[r.Node] = r
}

// through tries a way over the mesh, over the connection to the hub that all
// share.
func (c *Client) through(ctx context.Context, r Route) (Route, error) {
	hub, err := c.straight(ctx, r.Hub)
	if err != nil {
		return r, err
	}
	r.Jump = hub.Alias
	return r, c.exec(ctx, r, Command{Args: []string{"true"}})
}

// dialling is an attempt to reach a node at its own addresses. Everybody who
// wants to go there, or through there, waits for the same one: many at once
// would be refused by its sshd (MaxStartups, sshd_config(5)).
type dialling struct {
	done  chan struct{}
	route Route
	err   error
}

// straight returns a way to the node without a hub.
func (c *Client) straight(ctx context.Context, node fleet.NodeName) (Route, error) {
	c.mu.Lock()
	if r, ok := c.ready[node]; ok && r.Jump == "" {
		c.mu.Unlock()
		return r, nil
	}
	var first Route // to name, if nobody answers
	if len(c.routes[node]) > 0 {
		first = c.routes[node][0]
	}
	d, under := c.dials[node]
	if !under {
		d = &dialling{done: make(chan struct{})}
		c.dials[node] = d
		var ways []way
		for _, r := range c.routes[node] {
			if r.Jump == "" {
				ways = append(ways, func(ctx context.Context) (Route, error) {
					return r, c.exec(ctx, r, Command{Args: []string{"true"}})
				})
			}
		}
		go c.dial(d, node, ways)
	}
	c.mu.Unlock()
	select {
	case <-d.done:
		return d.route, d.err
	case <-ctx.Done():
		return Route{}, &connectionError{first, context.Cause(ctx).Error()}
	}
}

func (c *Client) dial(d *dialling, node fleet.NodeName, ways []way) {
	ctx, stop := context.WithTimeoutCause(c.life, dialTimeout, errors.New("no answer"))
	defer stop()
	d.route, d.err = race(ctx, node, ways)
	if d.err == nil {
		c.keep(d.route)
	}
	c.mu.Lock()
	delete(c.dials, node)
	c.mu.Unlock()
	close(d.done)
}

// way tries to reach a node.
type way func(context.Context) (Route, error)

// race tries ways in order, the next beside the one before as soon as that is
// slow or fails. The first to answer wins.
func race(ctx context.Context, node fleet.NodeName, ways []way) (Route, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	type answer struct {
		route Route
		err   error
	}
	answers := make(chan answer, len(ways))
	var failed []error
	next := time.NewTimer(0)
	defer next.Stop()
	for begun := 0; len(failed) < len(ways); {
		select {
		case <-next.C:
			if begun < len(ways) {
				try := ways[begun]
				begun++
				go func() {
					r, err := try(ctx)
					answers <- answer{r, err}
				}()
				next.Reset(hedge)
			}
		case a := <-answers:
			if a.err == nil {
				return a.route, nil
			}
			failed = append(failed, a.err)
			if final(a.err) {
				return Route{}, &Unreachable{node, failed}
			}
			next.Reset(0)
		}
	}
	return Route{}, &Unreachable{node, failed}
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

// Denied says whether somebody answered and would not let us in.
func Denied(err error) bool {
	var d interface{ Denied() bool }
	return errors.As(err, &d) && d.Denied()
}

// Denied is for those who carry errors of ours without knowing them.
func (e *connectionError) Denied() bool { return denied(e) }

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
		return hint.Wrap(err, "%s shows another host key than fleet.lock.hcl holds: if it was installed anew, moggy forget %s, then apply; if not, somebody is in between", node, node)
	case denied(c):
		return hint.Wrap(err, "your key must be among %s's authorized keys on %s, and in your agent if it has a passphrase: ssh-add", user, node)
	}
	return err
}
