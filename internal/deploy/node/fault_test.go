package node

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// crash is what a killed process leaves behind in these tests: the panic of
// the change it was about to make.
type crash struct{ op, path string }

// crashing runs work that is killed at the k-th change of the disk. It says
// whether the work came to its end before that.
func (m *machine) crashing(k int, work func() error) (ended bool, at crash, err error) {
	m.disk.Fault = func(op, path string) error {
		if k == 0 {
			panic(crash{op, path})
		}
		k--
		return nil
	}
	defer func() {
		m.disk.Fault = nil
		if c, ok := recover().(crash); ok {
			at = c
		}
	}()
	err = work()
	return true, at, err
}

// two is the generation that the fault tests go to: against ordinary(1, "a") it
// has every kind of change in it.
func two() *generation {
	g := newGeneration(2).
		file("/etc/moggy/mesh.json", 0o644, "mesh b\n").
		file("/etc/taken.conf", 0o600, "ours\n").
		file("/etc/fresh/and/deep.conf", 0o640, "fresh\n").
		file("/usr/local/bin/moggy", 0o755, strings.Repeat("moggy b\n", 200)). // large: a hard link
		unit(fleet.Unit{
			Name: "moggy-agent.service", RestartOn: []string{"/usr/local/bin/moggy"}, ReloadOn: []string{"/etc/moggy/mesh.json"},
		}, "[Service]\n[Install]\nWantedBy=multi-user.target\n").
		unit(fleet.Unit{Name: "same.service", ReloadOn: []string{"/etc/moggy/mesh.json"}}, "[Service]\n").
		unit(fleet.Unit{Name: "b.service"}, "[Install]\nWantedBy=multi-user.target basic.target\n")
	return g
}

// one is the generation they come from.
func one() *generation {
	return ordinary(1, "a").file("/etc/old/gone.conf", 0o644, "old\n").
		unit(fleet.Unit{Name: "same.service", ReloadOn: []string{"/etc/moggy/mesh.json"}}, "[Service]\n").
		unit(fleet.Unit{Name: "gone.service"}, "[Install]\nWantedBy=multi-user.target\n")
}

// prepared is a machine on generation one, with a file in the way of two. Apart
// is whether /var is a file system of its own; unit files lag behind the switch
// then.
func prepared(t *testing.T, apart bool) *machine {
	t.Helper()
	m := newMachine(t)
	m.Node.apart = func() bool { return apart }
	m.write("/etc/taken.conf", "by hand\n")
	m.apply(one())
	return m
}

// shows says which of the two generations the current link leads to, having
// looked whether that one is whole in our own directory.
func (m *machine) shows(gs ...*generation) *generation {
	m.t.Helper()
	current, err := m.linked()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, g := range gs {
		if g.Generation != current {
			continue
		}
		for _, f := range g.Files {
			if got := m.read(treePath(current, f.Path)); got != string(g.content[f.Digest]) {
				m.t.Errorf("generation %d: %s is %.30q", current, f.Path, got)
			}
		}
		return g
	}
	m.t.Fatalf("the current link leads to generation %d", current)
	return nil
}

// commonPaths fails unless the paths that both generations manage show one of
// the two, and the same for all.
func (m *machine) commonPaths(a, b, in *generation) {
	m.t.Helper()
	for _, f := range a.Files {
		if _, both := b.File(f.Path); !both {
			continue
		}
		want, _ := in.File(f.Path)
		if got := m.read(f.Path); got != string(in.content[want.Digest]) {
			m.t.Errorf("%s shows %.30q, generation %d is in force", f.Path, got, in.Generation)
		}
	}
}

// TestKilledAnywhere kills staging, activation and confirmation at every
// change they make to the disk. After each, the machine is on a whole
// generation; then a plain second run, or going back, gets it all right.
func TestKilledAnywhere(t *testing.T) {
	all := func(m *machine) error {
		if _, err := m.tryStage(two()); err != nil {
			return err
		}
		return m.tryKeep()
	}
	for name, tt := range map[string]struct {
		work   func(*machine) error
		finish func(*machine)
		staged bool // before the work
		apart  bool
		least  int // changes that there must be
	}{
		"then applied again":         {all, (*machine).finishAgain, false, false, 100},
		"then gone back":             {(*machine).tryKeep, (*machine).finishBack, true, false, 60},
		"then gone back, /var apart": {(*machine).tryKeep, (*machine).finishBack, true, true, 60},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := 0
			for ended := false; !ended; k++ {
				m := prepared(t, tt.apart)
				if tt.staged {
					m.stage(two())
				}
				var at crash
				var err error
				ended, at, err = m.crashing(k, func() error { return tt.work(m) })
				if err != nil {
					t.Fatalf("change %d: %v", k, err)
				}
				in := m.shows(one(), two())
				if !tt.apart {
					m.commonPaths(one(), two(), in)
				}
				if k%2 == 1 {
					m.reboot()
				}
				tt.finish(m)
				if t.Failed() {
					t.Fatalf("killed at change %d: %s %s", k, at.op, at.path)
				}
			}
			t.Logf("%d changes", k)
			if k < tt.least {
				t.Errorf("only %d changes: is every one counted?", k)
			}
		})
	}
}

// tryKeep puts generation two in force and confirms it.
func (m *machine) tryKeep() error {
	if _, err := m.tryActivate(2); err != nil {
		return err
	}
	return m.locked(func(h *Held) error { _, err := h.Confirm(2); return err })
}

// reboot loses power: the unit that both generations have must come up again.
func (m *machine) reboot() {
	m.t.Helper()
	if err := m.systemd.Reboot(); err != nil {
		m.t.Fatal(err)
	}
	m.systemd.Foreign("sshd.service")
	if m.systemd.Running("moggy-agent.service") == "" {
		m.t.Error("the agent did not start at boot")
	}
}

// finishBack goes back to generation one, and looks.
func (m *machine) finishBack() {
	m.t.Helper()
	m.activate(1)
	m.whole(one())
	if got := m.read("/etc/taken.conf"); got != "by hand\n" {
		m.t.Errorf("what was there before us is %q", got)
	}
	m.nothingLeft(one())
}

// finishAgain applies generation two once more, and looks.
func (m *machine) finishAgain() {
	m.t.Helper()
	m.apply(two())
	m.whole(two())
	if got := m.read(originalDir + "/etc/taken.conf"); got != "by hand\n" {
		m.t.Errorf("what was there before us is %q", got)
	}
	if at := m.observe().Current; at.Previous != 1 || !at.Confirmed {
		m.t.Errorf("%+v; want 1 before it, confirmed", at)
	}
	if m.systemd.Running("gone.service") != "" {
		m.t.Error("a unit that is gone still runs")
	}
	m.nothingLeft(two())
}

// nothingLeft fails if the other generation's paths, or anything half made, is
// on the machine.
func (m *machine) nothingLeft(g *generation) {
	m.t.Helper()
	for path := range m.snapshot() {
		if strings.Contains(path, protocol.TempPrefix) || strings.HasPrefix(path, replacedDir) {
			m.t.Errorf("left: %s", path)
		}
	}
	for _, other := range []*generation{one(), two()} {
		for _, f := range other.Files {
			if _, ours := g.File(f.Path); ours || f.Path == "/etc/taken.conf" {
				continue
			}
			if _, err := os.Lstat(m.root + f.Path); err == nil {
				m.t.Errorf("left: %s", f.Path)
			}
		}
	}
	for _, dir := range []string{"/etc/old", "/etc/fresh"} {
		_, err := os.Lstat(m.root + dir)
		if want := (dir == "/etc/old") == (g.Generation == 1); (err == nil) != want {
			m.t.Errorf("%s: there %t, want %t", dir, err == nil, want)
		}
	}
}

// TestDiskFullAnywhere makes each change fail: as on a full disk, where later
// ones may work again, or on one that turns read-only.
func TestDiskFullAnywhere(t *testing.T) {
	t.Parallel()
	failed := true
	for k := 0; failed; k++ {
		errno := unix.ENOSPC
		if k%2 == 1 {
			errno = unix.EROFS
		}
		m := prepared(t, false)
		failed = false
		left := k
		m.disk.Fault = func(op, _ string) error {
			if op == "append" {
				return errno // the history: it must stop nothing
			}
			if left--; left >= 0 || failed && errno == unix.ENOSPC {
				return nil
			}
			failed = true
			return errno
		}
		_, err := m.tryStage(two())
		if err == nil {
			_, err = m.tryActivate(2)
		}
		m.disk.Fault = nil
		if failed != (err != nil) || failed && !errors.Is(err, errno) {
			t.Fatalf("change %d: %v", k, err)
		}
		m.commonPaths(one(), two(), m.shows(one(), two()))
		m.finishAgain()
		if t.Failed() {
			t.Fatalf("change %d", k)
		}
	}
}
