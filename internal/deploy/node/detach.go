package node

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/node/report"
	"github.com/moggyfleet/moggy/internal/hint"
)

// An activation may cut the connection it was asked for over, when it restarts
// the agent or sshd. So it runs as a unit of its own, and whoever asked follows
// its report:
//
//	moggy node activate 42 ──Launch──▶ moggy-activate-42.service
//	        │                                  │ Reporter
//	        └──Follow── /run/moggy-node/42.20261122T124000Z-1f0c.jsonl

// ReportID names the report of one activation.
type ReportID = report.ID

func unitName(generation int) string { return fmt.Sprintf("moggy-activate-%d.service", generation) }

// Reports is where activations report.
func (n *Node) Reports() report.Dir { return report.Dir(n.disk.Real(runDir)) }

// Detach starts a command as a unit of its own, to activate the generation and
// report under the name it is given; or finds the one that does so already. It
// returns the report to follow.
func (n *Node) Detach(ctx context.Context, generation int, command func(ReportID) []string) (ReportID, error) {
	unit := unitName(generation)
	if id, ok := n.reporting(ctx, unit, generation); ok {
		return id, nil
	}
	h, err := n.Lock(ctx, fmt.Sprintf("activate %d", generation)) // who has it says so here better than in a log
	if err != nil {
		return "", err
	}
	if _, err = h.manifest(generation); err == nil {
		err = h.Reports().Prune()
	}
	if err := errors.Join(err, h.Release()); err != nil {
		return "", err
	}
	// The report is there before its writer, so that whoever comes next follows
	// this one and not one of an earlier activation.
	id, err := n.Reports().New(generation, n.now())
	if err != nil {
		return "", err
	}
	err = n.systemd.Launch(ctx, unit, command(id)...)
	if err == nil {
		return id, nil
	}
	n.Reports().Remove(id)
	if id, ok := n.reporting(ctx, unit, generation); ok {
		return id, nil // somebody else was faster
	}
	return "", fmt.Errorf("activate %d: %w", generation, err)
}

// reporting is the report of an activation that runs.
func (n *Node) reporting(ctx context.Context, unit string, generation int) (ReportID, bool) {
	if running, err := n.activating(ctx, unit); err != nil || !running {
		return "", false
	}
	return n.Reports().Last(generation)
}

func (n *Node) activating(ctx context.Context, unit string) (bool, error) {
	states, err := n.systemd.Show(ctx, unit)
	if err != nil {
		return false, err
	}
	return states[0].Active == "active" || states[0].Active == "activating" || states[0].Active == "deactivating", nil
}

// End is the event that ends a report.
func (n *Node) End(out protocol.Outcome, err error) protocol.Event {
	if err != nil {
		out.Error, out.Hints = err.Error(), hint.All(err)
	}
	return protocol.Event{Hello: protocol.Hello{Protocol: protocol.Version}, At: n.now(), End: &out}
}

// LastReport is the report to follow of an activation that runs or ran here
// since the machine started.
func (n *Node) LastReport(generation int) (ReportID, error) {
	id, ok := n.Reports().Last(generation)
	if !ok {
		if turns, err := n.History(); err == nil && len(turns) > 0 && turns[len(turns)-1].By == "boot" {
			last := turns[len(turns)-1]
			return "", fmt.Errorf("generation %d: the machine restarted meanwhile, and %s: %s", generation, last.Kind, last.Why)
		}
		return "", hint.New(fmt.Sprintf("wait: no activation of generation %d since this machine started", generation),
			"moggy status shows where the node stands")
	}
	return id, nil
}

// Follow hands on each line of a report until the one that ends it. The error
// is that of following: the outcome says how the activation went.
func (n *Node) Follow(ctx context.Context, generation int, id ReportID, line func([]byte) error) (protocol.Outcome, error) {
	alive := func(ctx context.Context) (bool, error) { return n.activating(ctx, unitName(generation)) }
	out, err := n.Reports().Follow(ctx, id, alive, line)
	if errors.Is(err, report.ErrSilent) {
		err = n.silent(ctx, generation)
	}
	return out, err
}

// silent is the error of an activation that ended without a word.
func (n *Node) silent(ctx context.Context, generation int) error {
	err := fmt.Errorf("generation %d: its activation was killed", generation)
	if p := n.pending(); p != nil {
		err = fmt.Errorf("%w at %s", err, p.Step)
	}
	if log := n.systemd.Log(ctx, unitName(generation), logLines); len(log) > 0 {
		err = hint.Wrap(err, "its last lines:\n    %s", strings.Join(log, "\n    "))
	}
	return hint.Wrap(err, "moggy apply finishes it")
}
