package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Previous is the generation that going back returns to.
func (n *Node) Previous() (int, error) {
	at, err := n.where()
	switch {
	case err != nil:
		return 0, err
	case at.Number == 0:
		return 0, errors.New("back: no generation is in force")
	case at.Previous == 0:
		return 0, hint.New(fmt.Sprintf("back: there is no generation before %d on this node", at.Number),
			"put the fleet file right and apply")
	}
	return at.Previous, nil
}

// Back puts the generation before in force again.
func (h *Held) Back(ctx context.Context, report func(protocol.Event)) (generation int, err error) {
	generation, err = h.Previous()
	if err != nil {
		return 0, err
	}
	_, err = h.Activate(ctx, Target{Generation: generation}, report)
	return generation, err
}

// Try is Activate that goes back by itself when a newer generation was switched
// to and its units do not run. Where nothing was in force before, it stays.
func (h *Held) Try(ctx context.Context, t Target, report func(protocol.Event)) (protocol.Outcome, error) {
	before, err := h.linked()
	if err != nil {
		return protocol.Outcome{}, err
	}
	out := protocol.Outcome{Generation: before}
	out.Changed, err = h.Activate(ctx, t, report)
	now, lerr := h.linked()
	if lerr == nil {
		out.Generation = now
	}
	if err == nil || lerr != nil || now <= before || before == 0 || ctx.Err() != nil {
		return out, err
	}
	if _, back := h.Activate(ctx, Target{Generation: before}, report); back != nil {
		return out, errors.Join(err, fmt.Errorf("going back: %w", back))
	}
	out.Generation, out.WentBack = before, true
	return out, fmt.Errorf("went back to generation %d: %w", before, err)
}
