package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan"
)

// Apply carries the plan out, wave by wave, and returns the plan it ended
// with: after first contact it is made anew, since keys that nobody knew are
// in it. A node that fails stops its own steps and every wave that follows;
// the others keep what they have. The error holds a Failed.
func (d *Deployment) Apply(ctx context.Context, p *plan.Plan) (*plan.Plan, error) {
	names := contacts(p)
	if len(names) == 0 {
		return p, d.waves(ctx, p)
	}
	failed := d.each(ctx, names, d.contact)
	if len(failed) == len(names) {
		return p, failed.err()
	}
	seen, err := d.Observe(ctx, observeTimeout)
	if err != nil {
		return p, err
	}
	again, err := d.Plan(ctx, seen)
	if err != nil {
		return p, err
	}
	return again, errors.Join(failed.err(), d.waves(ctx, again))
}

func contacts(p *plan.Plan) []fleet.NodeName {
	var out []fleet.NodeName
	for _, w := range p.Waves {
		for _, s := range w {
			if s.Kind == plan.StepContact {
				out = append(out, s.Node)
			}
		}
	}
	return out
}

func (d *Deployment) waves(ctx context.Context, p *plan.Plan) error {
	if err := d.learn(func(*fleet.Lock) {}); err != nil { // addresses, and who joined
		return err
	}
	nodes := make(map[fleet.NodeName]plan.NodePlan, len(p.Nodes))
	for _, n := range p.Nodes {
		nodes[n.Node] = n
	}
	for _, wave := range p.Waves {
		steps := make(map[fleet.NodeName][]plan.Step)
		var names []fleet.NodeName
		for _, s := range wave {
			if s.Kind == plan.StepContact {
				continue // failed just now; the next apply tries again
			}
			if len(steps[s.Node]) == 0 {
				names = append(names, s.Node)
			}
			steps[s.Node] = append(steps[s.Node], s)
		}
		failed := d.each(ctx, names, func(ctx context.Context, name fleet.NodeName) error {
			for _, s := range steps[name] {
				if err := d.step(ctx, s, nodes[name]); err != nil {
					return err
				}
			}
			return nil
		})
		if err := failed.err(); err != nil {
			return err
		}
	}
	return nil
}

func (d *Deployment) step(ctx context.Context, s plan.Step, n plan.NodePlan) error {
	switch s.Kind {
	case plan.StepPackages:
		return d.packages(ctx, n)
	case plan.StepStage:
		return d.stage(ctx, n)
	case plan.StepActivate:
		return d.activate(ctx, n)
	case plan.StepConfirm:
		return d.confirm(ctx, n)
	case plan.StepForget:
		return d.learn(func(l *fleet.Lock) { l.Remove(n.Node) })
	case plan.StepContact:
	}
	return fmt.Errorf("step %s: not to be done here", s.Kind)
}

func (d *Deployment) packages(ctx context.Context, n plan.NodePlan) error {
	ctx, stop := context.WithTimeoutCause(ctx, packagesTimeout, errors.New("installing packages took too long"))
	defer stop()
	d.Progress.Step(string(n.Node), "installing "+strings.Join(n.Packages, ", "))
	_, err := d.target(n.Node).packages(ctx, n.Packages)
	return err
}

func (d *Deployment) stage(ctx context.Context, n plan.NodePlan) error {
	ctx, stop := context.WithTimeoutCause(ctx, stageTimeout, errors.New("bringing the files took too long"))
	defer stop()
	d.Progress.Step(string(n.Node), fmt.Sprintf("staging generation %d", n.To))
	tell := func(text string) {
		d.Progress.Step(string(n.Node), fmt.Sprintf("staging generation %d: %s", n.To, text))
	}
	return d.target(n.Node).stage(ctx, n.Manifest, d.opener(n), tell)
}

// opener finds content by digest, in the plan or among the binaries.
func (d *Deployment) opener(n plan.NodePlan) func(fleet.Digest) (io.ReadCloser, int64, error) {
	return func(want fleet.Digest) (io.ReadCloser, int64, error) {
		if r, n, ok := d.Binaries.open(want); ok {
			return r, n, nil
		}
		i := slices.IndexFunc(n.Want, func(f fleet.File) bool { return f.Digest == want && f.Content != nil })
		if i < 0 {
			return nil, 0, fmt.Errorf("the node asks for content that nobody has: %.12s", want)
		}
		b := n.Want[i].Content
		return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
	}
}

// activate puts the generation in force and stays with it to its end. The
// node goes on by itself when the connection is lost, which a change to the
// mesh can do; then we look for it again.
func (d *Deployment) activate(ctx context.Context, n plan.NodePlan) error {
	ctx, stop := context.WithTimeoutCause(ctx, activateTimeout, errors.New("activation took too long"))
	defer stop()
	number := strconv.Itoa(n.To)
	d.Progress.Step(string(n.Node), "activating generation "+number)
	tell := func(text string) { d.Progress.Step(string(n.Node), "activating generation "+number+": "+text) }
	err := d.target(n.Node).follow(ctx, tell, "activate", number, "--digest", string(protocol.DigestOf(n.Manifest)))
	until := time.Now().Add(reattach)
	for lost(err) && ctx.Err() == nil && time.Now().Before(until) {
		d.Progress.Step(string(n.Node), "connection lost, looking for it again")
		pause(ctx, time.Second)
		err = d.target(n.Node).follow(ctx, tell, "wait", number)
	}
	return err
}

// confirm tells the node that its operator can still reach it.
func (d *Deployment) confirm(ctx context.Context, n plan.NodePlan) error {
	ctx, stop := context.WithTimeoutCause(ctx, confirmTimeout, errors.New("it could not be reached again after the change"))
	defer stop()
	d.Progress.Step(string(n.Node), "confirming over a fresh connection")
	err := d.target(n.Node).confirm(ctx, n.To)
	for lost(err) && ctx.Err() == nil {
		pause(ctx, time.Second)
		err = d.target(n.Node).confirm(ctx, n.To)
	}
	if err != nil {
		return fmt.Errorf("generation %d is in force, but unconfirmed: %w", n.To, err)
	}
	d.Progress.Done(string(n.Node), fmt.Sprintf("generation %d", n.To))
	return d.learn(func(l *fleet.Lock) {
		entry := l.Node(n.Node)
		entry.Generation = n.To
		l.Put(entry)
		l.Generation = max(l.Generation, n.To)
	})
}

// lost says whether err is about the way to the node and not about the node.
func lost(err error) bool {
	var told *nodeError
	return err != nil && !errors.As(err, &told)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Error names each node that failed and why, in the order of their names.
func (f Failed) Error() string {
	names := make([]fleet.NodeName, 0, len(f))
	for n := range f {
		names = append(names, n)
	}
	slices.Sort(names)
	var out strings.Builder
	for i, n := range names {
		if i > 0 {
			out.WriteString("\n")
		}
		fmt.Fprintf(&out, "%s: %v", n, f[n])
	}
	return out.String()
}

// Unwrap gives the reasons, for their hints.
func (f Failed) Unwrap() []error {
	var out []error
	for _, err := range f {
		out = append(out, err)
	}
	return out
}

func (f Failed) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}
