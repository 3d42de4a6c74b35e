package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
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

// Try is Activate that goes back by itself when it fails: to the generation
// that was confirmed last, or where none was, to the one that was in force.
// Where there is none, it stays.
//
//	                 ┌─ ok ──────────────────────────────▶ in force
//	activate 42 ─────┤
//	                 └─ failed ─┬─ nothing was touched ──▶ still 41
//	                            ├─ before the switch ────▶ 41 put right again
//	                            └─ after it ─────────────▶ went back to 41
func (h *Held) Try(ctx context.Context, t Target, report func(protocol.Event)) (protocol.Outcome, error) {
	before, err := h.linked()
	if err != nil {
		return protocol.Outcome{}, err
	}
	out := protocol.Outcome{Generation: before}
	was := h.underWay()
	if t.Again {
		if out, done, err := h.goOn(ctx, t, was, report); done {
			return out, err
		}
	}
	if was != nil {
		before = was.From
	}
	out.Changed, err = h.Activate(ctx, t, report)
	now, lerr := h.linked()
	if lerr == nil {
		out.Generation = now
	}
	if err == nil || lerr != nil || ctx.Err() != nil {
		return out, err
	}
	j := h.underWay()
	if j == nil || j.Generation != t.Generation { // it did not even begin
		return out, err
	}
	to := h.good()
	if to == 0 || to == t.Generation {
		to = before
	}
	untouched := was == nil && (j.Step == StepVerify || j.Step == StepRecord)
	if untouched || to == 0 || to == t.Generation {
		h.remember(fleet.Turn{Kind: fleet.TurnFailed, Generation: t.Generation, From: before, Commit: t.Commit, Why: err.Error()})
		if untouched {
			err = errors.Join(err, h.disk.Remove(journalFile))
		}
		return out, err
	}
	back := &wayBack{From: t.Generation, Never: now != t.Generation || before == t.Generation, Why: err.Error(), Hints: hint.All(err)}
	return h.goBack(ctx, to, back, t.Commit, err, report)
}

// goOn finishes what was begun for a target before the process was killed, if
// that is past activating it. Done is false where it is not.
func (h *Held) goOn(ctx context.Context, t Target, was *journal, report func(protocol.Event)) (out protocol.Outcome, done bool, err error) {
	if was != nil && was.Back != nil && was.Back.From == t.Generation {
		out, err = h.goBack(ctx, was.Generation, was.Back, was.Commit, was.Back.error(), report)
		return out, true, err
	}
	var st state
	if was != nil || h.readJSON(stateFile, &st) != nil || st.Left == nil || st.Left.From != t.Generation {
		return out, false, nil
	}
	if now, err := h.linked(); err != nil || now != st.Current {
		return out, false, nil //nolint:nilerr // what it is, activating says
	}
	out = protocol.Outcome{Generation: st.Current, WentBack: true, Changed: true}
	return out, true, fmt.Errorf("went back to generation %d: %w", st.Current, st.Left.error())
}

// error is why, with the hints it had.
func (b *wayBack) error() error {
	err := errors.New(b.Why)
	for _, h := range slices.Backward(b.Hints) {
		err = hint.Wrap(err, "%s", h)
	}
	return err
}

// GoBack leaves the generation in force for the one that was confirmed last,
// because of why.
func (h *Held) GoBack(ctx context.Context, why error, commit string, report func(protocol.Event)) (protocol.Outcome, error) {
	from, err := h.linked()
	if err != nil {
		return protocol.Outcome{}, err
	}
	to := h.good()
	if to == 0 || to == from {
		return protocol.Outcome{Generation: from}, fmt.Errorf("generation %d: there is none to go back to: %w", from, why)
	}
	return h.goBack(ctx, to, &wayBack{From: from, Why: why.Error(), Hints: hint.All(why)}, commit, why, report)
}

func (h *Held) goBack(
	ctx context.Context, to int, back *wayBack, commit string, why error, report func(protocol.Event),
) (protocol.Outcome, error) {
	_, err := h.Activate(ctx, Target{Generation: to, Commit: commit, back: back}, report)
	out := protocol.Outcome{Generation: to, Changed: true}
	now, lerr := h.linked()
	if lerr == nil {
		out.Generation = now
	}
	if out.Generation != to || h.underWay() != nil {
		return out, errors.Join(why, fmt.Errorf("going back: %w", err))
	}
	if err != nil { // it is in force, and as well as it can be
		why = errors.Join(why, fmt.Errorf("going back: %w", err))
	}
	if back.Never {
		return out, why
	}
	out.WentBack = true
	return out, fmt.Errorf("went back to generation %d: %w", to, why)
}
