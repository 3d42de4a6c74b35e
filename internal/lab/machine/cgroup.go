package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// top is the cgroup that holds all labs' cgroups.
const top = "moggy-lab"

// launcherGroup is the one, in the machine's, of what stands outside of it.
const launcherGroup = "launcher"

// hierarchy is a mounted tree of cgroups.
type hierarchy struct {
	dir         string
	unified     bool
	controllers []string // as the mount names them: cpu and cpuacct, name=systemd; options are among them
}

// hierarchies lists what is mounted: one tree on a host with cgroups version
// 2, one per controller with version 1, and often both.
func hierarchies() ([]hierarchy, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []hierarchy
	for lines := bufio.NewScanner(bytes.NewReader(info)); lines.Scan(); {
		// ... mount-point options - type source super-options
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		switch right[0] {
		case "cgroup2":
			out = append(out, hierarchy{dir: left[4], unified: true})
		case "cgroup":
			out = append(out, hierarchy{dir: left[4], controllers: strings.Split(right[2], ",")})
		}
	}
	return out, nil
}

// has says whether the hierarchy is the one that /proc/PID/cgroup lists under
// that number and those controllers.
func (h hierarchy) has(number, controllers string) bool {
	if h.unified || controllers == "" {
		return h.unified && number == "0"
	}
	for c := range strings.SplitSeq(controllers, ",") {
		if !slices.Contains(h.controllers, c) {
			return false
		}
	}
	return true
}

// systemdHost says whether the host's first process is systemd, which then
// owns the cgroups and gives the machine one.
func systemdHost() bool {
	_, err := os.Stat("/run/systemd/system") // sd_booted(3)
	return err == nil
}

// legacyCgroups says whether the host has cgroups version 1.
func legacyCgroups() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err != nil
}

func (m Machine) group() string { return filepath.Join(top, m.Lab, m.Host) }

// makeGroups makes the machine's cgroups and returns their directories: none
// where systemd does it.
func (m Machine) makeGroups() ([]string, error) {
	if systemdHost() {
		return nil, nil
	}
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, h := range all {
		dir := h.dir
		for _, part := range append(strings.Split(m.group(), "/"), launcherGroup) {
			// A version 2 cgroup with processes in it hands nothing down; in
			// the machine's own, systemd-nspawn does.
			if h.unified && part != launcherGroup {
				enable(dir)
			}
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, fmt.Errorf("make a cgroup: %w", err)
			}
			if err := inherit(dir); err != nil {
				return nil, err
			}
		}
		out = append(out, filepath.Join(h.dir, m.group()))
	}
	return out, nil
}

// enable hands down every controller that can be. Which ones can depends on
// the host, and a lab works without.
func enable(dir string) {
	list, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(list)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// inherit gives a version 1 cpuset its parent's processors and memory; it is
// born with none, and nothing can run in it.
func inherit(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		file := filepath.Join(dir, name)
		have, err := os.ReadFile(file)
		if err != nil || len(bytes.TrimSpace(have)) > 0 {
			continue // not a cpuset, or one that has them
		}
		above, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			continue
		}
		if err := os.WriteFile(file, above, 0); err != nil {
			return fmt.Errorf("cpuset of a cgroup: %w", err)
		}
	}
	return nil
}

// scope is the name, less a number and ".scope", of the systemd scope that the
// machine runs in, or "" where there is no systemd to give it one.
func (m Machine) scope() string {
	if !systemdHost() {
		return ""
	}
	return m.Name()
}

// scopeGone has systemd take the machine's scope away and waits until it has.
// It would by itself, but for a scope that it had been asked for by a process
// that was killed before it got there.
func (m Machine) scopeGone(ctx context.Context) error {
	if m.scope() == "" {
		return nil
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	left := func() error {
		for _, h := range all {
			dirs, err := filepath.Glob(filepath.Join(h.dir, "machine.slice", m.scope()+".*.scope"))
			if err != nil || len(dirs) > 0 {
				return errors.Join(err, fmt.Errorf("%w: %v", errScope, dirs))
			}
		}
		return nil
	}
	if left() == nil {
		return nil
	}
	// Whether it could is seen by what is left.
	_ = exec.CommandContext(ctx, "systemctl", "stop", m.scope()+".*.scope").Run()
	return wait(ctx, left)
}

var errScope = errors.New("systemd keeps the scope of a machine that is off")

// wait calls f until it succeeds, and gives up with its error after a while.
func wait(ctx context.Context, f func() error) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return err
		case <-tick.C:
		}
	}
}

// LabGroup is the cgroup that holds a lab's machines.
func LabGroup(lab string) string { return filepath.Join(top, lab) }

// RemoveGroups removes a cgroup with all below it, and those above it that
// are empty then. Its processes must have been killed; the kernel may take a
// moment to notice.
func RemoveGroups(ctx context.Context, group string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := removeTree(ctx, filepath.Join(h.dir, group)); err != nil {
			return err
		}
		for up := filepath.Dir(group); up != "."; up = filepath.Dir(up) {
			if os.Remove(filepath.Join(h.dir, up)) != nil {
				break // others' are in it
			}
		}
	}
	return nil
}

func removeTree(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(ctx, filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return wait(ctx, func() error {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a cgroup: %w", err)
		}
		return nil
	})
}

// maxName is the longest name of a host, so of a machine (sethostname(2)).
const maxName = 64

// shorten cuts a name that is too long and ends it in a hash instead.
func shorten(name string) string {
	if len(name) <= maxName {
		return name
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	return fmt.Sprintf("%s-%08x", name[:maxName-9], h.Sum32())
}
