package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/ledger"
	"github.com/moggyfleet/moggy/internal/deploy/node/systemd"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

func (a *activation) daemonReload(ctx context.Context) error {
	loaded := ledger.LoadedPrint(a.target)
	if a.ledger.Loaded == loaded {
		return nil
	}
	if err := a.systemd.DaemonReload(ctx); err != nil {
		return err
	}
	a.ledger.Loaded = loaded
	return a.saveLedger(a.ledger)
}

// start does to each unit what its files ask for: one whose files changed since
// it was last started is restarted, one that does not run is started, one that
// only has to read a file again is reloaded.
func (a *activation) start(ctx context.Context) error {
	a.until = time.Now().Add(a.await)
	ctx, cancel := context.WithDeadline(ctx, a.until)
	defer cancel()
	todo, err := a.todo(ctx)
	if err != nil {
		return err
	}
	for _, verb := range []systemd.Verb{systemd.Restart, systemd.Start, systemd.Reload} {
		units := todo[verb]
		if len(units) == 0 {
			continue
		}
		names := make([]string, len(units))
		for i, u := range units {
			names[i] = u.called
		}
		if err := a.do(ctx, verb, names); err != nil {
			return err
		}
		a.did(StepStart, string(verb)+" "+strings.Join(names, ", "))
		if err := a.running(units); err != nil {
			return err
		}
	}
	return nil
}

// do does that to units. On the way back it waits for them no longer than it
// must, and one that fails does not keep the others from it.
func (a *activation) do(ctx context.Context, verb systemd.Verb, names []string) error {
	if a.journal.Back == nil {
		if err := a.systemd.Do(ctx, verb, names...); err != nil {
			return a.blame(ctx, err, names)
		}
		return nil
	}
	patient, cancel := context.WithTimeout(ctx, min(a.await, 2*hurry))
	defer cancel()
	if err := a.systemd.Do(patient, verb, names...); err != nil {
		a.lame = append(a.lame, a.blame(ctx, err, names))
	}
	return ctx.Err()
}

// namedUnit is a unit and what this machine calls it.
type namedUnit struct {
	fleet.Unit
	called string
}

// running writes down what units run with from now on.
func (a *activation) running(units []namedUnit) error {
	for _, u := range units {
		a.ledger.Units[u.Name] = ledger.PrintOf(a.target, u.Unit)
	}
	return a.saveLedger(a.ledger)
}

// todo sorts the units by what must be done to them.
func (a *activation) todo(ctx context.Context) (map[systemd.Verb][]namedUnit, error) {
	states, err := a.states(ctx, a.target)
	if err != nil {
		return nil, err
	}
	todo := make(map[systemd.Verb][]namedUnit)
	var idle []namedUnit
	for i, u := range a.target.Units {
		s, named := states[i], namedUnit{u, states[i].Name}
		had, known := a.ledger.Units[u.Name]
		want := ledger.PrintOf(a.target, u)
		switch {
		case had == want && (s.Runs() || u.Foreign):
		case u.Foreign && s.Active != "active":
			idle = append(idle, named) // it will read the file when it starts
		case u.Foreign:
			todo[systemd.Reload] = append(todo[systemd.Reload], named)
		case s.Runs() && had.Restart == want.Restart:
			todo[systemd.Reload] = append(todo[systemd.Reload], named)
		case known && had.Restart != want.Restart, s.Runs():
			todo[systemd.Restart] = append(todo[systemd.Restart], named)
		default:
			todo[systemd.Start] = append(todo[systemd.Start], named)
		}
	}
	if len(idle) > 0 {
		err = a.running(idle)
	}
	return todo, err
}

// states says how the manifest's units are, in its order. A foreign unit that
// goes by another name on this distribution is answered for under that.
func (n *Node) states(ctx context.Context, m fleet.Manifest) ([]systemd.Status, error) {
	names := make([]string, len(m.Units))
	for i, u := range m.Units {
		names[i] = u.Name
	}
	states, err := n.systemd.Show(ctx, names...)
	if err != nil {
		return nil, err
	}
	for i, u := range m.Units {
		if other := systemd.OtherName(u.Name); u.Foreign && other != "" && states[i].Load == "not-found" {
			again, err := n.systemd.Show(ctx, other)
			if err != nil {
				return nil, err
			}
			states[i] = again[0]
		}
	}
	return states, nil
}

// blame adds to an error of several units the log of the one to blame.
func (a *activation) blame(ctx context.Context, err error, names []string) error {
	ctx = context.WithoutCancel(ctx)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	states, serr := a.systemd.Show(ctx, names...)
	if serr != nil {
		return err
	}
	for _, s := range states {
		if s.Runs() {
			continue
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = a.late(s)
		}
		return a.Logged(ctx, err, s.Name)
	}
	if len(names) > 0 {
		return a.Logged(ctx, err, names[0])
	}
	return err
}

// logLines is how much of a unit's log stands with an error.
const logLines = 8

// Logged adds the last lines of a unit's log to an error, as a hint.
func (n *Node) Logged(ctx context.Context, err error, unit string) error {
	lines := n.systemd.Log(ctx, unit, logLines)
	if len(lines) == 0 {
		return hint.Wrap(err, "on the node: journalctl -u %s", unit)
	}
	return hint.Wrap(err, "last lines of %s:\n    %s", unit, strings.Join(lines, "\n    "))
}

// awaitUnits waits until every unit of ours has been running for a moment.
func (a *activation) awaitUnits(ctx context.Context) error {
	var names []string
	for _, u := range a.target.Units {
		if !u.Foreign {
			names = append(names, u.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	until := a.until
	if least := time.Now().Add(2 * steady); until.IsZero() {
		until = time.Now().Add(a.await)
	} else if until.Before(least) {
		until = least
	}
	deadline, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		states, err := a.systemd.Show(ctx, names...)
		if err != nil {
			return err
		}
		waiting := slices.IndexFunc(states, func(s systemd.Status) bool { return !s.Done() && (!s.Runs() || s.ActiveFor < steady) })
		if waiting < 0 {
			return nil
		}
		for _, s := range states {
			if why := s.Broken(); why != "" {
				return a.Logged(ctx, fmt.Errorf("unit %s: %s", s.Name, why), s.Name)
			}
		}
		select {
		case <-again.C:
			continue
		case <-deadline.Done():
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return a.Logged(ctx, a.late(states[waiting]), states[waiting].Name)
	}
}

func (a *activation) late(s systemd.Status) error {
	return fmt.Errorf("unit %s: still %s (%s) after %s", s.Name, s.Active, s.Sub, a.await)
}

// steady is how long a unit must have been active to count as started: one
// that crashes at its first breath is gone by then.
const steady = time.Second
