package node

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Probation is a generation in force that goes back by itself unless it is
// confirmed in time. It is kept in memory: after a reboot the guard looks.
type Probation struct {
	fleet.Probation

	Commit string `json:"commit,omitempty"`
	// Deadline is on the machine's monotonic clock: nobody can set that.
	Deadline time.Duration `json:"deadline_ns"`
	// Restarts are how often systemd had restarted each unit when this began.
	Restarts map[string]int `json:"restarts,omitempty"`
	// Running are the units that were active.
	Running map[string]bool `json:"running,omitempty"`
}

const probationFile = runDir + "/probation.json"

// Uptime is what Options.Uptime is on a machine: CLOCK_MONOTONIC
// (clock_gettime(2)), which neither jumps nor goes on while the machine sleeps.
func Uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(now.Nano())
}

// Probate puts the generation in force on probation; nil where it needs none,
// being confirmed, or where there is none to go back to.
func (h *Held) Probate(ctx context.Context, t Target, within time.Duration) (*Probation, error) {
	current, err := h.linked()
	if err != nil {
		return nil, err
	}
	to := h.good()
	if current != t.Generation || to == 0 || to == current {
		return nil, nil
	}
	p := &Probation{Commit: t.Commit, Deadline: h.uptime() + within, Restarts: make(map[string]int), Running: make(map[string]bool)}
	p.Generation, p.Previous, p.By = current, to, h.by
	p.Until = h.now().Add(within).UTC().Truncate(time.Millisecond)
	for _, u := range h.Units(ctx, current) {
		p.Restarts[u.Name], p.Running[u.Name] = u.Restarts, u.Active == "active" || u.Active == "reloading"
	}
	return p, h.writeJSON(probationFile, p)
}

// Probation is the one that began last, nil if there was none since the machine
// started.
func (n *Node) Probation() *Probation {
	var p Probation
	if n.readJSON(probationFile, &p) != nil || p.Generation == 0 {
		return nil
	}
	return &p
}

// EndProbation forgets it.
func (n *Node) EndProbation() error { return n.disk.Remove(probationFile) }

// onProbation is what Observe says: a probation that somebody watches over.
func (n *Node) onProbation(ctx context.Context) *fleet.Probation {
	p := n.Probation()
	if p == nil || !n.Waits(p) {
		return nil
	}
	if alive, err := n.activating(ctx, unitName(p.Generation)); err != nil || !alive {
		return nil
	}
	return &p.Probation
}

// Waits says whether the generation on probation is still in force and still
// unconfirmed, and no other is under way.
func (n *Node) Waits(p *Probation) bool {
	current, err := n.linked()
	return err == nil && current == p.Generation && n.good() != p.Generation && n.underWay() == nil
}

// Clock is the machine's uptime, which a deadline is compared with.
func (n *Node) Clock() time.Duration { return n.uptime() }

// Units says how the units of a generation are, nil where that is not known.
func (n *Node) Units(ctx context.Context, generation int) []fleet.UnitState {
	m, err := n.manifest(generation)
	if err != nil {
		return nil
	}
	m.Units = slices.DeleteFunc(m.Units, func(u fleet.Unit) bool { return u.Foreign })
	return n.unitStates(ctx, m)
}
