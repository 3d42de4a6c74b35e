package node

import (
	"fmt"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Confirm says that the generation in force stays: going back will return to
// it from the next. What is not needed any more is removed.
func (h *Held) Confirm(generation int) (fleet.GenerationState, error) {
	at, err := h.where()
	switch {
	case err != nil:
		return at, err
	case generation != at.Number:
		return at, hint.New(fmt.Sprintf("confirm: generation %d is not in force, %d is", generation, at.Number),
			"moggy status; then moggy apply")
	}
	if p := h.pending(); p != nil {
		return at, hint.New(fmt.Sprintf("confirm: generation %d is not wholly in force: its activation ended at %s", generation, p.Step),
			"moggy apply finishes it")
	}
	if generation > 0 && (!at.Confirmed || !h.marked(generation)) {
		mark := h.now().UTC().Format(time.RFC3339) + " " + h.by + "\n"
		if err := h.settleOn(generation, mark); err != nil {
			return at, readOnlyHint(fmt.Errorf("confirm: generation %d: %w", generation, err))
		}
		turn := fleet.Turn{Kind: fleet.TurnConfirmed, Generation: generation}
		if p := h.Probation(); p != nil && p.Generation == generation {
			turn.Commit = p.Commit
		}
		h.remember(turn)
		at.Confirmed = true
	}
	if err := h.key().Follow(fleet.AgentConfigPath); err != nil {
		return at, readOnlyHint(err)
	}
	if err := h.disk.RemoveTree(firstDir); err != nil { // the generation has its own
		return at, fmt.Errorf("prune: %w", err)
	}
	if err := h.Prune(); err != nil {
		return at, fmt.Errorf("prune: %w", err)
	}
	return at, nil
}

// Prune removes generations beyond the last three, and content that none of the
// rest needs. The generation in force, the one before it, the one confirmed last
// and that of an unfinished activation always stay.
func (h *Held) Prune() error {
	at, err := h.where()
	if err != nil {
		return err
	}
	keep := []int{at.Number, at.Previous, h.good()}
	if p := h.pending(); p != nil {
		keep = append(keep, p.Generation, p.From)
	}
	slices.Sort(keep)
	keep = slices.Compact(keep)
	all := h.generations()
	for _, g := range slices.Backward(all) {
		if len(slices.DeleteFunc(slices.Clone(keep), func(g int) bool { return g == 0 })) >= keptGenerations {
			break
		}
		if !slices.Contains(keep, g) {
			keep = append(keep, g)
		}
	}
	var rest []fleet.Manifest
	for _, g := range all {
		if !slices.Contains(keep, g) {
			if err := h.disk.RemoveTree(generationDir(g)); err != nil {
				return err
			}
			continue
		}
		m, err := h.manifest(g)
		if err != nil {
			return err // what it needs is not known: remove no content
		}
		rest = append(rest, m)
	}
	if err := h.store.Prune(rest); err != nil {
		return err
	}
	return h.store.Cache(false).Forget(storeDir, generationsDir)
}
