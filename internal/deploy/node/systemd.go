package node

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

// Systemd is the machine's service manager, as much of it as generations need.
type Systemd interface {
	// DaemonReload makes it read the unit files again.
	DaemonReload(ctx context.Context) error
	// Do does that to the units in one go, and waits until it is done. A unit
	// that is what it shall be already is left alone (but for Restart).
	Do(ctx context.Context, verb Verb, units ...string) error
	// Show says how units are, one answer for each name in their order. A unit
	// that does not exist is no error.
	Show(ctx context.Context, units ...string) ([]UnitStatus, error)
	// Log returns the last lines of a unit's log, nil if there are none.
	Log(ctx context.Context, unit string, lines int) []string
	// Launch starts a command as a unit of its own, which lives on when the
	// caller dies and is gone once it has ended.
	Launch(ctx context.Context, unit string, command ...string) error
}

// UnitStatus is what systemd says of one unit, in systemd's words.
type UnitStatus struct {
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

// runs says whether the unit is what a started unit of its type should be.
func (u UnitStatus) runs() bool {
	return u.Active == "active" || u.Active == "reloading" || u.done()
}

// done says whether it is a unit that ran to its end, as it should.
func (u UnitStatus) done() bool {
	return u.Type == "oneshot" && u.Active == "inactive" && u.Result == "success" && u.Load == "loaded"
}

// broken says why waiting for the unit is of no use, "" if it is.
func (u UnitStatus) broken() string {
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

// steady is how long a unit must have been active to count as started: one
// that crashes at its first breath is gone by then.
const steady = time.Second
