package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/lab"
	"github.com/moggyfleet/moggy/internal/lab/labtest"
)

// upVariable has the test binary bring up a lab of that name and stay, so that
// a test can kill it.
const upVariable = "MOGGY_TEST_LAB_UP"

func TestMain(m *testing.M) {
	if name := os.Getenv(upVariable); name != "" {
		fmt.Fprintln(os.Stderr, stay(name))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func stay(name string) error {
	l, err := lab.New(name, lab.Options{Cache: os.Getenv("MOGGY_CACHE"), Now: time.Now})
	if err != nil {
		return err
	}
	if _, err := l.Up(context.Background(), labtest.Fleet(silentTB{}, small), progress{}); err != nil {
		return err
	}
	select {}
}

// silentTB is a testing.TB for where there is no test.
type silentTB struct{ testing.TB }

func (silentTB) Helper()        {}
func (silentTB) Fatal(a ...any) { panic(fmt.Sprint(a...)) }

// progress is told, and calls a function when a name begins a step.
type progress struct{ step func(name, text string) }

func (p progress) Step(name, text string) {
	if p.step != nil {
		p.step(name, text)
	}
}
func (progress) Done(string, string) {}
func (progress) Fail(string, error)  {}

// host is what this box looks like from outside of all labs. What belongs to
// labs other than the one that is looked for is left out: they may come and go
// meanwhile.
func host(t *testing.T, name string) map[string][]string {
	t.Helper()
	// Other labs, and other tests with namespaces of theirs, come and go.
	ours := func(s string) bool {
		return strings.Contains(s, name) || !strings.Contains(s, "moggy-") && !strings.Contains(s, "/run/netns")
	}
	h := map[string][]string{}
	for what, argv := range map[string][]string{
		"devices": {"ip", "-o", "-d", "link"}, "addresses": {"ip", "-o", "address"},
		"routes": {"ip", "route", "show", "table", "all"}, "routes6": {"ip", "-6", "route", "show", "table", "all"},
		"rules": {"ip", "rule"}, "rules6": {"ip", "-6", "rule"}, "ruleset": {"nft", "list", "ruleset"},
		"forwarding": {"cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"},
		"limits":     {"cat", "/proc/sys/kernel/pid_max", "/proc/sys/fs/file-max"},
	} {
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
		for line := range strings.Lines(string(out)) {
			// The time an address or a route has left is no change of it.
			line, _, _ = strings.Cut(line, " valid_lft")
			line, _, _ = strings.Cut(line, " expires")
			h[what] = append(h[what], line)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if _, what, _ := strings.Cut(line, " "); ours(what) {
			h["mounts"] = append(h["mounts"], line)
		}
	}
	for _, dir := range []string{"/run/netns", "/run/moggy-lab", "/var/lib/moggy-lab"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if s := filepath.Join(dir, e.Name()); ours(s) {
				h["files"] = append(h["files"], s)
			}
		}
	}
	h["cgroups"] = cgroups(t, name)
	h["processes"] = processes(t, name)
	return h
}

func cgroups(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, name) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// processes are those that have the lab's name in their arguments or their
// environment, and those in no namespace that has a name but not the host's.
func processes(t *testing.T, name string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if bytes.Contains(args, []byte(name)) || bytes.Contains(env, []byte(name)) {
			found = append(found, fmt.Sprintf("%d %s", pid, bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// pinned lists the processes that live in one of these namespaces.
func pinned(t *testing.T, nets []uint64) []string {
	t.Helper()
	var found []string
	files, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var st syscall.Stat_t
		if syscall.Stat(f, &st) == nil && slices.Contains(nets, st.Ino) {
			found = append(found, f)
		}
	}
	return found
}

func netIDs(t *testing.T, l *lab.Lab) []uint64 {
	t.Helper()
	names, err := l.Networks()
	if err != nil {
		t.Fatal(err)
	}
	var ids []uint64
	for _, n := range names {
		var st syscall.Stat_t
		if err := syscall.Stat("/run/netns/"+n, &st); err == nil {
			ids = append(ids, st.Ino)
		}
	}
	return ids
}

func compare(t *testing.T, name string, before map[string][]string, nets []uint64) {
	t.Helper()
	after := host(t, name)
	for what, list := range after {
		for _, line := range list {
			if strings.Contains(line, name) {
				t.Errorf("%s: the lab left %q", what, line)
			}
		}
	}
	// A device or a route of somebody else's may have come meanwhile, and goes.
	for deadline := time.Now().Add(10 * time.Second); !cmp.Equal(before, after) && time.Now().Before(deadline); {
		after = host(t, name)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("this box before and after (-before +after):\n%s", diff)
	}
	if left := pinned(t, nets); len(left) > 0 {
		t.Errorf("processes in the lab's namespaces: %v", left)
	}
}

// TestLabLeavesNothing compares this box before a lab and after it.
func TestLabLeavesNothing(t *testing.T) {
	l := labtest.New(t)
	before := host(t, l.Name())
	if _, err := l.Up(t.Context(), labtest.Fleet(t, small), labtest.Progress{T: t}); err != nil {
		t.Fatal(err)
	}
	during := host(t, l.Name())
	for _, what := range []string{"mounts", "files", "processes"} {
		if cmp.Equal(before[what], during[what]) {
			t.Errorf("the comparison sees none of the lab's %s", what)
		}
	}
	for _, what := range []string{"devices", "addresses", "routes", "rules", "ruleset", "forwarding", "limits"} {
		if diff := cmp.Diff(before[what], during[what]); diff != "" {
			t.Errorf("a lab that is up changed this box's %s (-before +during):\n%s", what, diff)
		}
	}
	ssh := []string{"ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}
	out, code := labtest.Run(t, l, "", append(ssh, "-p", "2201", "nico@203.0.113.77", "id -un; sudo -n id -un; hostname")...)
	if code != 0 || out != "nico\nroot\nbox" {
		t.Errorf("ssh to a user and a port that the router passes on: %q, exit code %d", out, code)
	}
	var said strings.Builder
	if code, err := l.SSH(t.Context(), "box", []string{"hostname"}, lab.Stdio{Out: &said, Err: &said}); code != 0 || err != nil || said.String() != "box\n" {
		t.Errorf("lab ssh box: %q, %d, %v", said.String(), code, err)
	}
	// Things that outlive what made them, if they can.
	labtest.Exec(t, l, "box", "sh", "-c", "exec >/dev/null 2>&1; systemd-run sleep 1000; mount -t tmpfs x /mnt; setsid sleep 1000 & ip netns add inner; ip netns exec inner sleep 1000 &")
	labtest.Run(t, l, "", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
	nets := netIDs(t, l)
	if err := l.Lose(t.Context(), "hub", "box", 500); err != nil {
		t.Fatal(err)
	}
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	compare(t, l.Name(), before, nets)
	if err := l.Down(t.Context()); err != nil {
		t.Errorf("down of a lab that is down: %v", err)
	}
}

// TestLabInterrupted ends up in the middle, as Ctrl-C does.
func TestLabInterrupted(t *testing.T) {
	for _, step := range []string{lab.PartNetwork, "box"} {
		t.Run(step, func(t *testing.T) {
			l := labtest.New(t)
			before := host(t, l.Name())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stop := progress{step: func(name, text string) {
				if name == step && text != "laying out its disk" {
					cancel()
				}
			}}
			if _, err := l.Up(ctx, labtest.Fleet(t, small), stop); !errors.Is(err, context.Canceled) {
				t.Fatalf("up that was interrupted: %v", err)
			}
			compare(t, l.Name(), before, nil)
		})
	}
}

// TestLabKilled kills the command that brings a lab up at several moments;
// down must then find everything, and up must not be confused.
func TestLabKilled(t *testing.T) {
	for _, moment := range []struct{ name, file string }{
		{"before the first namespace", "/run/moggy-lab/%s/state.json"},
		{"while wiring", "/run/netns/moggy-%s-operator"},
		{"while booting", "/run/moggy-lab/%s/box.launch"},
	} {
		t.Run(moment.name, func(t *testing.T) {
			l := labtest.New(t)
			before := host(t, l.Name())
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), upVariable+"="+l.Name())
			var said bytes.Buffer
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(20 * time.Second); ; {
				if _, err := os.Stat(fmt.Sprintf(moment.file, l.Name())); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("it never came so far: %s", said.String())
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			nets := netIDs(t, l)
			if err := l.Down(t.Context()); err != nil {
				t.Fatal(err)
			}
			compare(t, l.Name(), before, nets)
		})
	}
	t.Run("and up again", func(t *testing.T) {
		l := labtest.New(t)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), upVariable+"="+l.Name())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the first machine", func() bool {
			_, err := os.Stat("/run/moggy-lab/" + l.Name() + "/box.launch")
			return err == nil
		})
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		took, err := l.Up(t.Context(), labtest.Fleet(t, small), labtest.Progress{T: t})
		if err != nil || !took.Fresh || took.Booted != 2 {
			t.Errorf("up after a killed one: %+v, %v", took, err)
		}
		if got := labtest.Exec(t, l, "box", "hostname"); got != "box" {
			t.Errorf("box is %q", got)
		}
	})
}

// TestLabTwo has two labs of one fleet side by side.
func TestLabTwo(t *testing.T) {
	labtest.Need(t)
	var labs [2]*lab.Lab
	for i := range labs {
		labs[i] = newNamed(t, fmt.Sprintf("two-%d-%d", os.Getpid(), i))
	}
	var both sync.WaitGroup
	for _, l := range labs {
		both.Go(func() {
			if _, err := l.Up(t.Context(), labtest.Fleet(t, small), labtest.Progress{T: t}); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if t.Failed() {
		return
	}
	labtest.Exec(t, labs[0], "box", "touch", "/root/first")
	if _, code := labtest.TryExec(t, labs[1], "box", "test", "-e", "/root/first"); code == 0 {
		t.Error("two labs share a disk")
	}
	key := func(l *lab.Lab) string {
		out, _ := labtest.Run(t, l, "", "ssh-keyscan", "-T", "3", "-t", "ed25519", "198.51.100.11")
		return out
	}
	if a, b := key(labs[0]), key(labs[1]); a == b || !strings.Contains(a, "ssh-ed25519") {
		t.Errorf("one address in two labs is one machine: %q %q", a, b)
	}
	if err := labs[0].Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := labtest.Exec(t, labs[1], "box", "hostname"); got != "box" {
		t.Errorf("the second lab after the first went down: %q", got)
	}
	if !reaches(t, labs[1], "box", "198.51.100.11") {
		t.Error("the second lab's network is broken")
	}
}

func newNamed(t *testing.T, name string) *lab.Lab {
	t.Helper()
	l, err := lab.New(name, lab.Options{Cache: os.Getenv("MOGGY_CACHE"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}
