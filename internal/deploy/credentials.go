package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/cluster"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan"
)

// credentials completes what nodes need to trust each other, and returns the plan
// with what was learned in it. Nodes that do not answer go without for now.
func (d *Deployment) credentials(ctx context.Context, p *plan.Plan, o Options) (*plan.Plan, error) {
	if d.Fleet.Scheduler == fleet.Nomad {
		if err := cluster.AtHand(d.Lock(), "Nomad", d.Engines[nomadEngine].Digest); err != nil {
			return p, err
		}
	}
	here := answering(p)
	c := cluster.Credentials{Fleet: d.Fleet, Lock: d.Lock(), Now: time.Now, Ask: d.asker()}
	lacking := slices.DeleteFunc(c.Lacking(), func(n fleet.NodeName) bool { return !slices.Contains(here, n) })
	failed := d.each(ctx, lacking, func(ctx context.Context, name fleet.NodeName) error {
		ctx, stop := context.WithTimeoutCause(ctx, contactTimeout, errors.New("making its authority took too long"))
		defer stop()
		d.Progress.Step(string(name), "making its authority for certificates")
		ca, err := c.Authority(ctx, name)
		if err != nil {
			return err
		}
		d.note(func(l *fleet.Lock) {
			n := l.Node(name)
			n.CA = ca
			l.Put(n)
		})
		return nil
	})
	if err := failed.err(); err != nil {
		return p, err
	}
	if d.Fleet.Scheduler == fleet.Nomad {
		if err := c.Secrets(ctx); err != nil {
			return p, err
		}
	}
	if len(lacking) == 0 {
		return p, nil
	}
	seen, err := d.Observe(ctx, observeTimeout)
	if err != nil {
		return p, err
	}
	return d.compute(seen, nil, o)
}

// answering are the nodes that said how they are.
func answering(p *plan.Plan) []fleet.NodeName {
	var out []fleet.NodeName
	for _, n := range p.Nodes {
		if n.Seen() != nil {
			out = append(out, n.Node)
		}
	}
	return out
}

// asker runs moggy node on nodes for package cluster.
func (d *Deployment) asker() cluster.Asker {
	return func(ctx context.Context, node fleet.NodeName, stdin io.Reader, args ...string) ([]byte, error) {
		out, err := d.target(node).output(ctx, false, stdin, args...)
		if err != nil {
			return nil, fmt.Errorf("moggy node %s: %w", args[0], err)
		}
		return out, nil
	}
}
