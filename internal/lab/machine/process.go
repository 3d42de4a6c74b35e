package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A lab's processes outside of its machines carry these in their environment.
// That, and the network namespace they are in, is how they are found again:
// the kernel's own record cannot be stale, and needs no writing down.
const (
	labMark     = "MOGGY_LAB"
	machineMark = "MOGGY_LAB_MACHINE"
)

// Mark is the environment variable of a process that belongs to the lab.
func Mark(lab string) string { return labMark + "=" + lab }

// processes calls f with every process of root's there is.
func processes(f func(pid int)) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			f(pid)
		}
	}
	return nil
}

// carries says whether root's process has the variable in its environment. A
// process that somebody else started, through setuid, does not count.
func carries(pid int, variable string) bool {
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false
	}
	if !bytes.Contains(append([]byte{0}, env...), append([]byte("\x00"+variable), 0)) {
		return false
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	return err == nil && bytes.Contains(status, []byte("\nUid:\t0\t0\t0\t0\n"))
}

// netID is the network namespace of a process.
func netID(pid int) uint64 {
	var st unix.Stat_t
	if unix.Stat(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"), &st) != nil {
		return 0
	}
	return st.Ino
}

// parent returns a process's parent and whether it still runs.
func parent(pid int) (ppid int, runs bool) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false
	}
	// pid (name) state ppid: the name may hold anything.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 2 || f[0] == "Z" || f[0] == "X" {
		return 0, false
	}
	ppid, err = strconv.Atoi(f[1])
	return ppid, err == nil
}

// On says whether the machine is switched on.
func (m Machine) On() bool {
	_, err := m.Leader()
	return err == nil
}

// powered says whether anything of the machine runs, if only outside of it.
func (m Machine) powered() bool {
	alive, err := find([]string{machineMark + "=" + m.Name()}, nil)
	return err != nil || len(alive) > 0
}

// ErrOff is what asking something of a machine gives that is switched off.
var ErrOff = errors.New("is switched off")

// Leader returns the number, on this box, of the machine's first process.
func (m Machine) Leader() (int, error) {
	mark := machineMark + "=" + m.Name()
	outside := map[int]bool{}
	if err := processes(func(pid int) {
		if carries(pid, mark) {
			outside[pid] = true
		}
	}); err != nil {
		return 0, err
	}
	leader := 0
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return 0, err
	}
	if err := processes(func(pid int) {
		if ppid, runs := parent(pid); runs && outside[ppid] && !outside[pid] {
			ns, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/pid"))
			if err == nil && ns != own {
				leader = pid
			}
		}
	}); err != nil {
		return 0, err
	}
	if leader == 0 {
		return 0, fmt.Errorf("machine %s %w", m.Host, ErrOff)
	}
	return leader, nil
}

// patience is how long a killed process may take to be gone.
const patience = 20 * time.Second

var errAlive = errors.New("still run although killed")

// Kill kills every process that carries one of the marks or is in one of the
// network namespaces, again until there is none, but never the one that asks.
func Kill(ctx context.Context, marks []string, nets []uint64) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		alive, err := find(marks, nets)
		if err != nil || len(alive) == 0 {
			return err
		}
		for _, pid := range alive {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("processes %v %w", alive, errAlive)
		case <-tick.C:
		}
	}
}

func find(marks []string, nets []uint64) ([]int, error) {
	var out []int
	err := processes(func(pid int) {
		if _, runs := parent(pid); !runs || pid == os.Getpid() {
			return
		}
		id := netID(pid)
		for _, n := range nets {
			if id == n && n != 0 {
				out = append(out, pid)
				return
			}
		}
		for _, mark := range marks {
			if carries(pid, mark) {
				out = append(out, pid)
				return
			}
		}
	})
	return out, err
}

// Stop pulls the plug: every process of the machine is gone when it returns,
// its disk unmounted, its cgroups removed. A machine that is off stays so.
func (m Machine) Stop(ctx context.Context) error {
	var nets []uint64
	var st unix.Stat_t
	if unix.Stat(m.Net, &st) == nil {
		nets = append(nets, st.Ino)
	}
	if err := Kill(ctx, []string{machineMark + "=" + m.Name()}, nets); err != nil {
		return fmt.Errorf("machine %s: %w", m.Host, err)
	}
	return m.Gone(ctx)
}

// Gone removes the cgroups of a machine whose processes have been killed, and
// waits for systemd to remove its own.
func (m Machine) Gone(ctx context.Context) error {
	return errors.Join(RemoveGroups(ctx, m.group()), m.scopeGone(ctx))
}
