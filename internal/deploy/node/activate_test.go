package node

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func TestFirstGeneration(t *testing.T) {
	m := newMachine(t)
	g := ordinary(1, "a")
	m.apply(g)
	m.whole(g)
	if diff := cmp.Diff([]string{"daemon-reload", "start moggy-agent.service", "reload sshd.service"}, m.systemd.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if target, err := os.Readlink(m.root + "/etc/systemd/system/multi-user.target.wants/moggy-agent.service"); err != nil ||
		target != m.root+"/etc/systemd/system/moggy-agent.service" {
		t.Errorf("enabled by a link to %q (%v)", target, err)
	}
}

func TestActivateTwiceChangesNothing(t *testing.T) {
	m := newMachine(t)
	g := ordinary(1, "a")
	m.apply(g)
	m.systemd.Calls()
	before := m.snapshot()
	m.stage(g)
	if m.activate(1) {
		t.Error("the second activation says that it changed something")
	}
	m.confirm(1)
	if diff := cmp.Diff(before, m.snapshot()); diff != "" {
		t.Errorf("files changed (-before +after):\n%s", diff)
	}
	if calls := m.systemd.Calls(); len(calls) > 0 {
		t.Errorf("systemd was asked for %v", calls)
	}
}

func TestChangeTouchesOnlyWhatItMust(t *testing.T) {
	agentUnit := fleet.Unit{Name: "moggy-agent.service", RestartOn: []string{"/usr/local/bin/moggy"}, ReloadOn: []string{"/etc/moggy/mesh.json"}}
	tests := map[string]struct {
		change func(g *generation)
		want   []string
	}{
		"mesh alone reloads": {
			func(g *generation) { g.set("/etc/moggy/mesh.json", "other") },
			[]string{"reload moggy-agent.service"},
		},
		"binary restarts": {
			func(g *generation) { g.set("/usr/local/bin/moggy", "other") },
			[]string{"restart moggy-agent.service"},
		},
		"unit file restarts": {
			func(g *generation) {
				g.set("/etc/systemd/system/moggy-agent.service", "[Service]\n[Install]\nWantedBy=multi-user.target\n")
			},
			[]string{"daemon-reload", "restart moggy-agent.service"},
		},
		"drop-in restarts": {
			func(g *generation) {
				g.file("/etc/systemd/system/moggy-agent.service.d/10-more.conf", 0o644, "[Service]\nNice=1\n")
			},
			[]string{"daemon-reload", "restart moggy-agent.service"},
		},
		"sshd reloads": {
			func(g *generation) { g.set("/etc/ssh/sshd_config.d/50-moggy.conf", "other") },
			[]string{"reload sshd.service"},
		},
		"a unit less": {
			func(g *generation) {
				g.Units = slices.DeleteFunc(g.Units, func(u fleet.Unit) bool { return u.Name == agentUnit.Name })
				g.Files = slices.DeleteFunc(g.Files, func(f fleet.ManifestFile) bool { return strings.HasSuffix(f.Path, ".service") })
			},
			[]string{"stop moggy-agent.service", "daemon-reload"},
		},
		"a unit more": {
			func(g *generation) {
				g.unit(fleet.Unit{Name: "b.service"}, "[Install]\nWantedBy=multi-user.target\n")
			},
			[]string{"daemon-reload", "start b.service"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.apply(ordinary(1, "a"))
			m.systemd.Calls()
			g := ordinary(2, "a")
			tt.change(g)
			m.apply(g)
			m.whole(g)
			if diff := cmp.Diff(tt.want, m.systemd.Calls()); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBackAndForth(t *testing.T) {
	m := newMachine(t)
	one, two, three := ordinary(1, "a"), ordinary(2, "b"), ordinary(3, "c")
	m.apply(one)
	m.apply(two)
	m.stage(three)
	m.activate(3) // never confirmed
	m.whole(three)
	back := func() (int, error) {
		var to int
		err := m.locked(func(h *Held) (err error) {
			to, err = h.Back(t.Context(), m.report)
			return err
		})
		return to, err
	}
	if to, err := back(); err != nil || to != 2 {
		t.Fatalf("back to %d, %v; want 2", to, err)
	}
	m.whole(two)
	if at := m.observe().Current; !at.Confirmed || at.Previous != 1 {
		t.Errorf("after going back: %+v; want confirmed, and 1 before it", at)
	}
	if to, err := back(); err != nil || to != 1 {
		t.Fatalf("back to %d, %v; want 1", to, err)
	}
	m.whole(one)
	if _, err := back(); err == nil || !strings.Contains(err.Error(), "no generation before 1") {
		t.Errorf("back from the first: %v", err)
	}
	four := ordinary(4, "d")
	m.apply(four)
	if at := m.observe().Current; at.Previous != 1 {
		t.Errorf("forward from 1 to 4: going back leads to %d, want 1", at.Previous)
	}
}

func TestUnconfirmedIsNotGoneBackTo(t *testing.T) {
	m := newMachine(t)
	m.apply(ordinary(1, "a"))
	m.stage(ordinary(2, "b"))
	m.activate(2)
	m.stage(ordinary(3, "c"))
	m.activate(3)
	if at := m.observe().Current; at.Previous != 1 || at.Confirmed {
		t.Errorf("%+v; want 1 before it, unconfirmed", at)
	}
}

func TestTryGoesBack(t *testing.T) {
	m := newMachine(t)
	one := ordinary(1, "a")
	m.apply(one)
	bad := ordinary(2, "b")
	bad.set("/etc/systemd/system/moggy-agent.service", "[Service]\nExecStart=/bin/crash\n[Install]\nWantedBy=multi-user.target\n")
	m.systemd.Crash = "crash"
	m.stage(bad)
	var out protocol.Outcome
	err := m.locked(func(h *Held) (err error) {
		out, err = h.Try(t.Context(), Target{Generation: 2}, m.report)
		return err
	})
	if err == nil || !out.WentBack || out.Generation != 1 || !strings.Contains(err.Error(), "went back to generation 1") {
		t.Fatalf("outcome %+v, error %v", out, err)
	}
	m.whole(one)
	if at := m.observe().Current; !at.Confirmed {
		t.Errorf("generation 1 lost its confirmation: %+v", at)
	}
}

func TestFirstGenerationStaysWhenItsUnitCrashes(t *testing.T) {
	m := newMachine(t)
	m.systemd.Crash = "ExecStart"
	m.stage(ordinary(1, "a"))
	var out protocol.Outcome
	err := m.locked(func(h *Held) (err error) {
		out, err = h.Try(t.Context(), Target{Generation: 1}, m.report)
		return err
	})
	if err == nil || out.WentBack || out.Generation != 1 {
		t.Fatalf("outcome %+v, error %v", out, err)
	}
	if p := m.observe().Activation; p == nil || p.Step != string(StepStart) || p.Running {
		t.Errorf("pending: %+v; want one that ended at start", p)
	}
	if err := m.locked(func(h *Held) error { _, err := h.Confirm(1); return err }); err == nil {
		t.Error("a generation whose activation did not end was confirmed")
	}
	m.systemd.Crash = ""
	m.activate(1)
	m.confirm(1)
	m.whole(ordinary(1, "a"))
}

func TestTakesOverAndGivesBack(t *testing.T) {
	m := newMachine(t)
	m.write("/etc/nftables.conf", "by hand\n")
	if err := os.Symlink("elsewhere", m.root+"/etc/resolv.moggy"); err != nil {
		t.Fatal(err)
	}
	one := ordinary(1, "a")
	m.apply(one)
	two := ordinary(2, "a").file("/etc/nftables.conf", 0o600, "ours\n").file("/etc/resolv.moggy", 0o644, "ours too\n").
		file("/etc/deep/er/new.conf", 0o644, "new\n")
	m.apply(two)
	m.whole(two)
	if got := m.read("/var/lib/moggy/original/etc/nftables.conf"); got != "by hand\n" {
		t.Errorf("the original is %q", got)
	}
	three := ordinary(3, "a")
	m.apply(three)
	m.whole(three)
	if got := m.read("/etc/nftables.conf"); got != "by hand\n" {
		t.Errorf("what was there before us is %q now", got)
	}
	if target, err := os.Readlink(m.root + "/etc/resolv.moggy"); err != nil || target != "elsewhere" {
		t.Errorf("the link that was there before us leads to %q (%v)", target, err)
	}
	if _, err := os.Lstat(m.root + "/etc/deep"); !os.IsNotExist(err) {
		t.Errorf("a directory we made is left: %v", err)
	}
}

func TestEverythingGoesWithGenerationZero(t *testing.T) {
	m := newMachine(t)
	m.write("/etc/moggy/mesh.json", "by hand\n")
	before := m.snapshot()
	m.apply(ordinary(1, "a"))
	m.activate(0)
	for _, dir := range []string{Dir, runDir} {
		if err := os.RemoveAll(m.root + dir); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, m.snapshot()); diff != "" {
		t.Errorf("what is left (-before +after):\n%s", diff)
	}
	if m.systemd.Running("moggy-agent.service") != "" {
		t.Error("the agent still runs")
	}
}

func TestDirectoryInTheWay(t *testing.T) {
	m := newMachine(t)
	m.apply(ordinary(1, "a"))
	if err := os.MkdirAll(m.root+"/etc/x.conf", 0o755); err != nil {
		t.Fatal(err)
	}
	m.stage(ordinary(2, "a").file("/etc/x.conf", 0o644, "x\n"))
	_, err := m.tryActivate(2)
	if err == nil || !strings.Contains(err.Error(), "/etc/x.conf: something is there that is no file") {
		t.Errorf("error %v", err)
	}
}

func TestActivateWantsTheStagedOne(t *testing.T) {
	m := newMachine(t)
	first := m.stage(ordinary(1, "a"))
	m.stage(ordinary(1, "b")) // somebody else, before it was in force
	err := m.locked(func(h *Held) error {
		_, err := h.Activate(t.Context(), Target{Generation: 1, Digest: first.Digest}, m.report)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "staged under this number meanwhile") {
		t.Errorf("error %v", err)
	}
}

func TestStoppedBetweenSteps(t *testing.T) {
	for _, step := range Steps() {
		t.Run(string(step), func(t *testing.T) {
			m := newMachine(t)
			one := ordinary(1, "a")
			m.apply(one)
			two := ordinary(2, "b").unit(fleet.Unit{Name: "b.service"}, "[Install]\nWantedBy=multi-user.target\n")
			m.stage(two)
			ctx, cancel := context.WithCancel(t.Context())
			err := m.locked(func(h *Held) error {
				_, err := h.Activate(ctx, Target{Generation: 2}, func(e protocol.Event) {
					if e.Step == string(step) {
						cancel()
					}
				})
				return err
			})
			if step == StepSettle {
				if err != nil {
					t.Fatal(err) // nothing follows it
				}
			} else if !errors.Is(err, context.Canceled) {
				t.Fatalf("error %v, want that of the context", err)
			} else if p := m.observe().Activation; p == nil || p.Generation != 2 || p.From != 1 || p.Running {
				t.Fatalf("pending: %+v", p)
			}
			m.activate(2)
			m.confirm(2)
			m.whole(two)
			if at := m.observe().Current; at.Previous != 1 {
				t.Errorf("going back leads to %d, want 1", at.Previous)
			}
		})
	}
}
