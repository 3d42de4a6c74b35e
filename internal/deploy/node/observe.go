package node

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"github.com/moggyfleet/moggy/internal/deploy/node/host"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Look says what an observation is to include beyond the usual.
type Look struct {
	// Deep reads every managed file rather than believe what was known of its
	// inode.
	Deep bool
	// Content are managed paths whose content is wanted.
	Content []string
}

// Observe says where the node stands. It changes nothing but a cache, needs no
// lock, and works while an activation runs. What cannot be learned is missing
// from the answer; an error means that our own directory makes no sense.
func (n *Node) Observe(ctx context.Context, look Look) (fleet.Observed, error) {
	o := fleet.Observed{
		Version: fleet.ObservedVersion, Moggy: n.version, Protocol: protocol.Version,
		System: n.host.System(), HostKeys: n.host.Keys(), Kept: n.generations(), Activation: n.pending(),
	}
	o.System.DiskTotal, o.System.DiskFree, _ = host.Space(n.disk, Dir) // stays 0
	var err error
	if o.MeshKey, err = n.MeshKey(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	if o.Current, err = n.where(); err != nil {
		return o, err
	}
	m := empty()
	if o.Current.Number > 0 {
		if m, err = n.manifest(o.Current.Number); err == nil {
			o.Manifest = &m
		}
	}
	var wait sync.WaitGroup
	wait.Go(func() { o.Mesh = n.agent().Status(ctx) })
	wait.Go(func() { o.Missing = n.host.Missing(ctx, m.Packages) })
	wait.Go(func() { o.Units = n.unitStates(ctx, m) })
	wait.Go(func() { o.Failing = n.health.Failing(ctx, m.Checks) })
	wait.Go(func() { o.Probation = n.onProbation(ctx) })
	v := n.store.Cache(look.Deep)
	o.Drift = n.drift(v, m)
	o.Contents = n.contents(m, look.Content)
	v.Save() //nolint:errcheck // a full or read-only disk makes looking slower, not impossible
	wait.Wait()
	return o, nil
}

// contents are the managed files among the paths that may be shown.
func (n *Node) contents(m fleet.Manifest, paths []string) map[string]string {
	out := make(map[string]string)
	for _, path := range paths {
		if f, ok := m.File(path); ok && !f.Secret {
			if text, ok := n.shown(path); ok {
				out[path] = text
			}
		}
	}
	return out
}

func (n *Node) unitStates(ctx context.Context, m fleet.Manifest) []fleet.UnitState {
	states, err := n.states(ctx, m)
	if err != nil {
		return nil
	}
	out := make([]fleet.UnitState, len(states))
	for i, s := range states {
		out[i] = fleet.UnitState{Name: m.Units[i].Name, Active: s.Active, Sub: s.Sub, Restarts: s.Restarts}
		if s.ActiveFor > 0 {
			out[i].Since = n.now().Add(-s.ActiveFor).UTC()
		}
	}
	return out
}
