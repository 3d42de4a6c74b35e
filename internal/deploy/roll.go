package deploy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
)

// roll takes a rollout's actions to the machines. What is slow runs in
// goroutines, whose events come back into one loop; the loop alone talks to
// the machine.
type roll struct {
	d      *Deployment
	m      *rollout.Machine
	nodes  map[fleet.NodeName]plan.NodePlan
	events chan rollout.Event
	over   chan struct{}
	wait   sync.WaitGroup

	mu sync.Mutex                   // guards by
	by map[fleet.NodeName]time.Time // until when each waits for its confirmation, by its clock
}

// roll carries a rollout through. The error is a *Stopped.
func (d *Deployment) roll(ctx context.Context, work []rollout.Node, nodes map[fleet.NodeName]plan.NodePlan, h *holds, o Options) error {
	r := &roll{
		d: d, nodes: nodes, m: rollout.New(d.rollout(work, o)),
		events: make(chan rollout.Event), over: make(chan struct{}), by: make(map[fleet.NodeName]time.Time),
	}
	doing, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer kill(nil)
	err := r.loop(ctx, doing, h, o, kill)
	close(r.over)
	kill(nil)
	r.wait.Wait()
	stopped := &Stopped{Failed: Failed{}, Stands: r.m.Standing(), Interrupted: ctx.Err() != nil}
	bad := stopped.Interrupted || err != nil
	for _, s := range stopped.Stands {
		if s.Err != nil {
			stopped.Failed[s.Node], bad = s.Err, true
		}
	}
	if !bad {
		return nil
	}
	stopped.Cause = err
	return stopped
}

func (d *Deployment) rollout(work []rollout.Node, o Options) rollout.Options {
	ro := rollout.Options{Nodes: work, Soak: o.Soak}
	roles := d.Fleet.Roles()
	for _, n := range d.Fleet.Nodes {
		ro.Members = append(ro.Members, n.Name)
		if roles[n.Name].Hub {
			ro.Hubs = append(ro.Hubs, n.Name)
		}
		if roles[n.Name].Server {
			ro.Servers = append(ro.Servers, n.Name)
		}
	}
	return ro
}

// loop hands events in and takes actions out until the rollout is over. The
// error is about the operator's side: a lock that cannot be kept, a hold lost.
func (r *roll) loop(ctx, doing context.Context, h *holds, o Options, kill context.CancelCauseFunc) error {
	var failed []error
	interrupt := ctx.Done()
	tick := time.NewTimer(time.Hour)
	defer tick.Stop()
	actions := r.m.Start(time.Now())
	for {
		for _, a := range actions {
			if err := r.begin(doing, a); err != nil {
				failed = append(failed, err)
			}
		}
		if len(failed) > 0 && !r.m.Over() {
			r.more(doing, rollout.Event{Kind: rollout.Interrupt}, &failed)
		}
		if r.m.Over() {
			return errors.Join(failed...)
		}
		if at := r.m.Wake(); !at.IsZero() {
			tick.Reset(time.Until(at))
		}
		e := rollout.Event{Kind: rollout.Interrupt}
		select {
		case e = <-r.events:
		case <-tick.C:
			e.Kind = rollout.Tick
		case err := <-h.lost:
			failed = append(failed, err)
		case <-interrupt:
			interrupt = nil
			if o.Told != nil {
				o.Told(r.underWay())
			}
		case <-o.Kill:
			kill(errKilled)
			return errors.Join(append(failed, errKilled, r.d.learn(func(*fleet.Lock) {}))...)
		}
		actions = r.m.Handle(time.Now(), e)
	}
}

var errKilled = errors.New("left at once: what was under way ends by itself")

// more hands an event in whose actions are done here.
func (r *roll) more(doing context.Context, e rollout.Event, failed *[]error) {
	for _, a := range r.m.Handle(time.Now(), e) {
		if err := r.begin(doing, a); err != nil {
			*failed = append(*failed, err)
		}
	}
}

func (r *roll) underWay() []fleet.NodeName {
	var out []fleet.NodeName
	for _, s := range r.m.Standing() {
		if s.State == rollout.Unconfirmed {
			out = append(out, s.Node)
		}
	}
	return out
}

// begin starts an action, or does it where it takes no time.
func (r *roll) begin(ctx context.Context, a rollout.Action) error {
	switch a.Kind {
	case rollout.Save:
		return r.d.learn(func(*fleet.Lock) {})
	case rollout.Forget:
		r.d.note(func(l *fleet.Lock) { l.Remove(a.Node) })
		r.d.Progress.Done(string(a.Node), "forgotten")
		return nil
	case rollout.Prepare, rollout.Activate, rollout.Look, rollout.Watch, rollout.Confirm, rollout.Await:
	}
	r.wait.Go(func() {
		e := r.do(ctx, a)
		e.Node = a.Node
		if e.Err != nil {
			if cause := context.Cause(ctx); cause != nil {
				e.Err = cause
			}
			e.Err = ssh.Explain(a.Node, r.d.user(a.Node), e.Err)
			r.d.Progress.Fail(string(a.Node), e.Err)
		}
		select {
		case r.events <- e:
		case <-r.over:
		}
	})
	return nil
}

// do does what an action asks for, and says how it went.
func (r *roll) do(ctx context.Context, a rollout.Action) rollout.Event {
	n := r.nodes[a.Node]
	switch a.Kind {
	case rollout.Prepare:
		var err error
		if len(n.Packages) > 0 {
			err = r.d.packages(ctx, n)
		}
		if err == nil {
			err = r.d.images(ctx, n)
		}
		if err == nil {
			err = r.d.stage(ctx, n)
		}
		return rollout.Event{Kind: rollout.Prepared, Err: err}
	case rollout.Activate:
		out, err := r.d.activate(ctx, n, a.Within)
		r.mu.Lock()
		r.by[a.Node] = out.ConfirmBy
		r.mu.Unlock()
		return rollout.Event{Kind: rollout.Activated, Err: err, WentBack: out.WentBack, Unknown: lost(err)}
	case rollout.Look:
		names := a.Nodes
		if names == nil {
			names = r.d.known()
		}
		r.d.Progress.Step(string(a.Node), "looking at what depends on it")
		return rollout.Event{Kind: rollout.Looked, Seen: r.d.look(ctx, names)}
	case rollout.Watch:
		r.d.Progress.Step(string(a.Node), "watching its new moggy")
		back, err := r.d.watch(ctx, n)
		return rollout.Event{Kind: rollout.Watched, Err: err, WentBack: back}
	case rollout.Confirm:
		r.mu.Lock()
		by := r.by[a.Node]
		r.mu.Unlock()
		err := r.d.confirm(ctx, n, a.Within, by)
		return rollout.Event{Kind: rollout.Confirmed, Err: err, WentBack: wentBack(err)}
	case rollout.Await:
		r.d.Progress.Step(string(a.Node), "waiting until it goes back by itself")
		return rollout.Event{Kind: rollout.Settled, WentBack: r.d.await(ctx, n, a.Within)}
	case rollout.Forget, rollout.Save:
	}
	return rollout.Event{}
}
