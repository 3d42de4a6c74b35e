package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestName(t *testing.T) {
	short := Machine{Lab: "cats", Host: "ari"}
	if got := short.Name(); got != "moggy-cats-ari" {
		t.Errorf("got %q", got)
	}
	long := strings.Repeat("x", 40)
	a, b := Machine{Lab: long, Host: long + "a"}.Name(), Machine{Lab: long, Host: long + "b"}.Name()
	if len(a) > 64 || len(b) > 64 || a == b {
		t.Errorf("long names: %q, %q; want two different ones of at most 64", a, b)
	}
}

// TestPrepare lays a disk under a careful user's umask: the machine must not
// inherit it.
func TestPrepare(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	m := Machine{Lab: "l", Host: "h", Disk: filepath.Join(dir, "disk"), Run: filepath.Join(dir, "run")}
	if os.Geteuid() != 0 {
		t.Skip("making a device node needs root")
	}
	err := m.Prepare(map[string]File{
		"etc/hosts":          {Text: "hosts", Mode: 0o644},
		"home/nico/":         {Mode: 0o755, User: 1000},
		"home/nico/.ssh/":    {Mode: 0o700, User: 1000},
		"home/nico/.ssh/key": {Text: "key", Mode: 0o600, User: 1000},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		mode os.FileMode
		uid  uint32
	}{
		"etc": {os.ModeDir | 0o755, 0}, "etc/hosts": {0o644, 0}, "home": {os.ModeDir | 0o755, 0},
		"home/nico": {os.ModeDir | 0o755, 1000}, "home/nico/.ssh": {os.ModeDir | 0o700, 1000}, "home/nico/.ssh/key": {0o600, 1000},
	} {
		st, err := os.Stat(filepath.Join(m.upper(), name))
		if err != nil {
			t.Fatal(err)
		}
		if uid := st.Sys().(*syscall.Stat_t).Uid; st.Mode() != want.mode || uid != want.uid {
			t.Errorf("%s: %v of %d, want %v of %d", name, st.Mode(), uid, want.mode, want.uid)
		}
	}
	if err := m.Prepare(map[string]File{"../escaped": {Text: "x", Mode: 0o644}}); err == nil {
		t.Error("a file outside of the disk was no error")
	}
}

func TestHierarchyHas(t *testing.T) {
	two := hierarchy{unified: true}
	cpu := hierarchy{controllers: []string{"rw", "cpu", "cpuacct"}}
	named := hierarchy{controllers: []string{"rw", "xattr", "name=systemd"}}
	for _, c := range []struct {
		h                   hierarchy
		number, controllers string
		want                bool
	}{
		{two, "0", "", true},
		{two, "4", "memory", false},
		{cpu, "0", "", false},
		{cpu, "3", "cpu,cpuacct", true},
		{cpu, "3", "cpuset", false},
		{named, "1", "name=systemd", true},
	} {
		if got := c.h.has(c.number, c.controllers); got != c.want {
			t.Errorf("%+v has %s:%s: %v, want %v", c.h, c.number, c.controllers, got, c.want)
		}
	}
}

// TestKill finds processes by their mark, their children by theirs, and not
// those of another lab.
func TestKill(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's processes can carry a mark")
	}
	start := func(lab string) (*exec.Cmd, chan struct{}) {
		cmd := exec.Command("sh", "-c", "sleep 1000 & wait")
		cmd.Env = append(os.Environ(), Mark(lab))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func() { _ = cmd.Wait(); close(gone) }()
		return cmd, gone
	}
	mine, gone := start("kill-test")
	other, otherGone := start("kill-test-2")
	defer func() { _ = other.Process.Kill(); <-otherGone }()
	if err := Kill(t.Context(), []string{Mark("kill-test")}, nil); err != nil {
		t.Fatal(err)
	}
	<-gone
	if mine.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended by %v", mine.ProcessState)
	}
	if left, err := find([]string{Mark("kill-test")}, nil); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if left, err := find([]string{Mark("kill-test-2")}, nil); err != nil || len(left) != 2 {
		t.Errorf("the other lab's: %v, %v; want both", left, err)
	}
	if err := Kill(t.Context(), []string{Mark("kill-test-2")}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestLastWords(t *testing.T) {
	m := Machine{Host: "h", Run: t.TempDir()}
	if got := m.lastWords(); got != "it said nothing" {
		t.Errorf("without a log: %q", got)
	}
	if err := os.WriteFile(m.Console(), []byte("1\n2\n3\n4\n5\n6\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := m.lastWords(); got != "2 / 3 / 4 / 5 / 6" {
		t.Errorf("got %q", got)
	}
}
