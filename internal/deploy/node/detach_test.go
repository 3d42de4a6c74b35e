package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/node/systemd"
	"github.com/moggyfleet/moggy/internal/hint"
)

// carryOut makes the fake's Launch do what `moggy node activate --foreground`
// does. Before it reports its end it calls meanwhile.
func (m *machine) carryOut(meanwhile func()) func(ReportID) []string {
	m.systemd.Run = func(command []string) {
		report, done, err := m.Reports().Open(ReportID(command[0]))
		if err != nil {
			m.t.Error(err)
			return
		}
		defer done()
		var out protocol.Outcome
		err = m.locked(func(h *Held) (err error) {
			out, err = h.Try(context.Background(), Target{Generation: 1}, report)
			return err
		})
		meanwhile()
		report(m.End(out, err))
	}
	return func(id ReportID) []string { return []string{string(id)} }
}

func (m *machine) follow(id ReportID) (lines []string, out protocol.Outcome, err error) {
	out, err = m.Follow(m.t.Context(), 1, id, func(line []byte) error {
		lines = append(lines, string(line))
		return nil
	})
	return lines, out, err
}

func TestDetachAndFollow(t *testing.T) {
	m := newMachine(t)
	m.stage(ordinary(1, "a"))
	if _, err := m.LastReport(1); err == nil {
		t.Error("there is a report before anything was activated")
	}
	hold := make(chan struct{})
	command := m.carryOut(func() { <-hold })
	id, err := m.Detach(t.Context(), 1, command)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.Detach(t.Context(), 1, command) // while it runs: the same
	if err != nil || again != id {
		t.Errorf("a second one: report %s, %v; want %s", again, err, id)
	}
	close(hold)
	lines, out, err := m.follow(id)
	if err != nil || out.Error != "" || out.Generation != 1 || !out.Changed {
		t.Errorf("outcome %+v, %v", out, err)
	}
	for _, step := range Steps() {
		if !strings.Contains(strings.Join(lines, "\n"), `"step":"`+string(step)+`"`) {
			t.Errorf("step %s was not reported", step)
		}
	}
	m.systemd.Wait()
	last, err := m.LastReport(1)
	if err != nil || last != id {
		t.Errorf("last report %s, %v; want %s", last, err, id)
	}
	if _, out, err := m.follow(last); err != nil || out.Generation != 1 {
		t.Errorf("followed once more: %+v, %v", out, err)
	}
}

func TestFollowOneThatIsKilled(t *testing.T) {
	m := newMachine(t)
	m.stage(ordinary(1, "a"))
	m.systemd.Run = func(command []string) { // dies in the middle
		report, done, err := m.Reports().Open(ReportID(command[0]))
		if err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		m.locked(func(h *Held) error {
			_, err := h.Try(ctx, Target{Generation: 1}, func(e protocol.Event) {
				report(e)
				if e.Step == string(StepLink) {
					cancel()
				}
			})
			return err
		})
		done()
	}
	id, err := m.Detach(t.Context(), 1, func(id ReportID) []string { return []string{string(id)} })
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = m.follow(id)
	if err == nil || !strings.Contains(err.Error(), "generation 1: its activation was killed at link") {
		t.Errorf("error %v", err)
	}
	if hints := strings.Join(hint.All(err), "\n"); !strings.Contains(hints, "log of moggy-activate-1.service") || !strings.Contains(hints, "moggy apply finishes it") {
		t.Errorf("hints %q", hints)
	}
}

func TestDetachSaysWhoIsAtWork(t *testing.T) {
	m := newMachine(t)
	m.stage(ordinary(1, "a"))
	h := m.hold()
	defer h.Release()
	if _, err := m.Detach(t.Context(), 1, m.carryOut(func() {})); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v", err)
	}
}

func TestDetachOfNothing(t *testing.T) {
	m := newMachine(t)
	if _, err := m.Detach(t.Context(), 3, m.carryOut(func() {})); err == nil || !strings.Contains(err.Error(), "generation 3 is not on this node") {
		t.Errorf("error %v", err)
	}
}

// slowSystemd has units that become active some time after they were started.
type slowSystemd struct {
	*FakeSystemd
	states func(since time.Duration) systemd.Status
	from   time.Time
}

func (s *slowSystemd) Show(_ context.Context, units ...string) ([]systemd.Status, error) {
	out := make([]systemd.Status, len(units))
	for i, u := range units {
		out[i] = s.states(time.Since(s.from))
		out[i].Name, out[i].Load, out[i].Type = u, "loaded", "simple"
	}
	return out, nil
}

func TestAwait(t *testing.T) {
	active := func(d time.Duration) systemd.Status { return systemd.Status{Active: "active", ActiveFor: d} }
	starting := systemd.Status{Active: "activating", Sub: "start"}
	tests := map[string]struct {
		states func(time.Duration) systemd.Status
		took   time.Duration
		want   string
	}{
		"for an hour already": {func(time.Duration) systemd.Status { return active(time.Hour) }, 0, ""},
		"just now":            {func(d time.Duration) systemd.Status { return active(d + 1) }, time.Second, ""},
		"after 20 s": {func(d time.Duration) systemd.Status {
			if d < 20*time.Second {
				return starting
			}
			return active(d - 20*time.Second + 1)
		}, 21 * time.Second, ""},
		"never": {func(time.Duration) systemd.Status { return starting }, time.Minute, "still activating (start) after 1m0s"},
		"fails": {func(d time.Duration) systemd.Status {
			if d < 5*time.Second {
				return starting
			}
			return systemd.Status{Active: "failed", Result: "exit-code"}
		}, 5 * time.Second, "failed (exit-code)"},
		"crashes at its first breath, again and again": {func(d time.Duration) systemd.Status {
			if n := int(d / (500 * time.Millisecond)); n%2 == 1 {
				return systemd.Status{Active: "activating", Sub: "auto-restart", Result: "signal", Restarts: n / 2}
			}
			return active(d%(500*time.Millisecond) + 1)
		}, 3500 * time.Millisecond, "keeps crashing (signal)"},
		"oneshot that is done": {func(time.Duration) systemd.Status {
			return systemd.Status{Active: "inactive", Result: "success"}
		}, 0, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			synctest.Test(t, func(t *testing.T) {
				m.Node.await = time.Minute
				started := time.Now()
				m.Node.systemd = &slowSystemd{m.systemd, func(d time.Duration) systemd.Status {
					u := tt.states(d)
					return u
				}, started}
				if strings.HasPrefix(name, "oneshot") {
					m.Node.systemd = oneshots{m.systemd}
				}
				a := &activation{Held: &Held{Node: m.Node}, target: ordinary(1, "a").Manifest}
				err := a.awaitUnits(t.Context())
				if took := time.Since(started).Round(time.Second / 2); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
				if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), "unit moggy-agent.service: ") && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				if err != nil && !strings.Contains(strings.Join(hint.All(err), "\n"), "log of moggy-agent.service") {
					t.Errorf("no log in the hints: %v", hint.All(err))
				}
			})
		})
	}
}

// oneshots has only units that ran to their end.
type oneshots struct{ *FakeSystemd }

func (oneshots) Show(_ context.Context, units ...string) ([]systemd.Status, error) {
	out := make([]systemd.Status, len(units))
	for i, u := range units {
		out[i] = systemd.Status{Name: u, Load: "loaded", Type: "oneshot", Active: "inactive", Result: "success"}
	}
	return out, nil
}
