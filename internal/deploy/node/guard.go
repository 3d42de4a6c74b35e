package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/node/systemd"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Guard is what stands before everything of ours when a machine starts, as
// protocol.GuardUnit. It runs from the generation that was confirmed last and
// puts that one in force: one that nobody confirmed is not booted twice, and
// an activation that a power loss cut short does not stay half done.
//
//	local-fs ─▶ moggy-guard ─▶ moggy-agent, sshd
//
// It asks systemd for nothing that waits for a unit, since units wait for it.
// Turned says whether there was anything to do.
func (h *Held) Guard(ctx context.Context, report func(protocol.Event)) (turned bool, err error) {
	current, err := h.linked()
	if err != nil {
		return false, err
	}
	j, good := h.underWay(), h.good()
	if j == nil && (good == 0 || good == current) {
		return false, nil
	}
	to := good
	if to == 0 {
		to = current // nothing to go back to: finish what was begun, as far as files go
	}
	if to == 0 {
		return false, nil
	}
	err = h.guardTo(ctx, to, h.interrupted(j, current, to), report)
	if err == nil || current == 0 || current == to {
		return true, err
	}
	if now, lerr := h.linked(); lerr == nil && now == to && h.underWay() == nil {
		return true, err // it is in force, and as well as it can be
	}
	// What was confirmed is damaged: the one in force is all there is.
	return true, errors.Join(err, h.guardTo(ctx, current, nil, report))
}

// interrupted says what a machine that starts with such a journal left, nil if
// nothing.
func (h *Held) interrupted(j *journal, current, to int) *wayBack {
	cut := "the machine went down before anybody confirmed it"
	if j != nil {
		cut = "the machine went down at step " + string(j.Step)
	}
	switch {
	case j != nil && j.Back != nil && j.Generation == to:
		return j.Back
	case current != to:
		return &wayBack{From: current, Why: cut}
	case j != nil && j.Generation != to:
		return &wayBack{From: j.Generation, Never: true, Why: cut}
	}
	return nil
}

func (h *Held) guardTo(ctx context.Context, to int, back *wayBack, report func(protocol.Event)) error {
	a, err := h.begin(Target{Generation: to, back: back}, report)
	if err != nil {
		return err
	}
	a.boot, a.journal.By = true, "boot"
	if a.journal.Back == nil {
		a.journal.Back = &wayBack{From: to} // nothing is looked at before the change
	}
	err = a.take(ctx, []activationStep{
		{StepVerify, a.verify},
		{StepRecord, a.record},
		{StepSwitch, a.switchOver},
		{StepLink, a.link},
		{StepUnlink, a.unlink},
		{StepReload, a.daemonReload},
		{StepStart, a.queue},
		{StepSettle, a.settle},
	})
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	return nil
}

// queue has systemd stop, start and restart what must be, without waiting. What
// runs already began with another generation's files.
func (a *activation) queue(ctx context.Context) error {
	gone, err := a.gone(ctx)
	if err != nil {
		return err
	}
	if err := a.systemd.Queue(ctx, systemd.Stop, gone...); err != nil {
		a.lame = append(a.lame, err)
	}
	var units []namedUnit
	todo := make(map[systemd.Verb][]string)
	ours := slices.DeleteFunc(slices.Clone(a.target.Units), func(u fleet.Unit) bool {
		return u.Foreign || u.Name == protocol.GuardUnit
	})
	states, err := a.states(ctx, fleet.Manifest{Units: ours})
	if err != nil {
		return err
	}
	for i, s := range states {
		verb := systemd.Start
		if s.Active == "active" || s.Active == "activating" || s.Active == "reloading" {
			verb = systemd.Restart
		}
		todo[verb] = append(todo[verb], s.Name)
		units = append(units, namedUnit{ours[i], s.Name})
	}
	for _, verb := range []systemd.Verb{systemd.Restart, systemd.Start} {
		if err := a.systemd.Queue(ctx, verb, todo[verb]...); err != nil {
			a.lame = append(a.lame, err)
		}
	}
	return a.running(units)
}

// Starting says whether the machine is starting: nothing of ours has run since.
// The next time it is asked, it is not.
func (n *Node) Starting() (bool, error) {
	if _, err := os.Lstat(n.disk.Real(runDir)); err == nil {
		return false, nil
	}
	return true, n.Reports().Make()
}
