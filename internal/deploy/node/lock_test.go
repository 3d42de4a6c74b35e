package node

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/hint"
)

func TestLockSaysWhoHasIt(t *testing.T) {
	m := newMachine(t)
	since := time.Date(2026, 11, 22, 14, 2, 11, 0, time.UTC)
	m.Node.now = func() time.Time { return since }
	h, err := m.Lock(t.Context(), "activate 42")
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Lock(t.Context(), "stage")
	if !errors.Is(err, ErrLocked) || len(hint.All(err)) == 0 ||
		!strings.Contains(err.Error(), "locked by nico@laptop (activate 42, process ") || !strings.Contains(err.Error(), "since 2026-11-22T14:02:11Z") {
		t.Errorf("the second: %v", err)
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	if m.held() {
		t.Error("held after its release")
	}
	h = m.hold()
	defer h.Release()
	if !m.held() {
		t.Error("not held")
	}
	m.write(lockFile, "\x00garbage")
	if _, err := m.Lock(t.Context(), "stage"); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "locked by somebody") {
		t.Errorf("with a lock file that makes no sense: %v", err)
	}
}

// TestLockDiesWithItsHolder runs this test binary again as the holder.
func TestLockDiesWithItsHolder(t *testing.T) {
	if root := os.Getenv("MOGGY_TEST_HOLD"); root != "" {
		n := New(Options{Root: root, Systemd: &FakeSystemd{Root: root}, Now: time.Now, By: "the dead"})
		if _, err := n.Lock(t.Context(), "die"); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("held\n")
		io.Copy(io.Discard, os.Stdin) // until killed
		return
	}
	m := newMachine(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockDiesWithItsHolder$")
	cmd.Env = append(os.Environ(), "MOGGY_TEST_HOLD="+m.root)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	if _, err := m.Lock(t.Context(), "x"); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "the dead") {
		t.Errorf("while it lives: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	m.hold().Release()
}
