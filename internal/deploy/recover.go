package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Recover makes the lock anew from what the nodes themselves hold, where the
// one beside the file is lost: every node knows the mesh's ranges, and every
// member's addresses and public key. The deployment was opened with an empty
// lock. Nodes with a public address are asked first; their host keys are accepted
// as on first contact. Those behind them are met over the mesh, which proves
// who they are. It returns the nodes that could not be asked: what is known of
// them is in the lock all the same, but for their host keys.
func (d *Deployment) Recover(ctx context.Context) (Failed, error) {
	var direct []fleet.NodeName
	for _, n := range d.Fleet.Nodes {
		if n.Reachable() {
			direct = append(direct, n.Name)
		}
	}
	found := &recovered{seen: make(map[fleet.NodeName]*fleet.Observed)}
	failed := d.each(ctx, direct, func(ctx context.Context, name fleet.NodeName) error { return d.recall(ctx, name, true, found) })
	if found.mesh == nil {
		err := hint.New("none of the nodes that can be reached from here knows a mesh of fleet "+string(d.Fleet.Name),
			"a fleet that was never applied needs no lock: moggy apply writes the first")
		return failed, errors.Join(failed.err(), err)
	}
	if err := d.learn(func(l *fleet.Lock) { found.fill(l) }); err != nil {
		return failed, err
	}
	var behind []fleet.NodeName
	for _, m := range found.mesh.Nodes {
		if _, listed := d.Fleet.Node(m.Name); listed && found.seen[m.Name] == nil {
			behind = append(behind, m.Name)
		}
	}
	over := d.each(ctx, behind, func(ctx context.Context, name fleet.NodeName) error { return d.recall(ctx, name, false, found) })
	maps.Copy(failed, over)
	for name := range found.seen {
		delete(failed, name)
	}
	return failed, d.learn(func(l *fleet.Lock) { found.fill(l) })
}

// recovered is what the nodes remember.
type recovered struct {
	mu   sync.Mutex // guards all of it
	seen map[fleet.NodeName]*fleet.Observed
	mesh *fleet.AgentConfig // the newest
	from int                // the generation that it is of
}

// recall asks a node what it holds. Ask says whether the operator is asked about
// its host key.
func (d *Deployment) recall(ctx context.Context, name fleet.NodeName, ask bool, into *recovered) error {
	ctx, stop := context.WithTimeoutCause(ctx, contactTimeout, errors.New("no answer"))
	defer stop()
	d.Progress.Step(string(name), "asking for its host key")
	if err := d.recallKey(ctx, name, ask); err != nil {
		return err
	}
	d.Progress.Step(string(name), "asking what it knows of the mesh")
	o, err := d.target(name).observe(ctx, fleet.AgentConfigPath)
	if err != nil {
		return err
	}
	var cfg fleet.AgentConfig
	text, ok := o.Contents[fleet.AgentConfigPath]
	if !ok {
		return errors.New("it has no mesh of ours")
	}
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return fmt.Errorf("%s: %w", fleet.AgentConfigPath, err)
	}
	if cfg.Fleet != d.Fleet.Name {
		return hint.New(fmt.Sprintf("it is a node of fleet %s", cfg.Fleet), "look where its address leads")
	}
	into.mu.Lock()
	defer into.mu.Unlock()
	into.seen[name] = o
	if into.mesh == nil || o.Current.Number > into.from {
		into.mesh, into.from = &cfg, o.Current.Number
	}
	d.Progress.Done(string(name), fmt.Sprintf("stands on generation %d, knows %d members", o.Current.Number, len(cfg.Nodes)))
	return nil
}

// recallKey pins the node's host key: as on first contact, or, over the mesh, as
// it comes.
func (d *Deployment) recallKey(ctx context.Context, name fleet.NodeName, ask bool) error {
	if len(d.Lock().Node(name).HostKeys) > 0 {
		return nil
	}
	if ask {
		return d.pin(ctx, name)
	}
	keys, err := d.SSH.HostKeys(ctx, name)
	if err != nil {
		return err
	}
	return d.learn(func(l *fleet.Lock) {
		n := l.Node(name)
		n.HostKeys = keys
		l.Put(n)
	})
}

// fill writes into the lock what the nodes remember. Members that left the file
// are among it, so that the next apply removes them.
func (r *recovered) fill(l *fleet.Lock) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.Mesh = fleet.Ranges{V4: r.mesh.V4, V6: r.mesh.V6}
	for _, m := range r.mesh.Nodes {
		n := l.Node(m.Name)
		n.V4, n.V6, n.MeshKey, n.NextKey, n.OldKey = m.V4, m.V6, m.Key, m.Next, m.Old
		l.Put(n)
	}
	for name, o := range r.seen {
		n := l.Node(name)
		n.Arch, n.Generation = o.System.Arch, o.Current.Number
		if !o.MeshKey.IsZero() && o.MeshKey != n.NextKey && o.MeshKey != n.OldKey {
			n.MeshKey = o.MeshKey
		}
		l.Put(n)
		l.Generation = max(l.Generation, o.Current.Number, slices.Max(append(o.Kept, 0)))
	}
}
