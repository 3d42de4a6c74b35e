// Package host describes the machine that is the node: its facts, its host keys,
// its packages. It installs packages, and changes nothing else.
package host

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/command"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Host is one machine.
type Host struct {
	Root string // "/", or another directory in tests
	Arch string // as Go names it
	Run  command.Runner
	Now  func() time.Time
}

func (h Host) real(path string) string { return filepath.Join(h.Root, path) }

// System describes the machine, but for its disk. What cannot be read stays zero: a status that
// lacks the load is better than none.
func (h Host) System() fleet.System {
	s := fleet.System{Arch: h.Arch, CPUs: runtime.NumCPU(), Clock: h.Now().UTC()}
	release := h.osRelease()
	s.OS, s.OSVersion = release["ID"], release["VERSION_ID"]
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		s.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	s.Uptime = h.uptime()
	if f := strings.Fields(h.proc("loadavg")); len(f) > 0 {
		s.Load1, _ = strconv.ParseFloat(f[0], 64) // stays 0
	}
	for line := range strings.Lines(h.proc("meminfo")) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kB, _ := strconv.ParseUint(f[1], 10, 64) // stays 0
		switch f[0] {
		case "MemTotal:":
			s.MemTotal = kB << 10
		case "MemAvailable:":
			s.MemFree = kB << 10
		}
	}
	return s
}

func (h Host) proc(name string) string {
	b, err := os.ReadFile(h.real("/proc/" + name))
	if err != nil {
		return ""
	}
	return string(b)
}

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on
// every architecture Go runs on (proc(5), sysconf(3)).
const clockTick = 10 * time.Millisecond

// uptime is since when the machine's first process runs. In a container that
// is later than the kernel's start.
func (h Host) uptime() time.Duration {
	f := strings.Fields(h.proc("uptime"))
	if len(f) == 0 {
		return 0
	}
	up, err := strconv.ParseFloat(f[0], 64)
	if err != nil {
		return 0
	}
	kernel := time.Duration(up * float64(time.Second))
	// The name, in parentheses, may have blanks; the start is the 20th field
	// after it.
	_, rest, _ := strings.Cut(h.proc("1/stat"), ") ")
	if f := strings.Fields(rest); len(f) > 19 {
		if ticks, err := strconv.ParseInt(f[19], 10, 64); err == nil {
			return max(0, kernel-time.Duration(ticks)*clockTick)
		}
	}
	return kernel
}

// osRelease reads os-release(5).
func (h Host) osRelease() map[string]string {
	out := make(map[string]string)
	b, err := os.ReadFile(h.real("/etc/os-release"))
	if err != nil {
		if b, err = os.ReadFile(h.real("/usr/lib/os-release")); err != nil {
			return out
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			out[key] = strings.Trim(value, `"'`)
		}
	}
	return out
}

// Keys are the machine's SSH host keys without their comments, sorted.
func (h Host) Keys() []string {
	files, err := filepath.Glob(h.real("/etc/ssh/ssh_host_*_key.pub"))
	if err != nil {
		return nil
	}
	var out []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if key, _, _, _, err := ssh.ParseAuthorizedKey(b); err == nil {
			out = append(out, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))))
		}
	}
	slices.Sort(out)
	return out
}
