package node

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/node/systemd"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// boot is a machine that starts: nothing runs, the guard looks, what is enabled
// starts.
func (m *machine) boot() {
	m.t.Helper()
	m.systemd.Off()
	if err := os.RemoveAll(m.root + runDir); err != nil {
		m.t.Fatal(err)
	}
	m.guard()
	m.reboot()
	m.systemd.Queue(m.t.Context(), systemd.Start, "same.service") // not enabled: somebody starts it
}

func (m *machine) guard() (turned bool) {
	m.t.Helper()
	err := m.locked(func(h *Held) (err error) {
		turned, err = h.Guard(m.t.Context(), m.report)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return turned
}

func (m *machine) try(t Target) error {
	m.t.Helper()
	return m.locked(func(h *Held) error {
		_, err := h.Try(m.t.Context(), t, m.report)
		return err
	})
}

// turns are the history without its times.
func (m *machine) turns() []fleet.Turn {
	m.t.Helper()
	turns, err := m.History()
	if err != nil {
		m.t.Fatal(err)
	}
	for i := range turns {
		turns[i].At = turns[i].At.UTC()
	}
	return turns
}

func diffTurns(want, got []fleet.Turn) string {
	return cmp.Diff(want, got, cmpopts.IgnoreFields(fleet.Turn{}, "At", "Why"))
}

// TestGuardAfterPowerLoss loses power at every change of the disk that an
// activation makes, and in the guard itself, and starts the machine again.
func TestGuardAfterPowerLoss(t *testing.T) {
	for name, apart := range map[string]bool{"one file system": false, "/var apart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := 0
			for ended := false; !ended; k++ {
				m := prepared(t, apart)
				m.stage(two())
				var at crash
				ended, at, _ = m.crashing(k, func() error { return m.try(Target{Generation: 2, Probation: true}) })
				m.systemd.Off()
				m.crashing(k%40, func() error { m.guard(); return nil }) // and once more, in the guard
				m.boot()
				m.whole(one())
				m.nothingLeft(one())
				if at := m.observe().Current; !at.Confirmed {
					t.Errorf("%+v", at)
				}
				if m.guard() {
					t.Error("the guard has still something to do")
				}
				if t.Failed() {
					t.Fatalf("no power at change %d: %s %s", k, at.op, at.path)
				}
			}
			t.Logf("%d changes", k)
			if k < 50 {
				t.Errorf("only %d changes: is every one counted?", k)
			}
		})
	}
}

func TestGuardPutsBackWhatNobodyConfirmed(t *testing.T) {
	m := prepared(t, false)
	m.stage(two())
	m.activate(2)
	m.whole(two())
	m.boot()
	m.whole(one())
	last := m.turns()[len(m.turns())-1]
	if diff := diffTurns([]fleet.Turn{{Kind: fleet.TurnWentBack, Generation: 1, From: 2, By: "boot"}}, []fleet.Turn{last}); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	if !strings.Contains(last.Why, "before anybody confirmed it") {
		t.Errorf("why: %q", last.Why)
	}
}

func TestGuardLeavesWhatIsConfirmed(t *testing.T) {
	m := prepared(t, false)
	m.apply(two())
	m.boot()
	m.whole(two())
	m.activate(1) // an operator's `moggy node back`, as good as a confirmation
	m.boot()
	m.whole(one())
}

// TestGuardOfAFirstGeneration has nothing to go back to.
func TestGuardOfAFirstGeneration(t *testing.T) {
	m := newMachine(t)
	m.stage(ordinary(1, "a"))
	m.crashing(25, func() error { return m.try(Target{Generation: 1}) })
	m.systemd.Off()
	m.guard()
	if current, err := m.linked(); err != nil || current > 1 {
		t.Errorf("generation %d, %v", current, err)
	}
	m.activate(1)
	m.whole(ordinary(1, "a"))
}

// TestGuardWithDamage: what was confirmed is damaged, so the one in force is all
// there is.
func TestGuardWithDamage(t *testing.T) {
	m := newMachine(t)
	m.apply(ordinary(1, "a"))
	m.stage(ordinary(2, "b"))
	m.activate(2)
	f, _ := ordinary(1, "a").File("/usr/local/bin/moggy")
	os.Remove(m.root + treePath(1, f.Path))
	os.Remove(m.root + m.store.Path(f.Digest, f.Mode))
	err := m.locked(func(h *Held) error { _, err := h.Guard(t.Context(), m.report); return err })
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error %v", err)
	}
	m.reboot()
	m.whole(ordinary(2, "b"))
}

func TestTry(t *testing.T) {
	crashing := func(number int) *generation {
		return ordinary(number, "x").unit(fleet.Unit{Name: "bad.service"}, "crash\n")
	}
	tests := map[string]struct {
		prepare func(m *machine)
		target  int
		want    int
		wentTo  bool
		turn    fleet.Turn
	}{
		"newer one fails": {
			func(m *machine) { m.stage(crashing(3)) }, 3, 2, true,
			fleet.Turn{Kind: fleet.TurnWentBack, Generation: 2, From: 3},
		},
		"older one fails": {
			func(m *machine) {
				m.stage(crashing(3))
				m.systemd.Crash = "nothing"
				m.activate(3)
				m.confirm(3)
				m.apply(ordinary(4, "d"))
				m.systemd.Crash = "crash"
			}, 3, 4, true,
			fleet.Turn{Kind: fleet.TurnWentBack, Generation: 4, From: 3},
		},
		"after one that nobody confirmed": {
			func(m *machine) {
				m.stage(ordinary(3, "c"))
				m.activate(3)
				m.stage(crashing(4))
			}, 4, 2, true,
			fleet.Turn{Kind: fleet.TurnWentBack, Generation: 2, From: 4},
		},
		"cannot be verified": {
			func(m *machine) {
				m.stage(ordinary(3, "c"))
				f, _ := ordinary(3, "c").File("/usr/local/bin/moggy")
				os.Remove(m.root + treePath(3, f.Path))
				os.Remove(m.root + m.store.Path(f.Digest, f.Mode))
			}, 3, 2, false,
			fleet.Turn{Kind: fleet.TurnFailed, Generation: 3, From: 2},
		},
		"something is in the way": {
			func(m *machine) {
				m.stage(ordinary(3, "c").file("/etc/way/x.conf", 0o644, "x\n"))
				os.MkdirAll(m.root+"/etc/way/x.conf", 0o755)
			}, 3, 2, true,
			fleet.Turn{Kind: fleet.TurnWentBack, Generation: 2, From: 3},
		},
		"a check does not hold": {
			func(m *machine) {
				g := ordinary(3, "c")
				g.Checks = []fleet.Check{{Name: "never", Kind: fleet.CheckRun, Command: []string{"/bin/false"}, Seconds: 1}}
				m.Node.health.Run = RunCommand
				m.stage(g)
			}, 3, 2, true,
			fleet.Turn{Kind: fleet.TurnWentBack, Generation: 2, From: 3},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.systemd.Crash = "crash"
			m.apply(ordinary(1, "a"))
			m.apply(ordinary(2, "b"))
			tt.prepare(m)
			var went bool
			err := m.locked(func(h *Held) error {
				out, err := h.Try(t.Context(), Target{Generation: tt.target, Commit: "c0ffee"}, m.report)
				went = out.WentBack
				if out.Generation != tt.want {
					t.Errorf("outcome: generation %d, want %d", out.Generation, tt.want)
				}
				return err
			})
			if err == nil || went != tt.wentTo {
				t.Errorf("went back %t, error %v", went, err)
			}
			if o := m.observe(); o.Current.Number != tt.want || !o.Current.Confirmed || o.Activation != nil || len(o.Drift) > 0 {
				t.Errorf("observed %+v, %+v, %v", o.Current, o.Activation, o.Drift)
			}
			tt.turn.By, tt.turn.Commit = "nico@laptop", "c0ffee"
			all := m.turns()
			if diff := diffTurns([]fleet.Turn{tt.turn}, all[len(all)-1:]); diff != "" || all[len(all)-1].Why == "" {
				t.Errorf("history (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTryKilledAnywhere kills an activation that fails, and its way back, at
// every change of the disk; its unit starts it again.
func TestTryKilledAnywhere(t *testing.T) {
	t.Parallel()
	bad := func() *generation { return two().unit(fleet.Unit{Name: "bad.service"}, "crash\n") }
	k := 0
	for ended := false; !ended; k++ {
		m := prepared(t, false)
		m.systemd.Crash = "crash"
		m.stage(bad())
		var at crash
		ended, at, _ = m.crashing(k, func() error { return m.try(Target{Generation: 2}) })
		if !ended {
			if err := m.try(Target{Generation: 2, Again: true}); err == nil || !strings.Contains(err.Error(), "bad.service") {
				t.Errorf("error %v; want why, also of what was found before the kill", err)
			}
		}
		m.whole(one())
		m.nothingLeft(one())
		var told []fleet.TurnKind
		for _, turn := range m.turns()[2:] { // after the first was activated and confirmed
			told = append(told, turn.Kind)
		}
		if len(told) != 1 || told[0] != fleet.TurnWentBack {
			t.Errorf("history: %v", told)
		}
		if t.Failed() {
			t.Fatalf("killed at change %d: %s %s", k, at.op, at.path)
		}
	}
	t.Logf("%d changes", k)
}

func TestHistoryOfOrdinaryChanges(t *testing.T) {
	m := newMachine(t)
	m.apply(ordinary(1, "a"))
	m.apply(ordinary(1, "a")) // nothing to do, nothing to tell
	if err := m.try(Target{Generation: 1}); err != nil {
		t.Fatal(err)
	}
	os.Remove(m.root + "/usr/local/bin/moggy")
	m.apply(ordinary(1, "a"))
	m.apply(ordinary(2, "b"))
	m.activate(1)
	want := []fleet.Turn{
		{Kind: fleet.TurnActivated, Generation: 1},
		{Kind: fleet.TurnConfirmed, Generation: 1},
		{Kind: fleet.TurnRestored, Generation: 1, From: 1},
		{Kind: fleet.TurnActivated, Generation: 2, From: 1},
		{Kind: fleet.TurnConfirmed, Generation: 2},
		{Kind: fleet.TurnActivated, Generation: 1, From: 2},
	}
	for i := range want {
		want[i].By = "nico@laptop"
	}
	if diff := diffTurns(want, m.turns()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFullDiskStopsNoHistory: nothing may fail because its turn cannot be
// written down.
func TestFullDiskStopsNoHistory(t *testing.T) {
	m := newMachine(t)
	m.disk.Fault = func(op, _ string) error {
		if op == "append" {
			return errors.New("no room")
		}
		return nil
	}
	m.apply(ordinary(1, "a"))
	m.whole(ordinary(1, "a"))
}

// lameQueue is a systemd that takes no job when the machine starts.
type lameQueue struct{ *FakeSystemd }

func (lameQueue) Queue(context.Context, systemd.Verb, ...string) error {
	return errors.New("no job is taken")
}

// TestGuardWithoutSystemd: units that cannot be started at boot are no reason to
// put in force again what nobody confirmed.
func TestGuardWithoutSystemd(t *testing.T) {
	m := newMachine(t)
	m.apply(ordinary(1, "a"))
	m.stage(ordinary(2, "b"))
	if err := m.try(Target{Generation: 2, Probation: true}); err != nil {
		t.Fatal(err)
	}
	m.systemd.Off()
	if err := os.RemoveAll(m.root + runDir); err != nil {
		t.Fatal(err)
	}
	m.Node.systemd = lameQueue{m.systemd}
	err := m.locked(func(h *Held) error {
		_, err := h.Guard(t.Context(), m.report)
		return err
	})
	if err == nil {
		t.Error("nobody hears that no job was taken")
	}
	if now, err := m.linked(); err != nil || now != 1 {
		t.Errorf("generation %d is in force, want the confirmed one: %v", now, err)
	}
}

// TestCheckedBefore: what did not hold before the change is not its fault; what
// did must hold after it.
func TestCheckedBefore(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "SSH-2.0-x\r\n")
			c.Close()
		}
	}()
	ssh := func(address string) fleet.Check {
		return fleet.Check{Name: "ssh", Kind: fleet.CheckSSH, Address: address, Seconds: 1}
	}
	m := newMachine(t)
	m.apply(ordinary(1, "a"))

	g := ordinary(2, "b")
	g.Checks = []fleet.Check{ssh("127.0.0.1:1"), {Name: "mesh", Kind: fleet.CheckMesh, Seconds: 1}}
	m.stage(g)
	if err := m.try(Target{Generation: 2}); err != nil {
		t.Errorf("it went wrong over what did not hold before: %v", err)
	}
	if !slices.ContainsFunc(m.events, func(e protocol.Event) bool { return strings.Contains(e.Text, "did not hold before either: ssh") }) {
		t.Error("nobody is told that a check was passed over")
	}
	m.confirm(2)

	g = ordinary(3, "c")
	g.Checks = []fleet.Check{ssh(l.Addr().String())}
	m.stage(g)
	err = m.locked(func(h *Held) error {
		_, err := h.Try(t.Context(), Target{Generation: 3}, func(e protocol.Event) {
			if e.Step == string(StepSwitch) {
				l.Close()
			}
		})
		return err
	})
	if err == nil {
		t.Error("sshd, which answered before the change, does not answer after it, and it stays")
	}
	if now, err := m.linked(); err != nil || now != 2 {
		t.Errorf("generation %d is in force, want 2 again: %v", now, err)
	}
}
