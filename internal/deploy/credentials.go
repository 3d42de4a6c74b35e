package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/moggyfleet/moggy/internal/deploy/cluster"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/engine/nomad"
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
	nodes := planned(p)
	c := cluster.Credentials{Fleet: d.Fleet, Lock: d.Lock(), Now: time.Now, Ask: d.asker()}
	lacking := slices.DeleteFunc(c.Lacking(), func(name fleet.NodeName) bool {
		n := nodes[name]
		return n.Seen() == nil // it did not answer
	})
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

// Jobs are the fleet's services on its Nomad; nil where it has none, or none yet.
// Whoever has them closes them.
func (d *Deployment) Jobs(ctx context.Context) (*cluster.Jobs, []*api.Job, error) {
	if d.Fleet.Scheduler != fleet.Nomad {
		return nil, nil, nil
	}
	lock := d.Lock()
	want := nomad.New(d.Fleet, lock, d.Engines[nomadEngine], d.Programs).Jobs()
	j, err := cluster.Connect(ctx, d.Fleet, lock, func(ctx context.Context, n fleet.NodeName, in io.Reader, out io.Writer) error {
		t := d.target(n)
		return said(t.run.Run(ctx, n, ssh.Command{Args: t.command("nomad"), Stdin: in, Stdout: out}))
	})
	return j, want, err
}
