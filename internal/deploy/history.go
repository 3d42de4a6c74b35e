package deploy

import (
	"context"
	"errors"
	"sync"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// History asks the nodes, or those named, what happened to their generations.
// Those that could not be asked are in the Failed.
func (d *Deployment) History(ctx context.Context, names ...fleet.NodeName) (map[fleet.NodeName][]fleet.Turn, Failed) {
	if len(names) == 0 {
		for _, l := range d.Lock().Nodes {
			if _, listed := d.Fleet.Node(l.Name); listed && !l.MeshKey.IsZero() {
				names = append(names, l.Name)
			}
		}
	}
	turns := make(map[fleet.NodeName][]fleet.Turn, len(names))
	var mu sync.Mutex
	failed := d.each(ctx, names, func(ctx context.Context, name fleet.NodeName) error {
		ctx, stop := context.WithTimeoutCause(ctx, observeTimeout, errors.New("no answer"))
		defer stop()
		h, err := ask[protocol.History](ctx, d.target(name), nil, "history")
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		turns[name] = h.Turns
		return nil
	})
	return turns, failed
}
