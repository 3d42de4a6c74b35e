// Package systemd asks the machine's service manager for what generations need
// of it. Which units that concerns, and when, package node decides.
package systemd

import (
	"context"
	"time"
)

// Verb is what is done to units.
type Verb string

// The verbs.
const (
	Start   Verb = "start"
	Stop    Verb = "stop"
	Restart Verb = "restart"
	Reload  Verb = "reload"
)

// Manager is the machine's service manager, as much of it as generations need.
type Manager interface {
	// DaemonReload makes it read the unit files again.
	DaemonReload(ctx context.Context) error
	// Do does that to the units in one go, and waits until it is done. A unit
	// that is what it shall be already is left alone (but for Restart).
	Do(ctx context.Context, verb Verb, units ...string) error
	// Queue asks for the same and does not wait: at boot, the units may wait for
	// whoever asks.
	Queue(ctx context.Context, verb Verb, units ...string) error
	// Show says how units are, one answer for each name in their order. A unit
	// that does not exist is no error.
	Show(ctx context.Context, units ...string) ([]Status, error)
	// Log returns the last lines of a unit's log, nil if there are none.
	Log(ctx context.Context, unit string, lines int) []string
	// Launch starts a command as a unit of its own, which lives on when the
	// caller dies, is started again when it is killed, and is gone once it has
	// ended by itself.
	Launch(ctx context.Context, unit string, command ...string) error
}

// Status is what systemd says of one unit, in systemd's words.
type Status struct {
	Name     string // as it was asked for
	Load     string // LoadState: "loaded", "not-found", "bad-setting", "error", "masked"
	Active   string // ActiveState
	Sub      string // SubState
	Type     string // of a service; "" otherwise
	Result   string // of a service: "success" or why it failed
	Restarts int    // how often systemd restarted it by itself
	// ActiveFor is since when it is active; 0 where it is not.
	ActiveFor time.Duration
}

// Runs says whether the unit is what a started unit of its type should be.
func (u Status) Runs() bool {
	return u.Active == "active" || u.Active == "reloading" || u.Done()
}

// Done says whether it is a unit that ran to its end, as it should.
func (u Status) Done() bool {
	return u.Type == "oneshot" && u.Active == "inactive" && u.Result == "success" && u.Load == "loaded"
}

// Broken says why waiting for the unit is of no use, "" if it is.
func (u Status) Broken() string {
	switch {
	case u.Load != "loaded":
		return "systemd says " + u.Load
	case u.Active == "failed":
		return "failed (" + u.Result + ")"
	case u.Restarts >= hopeless && u.Active != "active":
		return "keeps crashing (" + u.Result + ")"
	}
	return ""
}

// hopeless is how many crashes in a row are enough to stop waiting.
const hopeless = 3

// Hopeless says whether a unit keeps crashing: systemd has started it again so
// often since somebody did that it will not run.
func Hopeless(m Manager) func(context.Context, string) bool {
	return func(ctx context.Context, unit string) bool {
		states, err := m.Show(ctx, unit)
		return err == nil && len(states) == 1 && states[0].Restarts >= 2*hopeless
	}
}
