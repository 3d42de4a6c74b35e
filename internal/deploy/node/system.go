package node

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

	"github.com/moggyfleet/moggy/internal/fleet"
)

// system describes the machine. What cannot be read stays zero: a status that
// lacks the load is better than none.
func (n *Node) system() fleet.System {
	s := fleet.System{Arch: n.arch, CPUs: runtime.NumCPU(), Clock: n.now().UTC()}
	release := n.osRelease()
	s.OS, s.OSVersion = release["ID"], release["VERSION_ID"]
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		s.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	s.Uptime = n.uptime()
	if f := strings.Fields(n.proc("loadavg")); len(f) > 0 {
		s.Load1, _ = strconv.ParseFloat(f[0], 64) // stays 0
	}
	s.DiskTotal, s.DiskFree, _ = n.space() // stays 0
	for line := range strings.Lines(n.proc("meminfo")) {
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

func (n *Node) proc(name string) string {
	b, err := os.ReadFile(n.disk.real("/proc/" + name))
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
func (n *Node) uptime() time.Duration {
	f := strings.Fields(n.proc("uptime"))
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
	_, rest, _ := strings.Cut(n.proc("1/stat"), ") ")
	if f := strings.Fields(rest); len(f) > 19 {
		if ticks, err := strconv.ParseInt(f[19], 10, 64); err == nil {
			return max(0, kernel-time.Duration(ticks)*clockTick)
		}
	}
	return kernel
}

// osRelease reads os-release(5).
func (n *Node) osRelease() map[string]string {
	out := make(map[string]string)
	b, err := os.ReadFile(n.disk.real("/etc/os-release"))
	if err != nil {
		if b, err = os.ReadFile(n.disk.real("/usr/lib/os-release")); err != nil {
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

// hostKeys are the machine's SSH host keys without their comments, sorted.
func (n *Node) hostKeys() []string {
	files, err := filepath.Glob(n.disk.real("/etc/ssh/ssh_host_*_key.pub"))
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
