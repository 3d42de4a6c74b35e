// Package supervise is what runs in an activation's unit on a node: it puts a
// generation in force, and watches over it until its operator has confirmed it
// or the node has gone back. How either is done, package node knows.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Supervisor watches over one activation. It may be killed at any instant and
// run again, by the unit it runs in, with the same fields:
//
//	                      ┌── failed ──▶ went back, or still as before ──▶ end
//	locked: activate 42 ──┤
//	                      └── in force ──▶ end, confirm by T ──▶ probation
//	                                                             │
//	            over ◀── confirmed, or another in force ─────────┤
//	    ┌── locked: went back to 41 ──▶ end ◀── T, or a crash ───┘
//
// On probation it has no lock: whoever confirms, or brings another generation,
// must have it.
type Supervisor struct {
	Node   *node.Node
	Target node.Target
	// Report is where it says what it does; Tell is told the same.
	Report node.ReportID
	Tell   func(protocol.Event)
	// Within is how long the generation may stay without being confirmed, from
	// the report's end; 0 means for ever.
	Within time.Duration
}

// lookEvery is how often a generation on probation is looked at: a crash is to
// be seen before systemd has restarted the unit often enough to look well.
const lookEvery = 250 * time.Millisecond

// stopped is how long a unit may be on its way up or down without having
// crashed: somebody may be restarting it by hand.
const stopped = 5 * time.Second

// Run puts the target in force and watches over it. The error says why the
// target is not in force at the end.
func (s *Supervisor) Run(ctx context.Context) error {
	on := s.Node
	s.Target.Probation = s.Within > 0
	s.Target.Again = on.Reports().Begun(s.Report)
	report, done, err := on.Reports().Open(s.Report)
	if err != nil {
		return err
	}
	tell := s.Tell
	s.Tell = func(e protocol.Event) {
		report(e)
		tell(e)
	}
	p, err := s.begin(ctx)
	if err == nil && p != nil {
		err = s.watch(ctx, p)
	}
	return errors.Join(err, done())
}

// begin activates and ends the report, or goes on with the probation that a
// killed process left. The probation is nil where there is nothing to watch.
func (s *Supervisor) begin(ctx context.Context) (*node.Probation, error) {
	on := s.Node
	if p := on.Probation(); s.Target.Again && p != nil && p.Generation == s.Target.Generation && on.Waits(p) {
		if !on.Reports().Ended(s.Report) {
			s.Tell(on.End(protocol.Outcome{Generation: p.Generation, Changed: true, ConfirmBy: p.Until}, nil))
		}
		return p, nil
	}
	var p *node.Probation
	var out protocol.Outcome
	err := s.locked(ctx, func(h *node.Held) (err error) {
		if out, err = h.Try(ctx, s.Target, s.Tell); err != nil || s.Within <= 0 {
			return err
		}
		if p, err = h.Probate(ctx, s.Target, s.Within); err != nil {
			p = nil
			out, err = h.GoBack(ctx, fmt.Errorf("probation: %w", err), s.Target.Commit, s.Tell)
			return err
		}
		if p != nil {
			out.ConfirmBy = p.Until
		}
		return nil
	})
	s.Tell(on.End(out, err))
	return p, err
}

func (s *Supervisor) locked(ctx context.Context, work func(*node.Held) error) (err error) {
	h, err := s.Node.Lock(ctx, fmt.Sprintf("activate %d", s.Target.Generation))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Release()) }()
	return work(h)
}

// watch returns when the probation is over, however it ended.
func (s *Supervisor) watch(ctx context.Context, p *node.Probation) error {
	err := s.Node.Reports().Pause(ctx, "probation", func(text string) { s.say(text) })
	if err != nil {
		return err
	}
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	w := watcher{Supervisor: s, down: make(map[string]time.Duration)}
	for {
		over, why := w.judge(ctx, p)
		if why != nil {
			over, err = s.goBack(ctx, p, why)
		}
		if over {
			return errors.Join(err, s.Node.EndProbation())
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Supervisor) say(text string) {
	s.Tell(protocol.Event{Hello: protocol.Hello{Protocol: protocol.Version}, At: time.Now(), Step: "probation", Text: text})
}

// goBack leaves the generation, unless it was confirmed, or another was put in
// force, before we had the lock. Over is false where somebody else has it: what
// they do may settle the matter.
func (s *Supervisor) goBack(ctx context.Context, p *node.Probation, why error) (over bool, err error) {
	h, err := s.Node.Lock(ctx, fmt.Sprintf("go back from %d", p.Generation))
	if errors.Is(err, node.ErrLocked) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	defer func() { err = errors.Join(err, h.Release()) }()
	if !s.Node.Waits(p) {
		return true, nil
	}
	s.say(why.Error())
	out, err := h.GoBack(ctx, why, p.Commit, s.Tell)
	for range tries {
		if out.WentBack || ctx.Err() != nil {
			break
		}
		s.say(err.Error())
		if err := pause(ctx, betweenTries); err != nil {
			break
		}
		t := s.Target
		t.Again = true
		out, err = h.Try(ctx, t, s.Tell)
	}
	if ctx.Err() == nil {
		s.Tell(s.Node.End(out, err))
	}
	return true, err
}

// tries is how often more going back is tried where it fails, as it does on a
// full disk, and betweenTries how long it waits before each.
const (
	tries        = 10
	betweenTries = 2 * time.Second
)

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watcher remembers what the last looks saw.
type watcher struct {
	*Supervisor
	down map[string]time.Duration // since when a unit is not active, by the node's clock
}

// judge looks how the generation does: over when there is nothing to watch any
// more; why it must go back where it must.
func (w *watcher) judge(ctx context.Context, p *node.Probation) (over bool, why error) {
	if !w.Node.Waits(p) {
		return true, nil
	}
	now := w.Node.Clock()
	for _, u := range w.Node.Units(ctx, p.Generation) {
		if why := w.unit(u, p, now); why != nil {
			return false, w.Node.Logged(ctx, why, u.Name)
		}
	}
	if now >= p.Deadline {
		return false, hint.New(fmt.Sprintf("generation %d: nobody confirmed it in time", p.Generation),
			"with it in force its operator did not come back to this node: look at what it changed about ssh, firewalls, the mesh")
	}
	return false, nil
}

// unit says what is wrong with a unit, nil if nothing.
func (w *watcher) unit(u fleet.UnitState, p *node.Probation, now time.Duration) error {
	switch {
	case u.Restarts > p.Restarts[u.Name]:
		return fmt.Errorf("unit %s: crashed while generation %d waited to be confirmed", u.Name, p.Generation)
	case u.Active == "failed":
		return fmt.Errorf("unit %s: failed while generation %d waited to be confirmed", u.Name, p.Generation)
	case u.Active == "active" || u.Active == "reloading" || !p.Running[u.Name]:
		delete(w.down, u.Name)
		return nil
	}
	since, known := w.down[u.Name]
	if !known {
		w.down[u.Name] = now
		return nil
	}
	if now-since < stopped {
		return nil
	}
	return fmt.Errorf("unit %s: %s (%s) while generation %d waited to be confirmed", u.Name, u.Active, u.Sub, p.Generation)
}
