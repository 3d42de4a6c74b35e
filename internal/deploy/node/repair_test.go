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

func TestDriftIsSeenAndRestored(t *testing.T) {
	tests := map[string]struct {
		spoil func(m *machine)
		want  []fleet.Drift
		calls []string
		kept  string // below replaced/<time>
	}{
		"link replaced by a file": {
			func(m *machine) {
				os.Remove(m.root + "/etc/moggy/mesh.json")
				m.write("/etc/moggy/mesh.json", "hand\n")
			},
			[]fleet.Drift{{Path: "/etc/moggy/mesh.json", Kind: fleet.DriftChanged, Content: "hand\n"}},
			[]string{"reload moggy-agent.service"},
			"/etc/moggy/mesh.json",
		},
		"written through the link": {
			func(m *machine) { m.write("/etc/moggy/mesh.json", "hand\n") },
			[]fleet.Drift{{Path: "/etc/moggy/mesh.json", Kind: fleet.DriftChanged, Content: "hand\n"}},
			[]string{"reload moggy-agent.service"},
			"/etc/moggy/mesh.json",
		},
		"unit file edited": {
			func(m *machine) { m.write("/etc/systemd/system/moggy-agent.service", "[Service]\n") },
			[]fleet.Drift{{Path: "/etc/systemd/system/moggy-agent.service", Kind: fleet.DriftChanged, Content: "[Service]\n"}},
			[]string{"daemon-reload", "restart moggy-agent.service"},
			"/etc/systemd/system/moggy-agent.service",
		},
		"link gone": {
			func(m *machine) { os.Remove(m.root + "/usr/local/bin/moggy") },
			[]fleet.Drift{{Path: "/usr/local/bin/moggy", Kind: fleet.DriftMissing}},
			[]string{"restart moggy-agent.service"},
			"",
		},
		"link to elsewhere": {
			func(m *machine) {
				os.Remove(m.root + "/etc/moggy/mesh.json")
				os.Symlink("/etc/shadow", m.root+"/etc/moggy/mesh.json")
			},
			[]fleet.Drift{{Path: "/etc/moggy/mesh.json", Kind: fleet.DriftChanged, Content: "-> /etc/shadow\n"}},
			[]string{"reload moggy-agent.service"},
			"/etc/moggy/mesh.json",
		},
		"mode": {
			func(m *machine) { os.Chmod(m.root+"/etc/moggy/mesh.json", 0o666) },
			[]fleet.Drift{{Path: "/etc/moggy/mesh.json", Kind: fleet.DriftMode}},
			nil, "",
		},
		"disabled": {
			func(m *machine) {
				os.Remove(m.root + "/etc/systemd/system/multi-user.target.wants/moggy-agent.service")
			},
			[]fleet.Drift{{Path: "/etc/systemd/system/multi-user.target.wants/moggy-agent.service", Kind: fleet.DriftMissing}},
			[]string{"daemon-reload"},
			"",
		},
		"the tree's file gone": {
			func(m *machine) { os.Remove(m.root + treePath(1, "/etc/moggy/mesh.json")) },
			[]fleet.Drift{{Path: "/etc/moggy/mesh.json", Kind: fleet.DriftMissing}},
			[]string{"reload moggy-agent.service"},
			"",
		},
		"unit stopped": {
			func(m *machine) { m.systemd.Kill("moggy-agent.service") },
			nil,
			[]string{"start moggy-agent.service"},
			"",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			g := ordinary(1, "a")
			m.apply(g)
			m.systemd.Calls()
			tt.spoil(m)
			if diff := cmp.Diff(tt.want, m.observe().Drift); diff != "" {
				t.Errorf("drift (-want +got):\n%s", diff)
			}
			m.stage(g)
			if !m.activate(1) {
				t.Error("nothing was changed")
			}
			m.whole(g)
			if diff := cmp.Diff(tt.calls, m.systemd.Calls()); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			kept := slices.ContainsFunc(slices.Collect(keys(m.snapshot())), func(path string) bool {
				return strings.HasPrefix(path, replacedDir) && tt.kept != "" && strings.HasSuffix(path, tt.kept)
			})
			if kept != (tt.kept != "") {
				t.Errorf("kept %t, want %t", kept, tt.kept != "")
			}
		})
	}
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestHandEditBeforeAChange: the edit must not survive in a unit that the new
// generation leaves alone, nor be lost.
func TestHandEditBeforeAChange(t *testing.T) {
	m := newMachine(t)
	m.apply(ordinary(1, "a"))
	m.write("/etc/moggy/mesh.json", "hand\n")
	m.systemd.Calls()
	two := ordinary(2, "a").file("/etc/more.conf", 0o644, "more\n") // mesh.json stays as it was
	m.apply(two)
	m.whole(two)
	if diff := cmp.Diff([]string{"reload moggy-agent.service"}, m.systemd.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if err := m.locked(func(h *Held) error { _, err := h.Back(t.Context(), m.report); return err }); err != nil {
		t.Fatal(err)
	}
	m.whole(ordinary(1, "a"))
	if !slices.ContainsFunc(slices.Collect(keys(m.snapshot())), func(path string) bool {
		return strings.HasPrefix(path, replacedDir) && strings.HasSuffix(path, "/etc/moggy/mesh.json")
	}) {
		t.Error("the edit is lost")
	}
}

// TestOwnFilesLost takes away, or garbles, each file the node keeps for itself.
// The machine must know where it stands all the same, and a plain apply put it
// right.
func TestOwnFilesLost(t *testing.T) {
	garble := map[string]func(m *machine, path string){
		"lost":  func(m *machine, path string) { os.Remove(m.root + path) },
		"empty": func(m *machine, path string) { m.write(path, "") },
		"cut":   func(m *machine, path string) { b := m.read(path); m.write(path, b[:len(b)/2]) },
		"zeros": func(m *machine, path string) { m.write(path, strings.Repeat("\x00", len(m.read(path)))) },
		"bent": func(m *machine, path string) {
			os.Remove(m.root + path)
			os.Symlink("/nonsense/2", m.root+path)
		},
		"future": func(m *machine, path string) { m.write(path, `{"version":99,"placed":null,"current":-1}`) },
	}
	for _, path := range []string{stateFile, ledgerFile, verifiedFile, lockFile, currentLink} {
		for name, spoil := range garble {
			if name == "bent" != (path == currentLink) && name != "lost" {
				continue
			}
			t.Run(path[len(Dir)+1:]+" "+name, func(t *testing.T) {
				m := newMachine(t)
				m.apply(ordinary(1, "a"))
				m.apply(ordinary(2, "b"))
				m.observe()
				spoil(m, path)
				at := m.observe().Current
				if path != currentLink && (at.Number != 2 || at.Previous != 1 || !at.Confirmed || at.At.IsZero()) {
					t.Errorf("observed %+v, want 2 after 1", at)
				}
				three := ordinary(3, "c")
				three.Files = slices.DeleteFunc(three.Files, func(f fleet.ManifestFile) bool { return f.Path == "/etc/ssh/sshd_config.d/50-moggy.conf" })
				m.apply(three)
				m.whole(three)
				if _, err := os.Lstat(m.root + "/etc/ssh/sshd_config.d/50-moggy.conf"); err == nil {
					t.Error("a path that is managed no more is left")
				}
				if at := m.observe().Current; at.Previous != 2 {
					t.Errorf("going back leads to %d, want 2", at.Previous)
				}
			})
		}
	}
}

func TestJournalGarbled(t *testing.T) {
	m := newMachine(t)
	m.apply(ordinary(1, "a"))
	m.write(journalFile, "{")
	if p := m.observe().Activation; p == nil || p.Generation != 1 || p.Running {
		t.Errorf("pending %+v; want one of which nothing else is known", p)
	}
	m.activate(1)
	m.whole(ordinary(1, "a"))
}

func TestDamagedBeyondTheNode(t *testing.T) {
	m := newMachine(t)
	g := ordinary(1, "a")
	m.apply(g)
	f, _ := g.File("/usr/local/bin/moggy")
	os.Remove(m.root + treePath(1, f.Path))
	os.Remove(m.root + m.store.Path(f.Digest, f.Mode))
	_, err := m.tryActivate(1)
	if err == nil || !strings.Contains(err.Error(), "/usr/local/bin/moggy: damaged") {
		t.Errorf("error %v", err)
	}
	m.apply(g) // sends it again
	m.whole(g)
}

func TestPrune(t *testing.T) {
	m := newMachine(t)
	for i, v := range []string{"a", "b", "c", "d", "e"} {
		m.apply(ordinary(i+1, v))
	}
	if g := m.generations(); !slices.Equal(g, []int{3, 4, 5}) {
		t.Errorf("generations %v, want the last three", g)
	}
	for v, want := range map[string]bool{"a": false, "b": false, "c": true, "e": true} {
		f, _ := ordinary(1, v).File("/etc/moggy/mesh.json")
		if _, err := os.Lstat(m.root + m.store.Path(f.Digest, f.Mode)); (err == nil) != want {
			t.Errorf("content of %s is in the store: %t, want %t", v, err == nil, want)
		}
	}
	if err := m.locked(func(h *Held) error { _, err := h.Back(t.Context(), m.report); return err }); err != nil {
		t.Fatal(err)
	}
	m.confirm(4)
	m.stage(ordinary(6, "f"))
	m.confirm(4)
	if g := m.generations(); !slices.Contains(g, 3) || !slices.Contains(g, 4) || !slices.Contains(g, 6) {
		t.Errorf("generations %v: want the one in force, the one before, the one just staged", g)
	}
}

// TestPruneKeepsWhatAnActivationNeeds: generation 1 is on its way when the
// process dies; nothing may take it away, old as it is.
func TestPruneKeepsWhatAnActivationNeeds(t *testing.T) {
	m := newMachine(t)
	for i, v := range []string{"a", "b", "c"} {
		m.apply(ordinary(i+1, v))
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := m.locked(func(h *Held) error {
		_, err := h.Activate(ctx, Target{Generation: 1}, func(e protocol.Event) {
			if e.Step == string(StepRecord) {
				cancel()
			}
		})
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	m.stage(ordinary(4, "d"))
	m.stage(ordinary(5, "e"))
	if err := m.locked((*Held).Prune); err != nil {
		t.Fatal(err)
	}
	if g := m.generations(); !slices.Contains(g, 1) || !slices.Contains(g, 3) {
		t.Fatalf("generations %v; want 1, which is on its way, and 3, which is in force", g)
	}
	m.activate(1)
	m.whole(ordinary(1, "a"))
}

// TestUnitFilesAreCopiesWhereVarIsMounted: systemd reads them before it mounts
// anything.
func TestUnitFilesAreCopiesWhereVarIsMounted(t *testing.T) {
	m := newMachine(t)
	m.Node.apart = func() bool { return true }
	const unit = "/etc/systemd/system/moggy-agent.service"
	one, two := ordinary(1, "a"), ordinary(2, "b")
	two.set(unit, "[Service]\n[Install]\nWantedBy=multi-user.target\n")
	m.apply(one)
	m.apply(two)
	if st, err := os.Lstat(m.root + unit); err != nil || !st.Mode().IsRegular() {
		t.Errorf("the unit file is %v (%v), want a file of its own", st.Mode(), err)
	}
	m.whole(two)
	if err := m.locked(func(h *Held) error { _, err := h.Back(t.Context(), m.report); return err }); err != nil {
		t.Fatal(err)
	}
	m.whole(one)
	if _, err := os.Lstat(m.root + replacedDir); err == nil {
		t.Error("our own copy was kept as if it were somebody's")
	}
	m.write(unit, "hand\n")
	if d := m.observe().Drift; len(d) != 1 || d[0].Path != unit || d[0].Content != "hand\n" {
		t.Errorf("drift %+v", d)
	}
	m.activate(1)
	m.whole(one)
	m.Node.apart = func() bool { return false } // moved to one file system
	m.activate(1)
	m.whole(one)
	if target, err := os.Readlink(m.root + unit); err != nil || target != m.root+currentLink+"/root"+unit {
		t.Errorf("the unit file leads to %q (%v)", target, err)
	}
}
