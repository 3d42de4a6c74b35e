package host

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSystem(t *testing.T) {
	root := t.TempDir()
	for path, content := range map[string]string{
		"/etc/os-release": "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='x'\n",
		"/proc/loadavg":   "0.42 0.30 0.20 1/234 5678\n",
		"/proc/uptime":    "1000.50 3000.00\n",
		"/proc/1/stat":    "1 (sys temd) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 40000 170000 3000\n",
		"/proc/meminfo":   "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n",
	} {
		write(t, root+path, content)
	}
	s := Host{Root: root, Arch: "arm64", Now: time.Now}.System()
	if s.OS != "debian" || s.OSVersion != "12" || s.Load1 != 0.42 || s.MemTotal != 16000<<10 || s.MemFree != 8000<<10 || s.Arch != "arm64" {
		t.Errorf("%+v", s)
	}
	// The first process started 400 s after the kernel.
	if s.Uptime != 600*time.Second+500*time.Millisecond {
		t.Errorf("uptime %s, want 10m0.5s", s.Uptime)
	}
	if s.CPUs == 0 || s.Kernel == "" || s.Clock.IsZero() {
		t.Errorf("%+v", s)
	}
}

func TestSystemOfNothing(t *testing.T) {
	if s := (Host{Root: t.TempDir(), Now: time.Now}).System(); s.OS != "" || s.Uptime != 0 || s.CPUs == 0 {
		t.Errorf("%+v", s)
	}
}

func TestKeys(t *testing.T) {
	root := t.TempDir()
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6nN7JmD5inEGLCqarJIUaR5v+M5rCW5EsArBmG7MmS"
	write(t, root+"/etc/ssh/ssh_host_ed25519_key.pub", key+" root@ziggy\n")
	write(t, root+"/etc/ssh/ssh_host_bad_key.pub", "garbage\n")
	write(t, root+"/etc/ssh/ssh_host_ed25519_key", "private\n")
	if diff := cmp.Diff([]string{key}, Host{Root: root}.Keys()); diff != "" {
		t.Errorf("host keys (-want +got):\n%s", diff)
	}
}
