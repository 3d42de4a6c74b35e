// Package examine looks at the machine that is a node, for moggy doctor: what
// the node observes of itself, and beside it the kernel, mounts, ports, clock,
// logs. It changes nothing. Each fact is learned by itself and in bounded
// time, so that a machine that is half broken still says the other half; what
// the facts mean is decided elsewhere.
package examine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/command"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// patience bounds one fact, overall all of them together: an answer that comes
// late is of no use to somebody who waits for it.
const (
	patience = 4 * time.Second
	overall  = 6 * time.Second
)

// logLines is how much of a failed unit's log is told.
const logLines = 8

// Examiner is what an examination is made with.
type Examiner struct {
	Root string // "/", or another directory in tests
	Run  command.Runner
	Now  func() time.Time
	// Log returns the last lines of a unit's log.
	Log func(ctx context.Context, unit string, lines int) []string
	// Observe says where the node stands (package node).
	Observe func(context.Context) (fleet.Observed, error)
}

// fact is one thing to learn. It writes to the examination through keep alone.
type fact struct {
	name  string
	learn func(context.Context) (keep func(*fleet.Examination), err error)
}

// Examine gathers all facts, side by side.
func (x Examiner) Examine(ctx context.Context) fleet.Examination {
	ctx, stop := context.WithTimeoutCause(ctx, overall, errLate)
	defer stop()
	g := gathering{out: fleet.Examination{
		Protocol: protocol.Version, Version: fleet.ExaminationVersion, Unknown: make(map[string]string),
	}}
	observed := make(chan fleet.Observed, 1)
	facts := []fact{
		{"observed", func(ctx context.Context) (func(*fleet.Examination), error) {
			defer close(observed)
			o, err := x.Observe(ctx)
			if err != nil {
				return nil, err
			}
			observed <- o
			return func(e *fleet.Examination) { e.Observed = &o }, nil
		}},
		{"logs", func(ctx context.Context) (func(*fleet.Examination), error) { return x.logs(ctx, observed) }},
		{"peers", x.peers},
		{"kernel", x.kernel},
		{"systemd", x.manager},
		{"mounts", x.mounts},
		{"ports", x.ports},
		{"ntp", ntp},
	}
	var wg sync.WaitGroup
	for _, f := range facts {
		wg.Go(func() { g.gather(ctx, f) })
	}
	wg.Wait()
	return g.end(x.Now().UTC())
}

var errLate = errors.New("not learned in time")

type gathering struct {
	mu    sync.Mutex // guards out
	out   fleet.Examination
	ended bool
}

// gather learns one fact. What does not come in time (a file system that hangs
// cannot be interrupted) is given up, and what it says later is not heard.
func (g *gathering) gather(ctx context.Context, f fact) {
	ctx, stop := context.WithTimeoutCause(ctx, patience, errLate)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		keep, err := learn(ctx, f)
		g.mu.Lock()
		defer g.mu.Unlock()
		switch {
		case g.ended:
		case err != nil:
			g.out.Unknown[f.name] = err.Error()
		default:
			keep(&g.out)
		}
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	grace := time.NewTimer(time.Second / 2) // for those that heed the context
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
		g.mu.Lock()
		defer g.mu.Unlock()
		g.out.Unknown[f.name] = errLate.Error()
	}
}

// learn takes a panic for an error: one strange file must not cost all facts.
func learn(ctx context.Context, f fact) (keep func(*fleet.Examination), err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return f.learn(ctx)
}

func (g *gathering) end(now time.Time) fleet.Examination {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	g.out.Clock = now
	if e := g.out.Observed; e != nil && g.out.Echoes != nil && e.Mesh == nil {
		g.out.Echoes = nil // the agent ended in between
	}
	return g.out
}

func (x Examiner) real(path string) string { return filepath.Join(x.Root, path) }

// logs are the last lines of the units that do not run as they should.
func (x Examiner) logs(ctx context.Context, observed <-chan fleet.Observed) (func(*fleet.Examination), error) {
	var o fleet.Observed
	select {
	case o = <-observed: // the zero one, of which there are no units, where there was an error
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var out []fleet.UnitLog
	for _, u := range o.Units {
		if u.Active != "active" || u.Restarts > 0 {
			out = append(out, fleet.UnitLog{Unit: u.Name, Lines: x.Log(ctx, u.Name, logLines)})
		}
	}
	return func(e *fleet.Examination) { e.Logs = out }, nil
}

// manager asks systemd how it is. It says so with an exit code, too.
func (x Examiner) manager(ctx context.Context) (func(*fleet.Examination), error) {
	out, err := x.Run(ctx, nil, "systemctl", "is-system-running")
	words := command.LastLines(out, 1)
	if len(words) == 0 {
		return nil, errors.Join(errors.New("systemd does not answer"), err)
	}
	return func(e *fleet.Examination) { e.Systemd = words[0] }, nil
}
