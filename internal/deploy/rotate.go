package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan"
)

// rotations bounds what one change of a key may take: more would be going in
// circles.
const rotations = 8

// speaksWithin is how long a node has to say that it goes by its new key.
const speaksWithin = 10 * time.Second

// Rotate gives a node a new mesh key, or goes on with that: each round is an
// apply, which round is told of before it begins. What is next is plan.Rotation's to
// say; whatever ends this early, the node is known by the key that it goes by.
func (d *Deployment) Rotate(ctx context.Context, name fleet.NodeName, o Options, round func(n int, p *plan.Plan)) error {
	named := false
	for range rotations {
		p, speaks, err := d.rotation(ctx, name, o)
		if err != nil {
			return err
		}
		entry := d.Lock().Node(name)
		next := plan.NextOfRotation(entry, speaks, !p.Changes() && complete(p))
		if next < plan.Drop {
			if err := everybody(p); err != nil {
				return err
			}
		}
		switch next {
		case plan.Fresh:
			err = d.newKey(ctx, entry, p)
		case plan.Teach:
			round(1, p)
			_, err = d.Apply(ctx, p, o)
		case plan.Name:
			named = true
			err = d.learn(func(l *fleet.Lock) { l.Put(plan.Named(entry)) })
		case plan.Switch:
			if !named { // by somebody who was cut short: does everybody know the key?
				err = d.learn(func(l *fleet.Lock) { l.Put(plan.Unnamed(entry)) })
				break
			}
			err = d.switchKey(ctx, name, o, round)
		case plan.Drop:
			err = d.learn(func(l *fleet.Lock) { l.Put(plan.Dropped(entry)) })
		case plan.Forget:
			round(3, p)
			if p, err = d.Apply(ctx, p, o); err == nil {
				return forgotten(p, name)
			}
		case plan.Done:
			return d.learn(func(l *fleet.Lock) { plan.Forgotten(l) })
		}
		if err != nil {
			return err
		}
	}
	return hint.New(fmt.Sprintf("%s: its key does not change: somebody else applies meanwhile", name), "moggy status; then moggy rotate %s", name)
}

// rotation looks at the fleet, and by which key the node goes.
func (d *Deployment) rotation(ctx context.Context, name fleet.NodeName, o Options) (*plan.Plan, fleet.Key, error) {
	seen, err := d.Observe(ctx, observeTimeout)
	if err != nil {
		return nil, fleet.Key{}, err
	}
	node := seen[name].Seen
	switch {
	case node == nil:
		return nil, fleet.Key{}, hint.New(fmt.Sprintf("%s does not answer: %s", name, seen[name].Problem), "moggy doctor %s", name)
	case node.Mesh == nil:
		return nil, fleet.Key{}, hint.New(fmt.Sprintf("%s: its agent does not answer", name), "moggy doctor %s", name)
	}
	p, err := d.compute(seen, nil, o)
	return p, node.Mesh.Key, err
}

// everybody is an error where somebody could not be told of a new key.
func everybody(p *plan.Plan) error {
	names := p.Unreachable()
	if len(names) == 0 {
		return nil
	}
	return hint.New("could not be reached, and would not know the new key: "+strings.Join(names, ", "),
		"rotate when they are back, or when they have left the file")
}

// newKey has the node make its next key.
func (d *Deployment) newKey(ctx context.Context, entry fleet.NodeLock, p *plan.Plan) error {
	if p.Changes() {
		return hint.New("the fleet is not as its file says: a new key is not to be mixed with other changes", "moggy apply, then moggy rotate %s", entry.Name)
	}
	d.Progress.Step(string(entry.Name), "making its next key")
	key, err := d.target(entry.Name).nextKey(ctx, entry.MeshKey, entry.NextKey)
	if err != nil {
		return err
	}
	entry.NextKey = key
	return d.learn(func(l *fleet.Lock) { l.Put(entry) })
}

// switchKey has the node go by its new key.
func (d *Deployment) switchKey(ctx context.Context, name fleet.NodeName, o Options, round func(int, *plan.Plan)) error {
	o.Only = []fleet.NodeName{name}
	p, _, err := d.rotation(ctx, name, o)
	if err != nil {
		return err
	}
	round(2, p)
	if _, err := d.Apply(ctx, p, o); err != nil {
		return err
	}
	until := time.Now().Add(speaksWithin)
	for ctx.Err() == nil {
		_, speaks, err := d.rotation(ctx, name, o)
		switch {
		case err == nil && speaks == d.Lock().Node(name).MeshKey:
			return nil
		case time.Now().After(until):
			return errors.Join(err, hint.New(fmt.Sprintf("%s goes by its old key still", name), "moggy ssh %s -- journalctl -u moggy-agent -n 50", name))
		}
		pause(ctx, time.Second/2)
	}
	return context.Cause(ctx)
}

// forgotten is an error where somebody still takes the old key for good.
func forgotten(p *plan.Plan, name fleet.NodeName) error {
	for _, n := range p.Nodes {
		if n.Action == plan.ActionUnreachable {
			return hint.New(fmt.Sprintf("%s could not be reached, and takes the old key of %s for good until it is", n.Node, name),
				"when it is back, moggy rotate %s", name)
		}
	}
	return nil
}
