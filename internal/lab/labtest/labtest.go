// Package labtest gives a test a lab of its own: up when it returns, and down
// with nothing left when the test ends. It is for tests that need real
// machines; everything else is faster without.
package labtest

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab"
)

// Need skips the test where there can be no lab, and says why. Only the lack
// of root is a reason: what else is missing makes the test fail.
func Need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a lab needs root")
	}
}

// Fleet reads a fleet's file.
func Fleet(t testing.TB, hcl string) *fleet.Fleet {
	t.Helper()
	f, diags := config.Parse([]config.Source{{Name: "fleet.hcl", Content: []byte(hcl)}})
	if f == nil {
		t.Fatal(diags)
	}
	return f
}

// New returns a lab with a name that no other test has, not up yet. It is
// taken down when the test ends.
func New(t testing.TB) *lab.Lab {
	t.Helper()
	Need(t)
	h := fnv.New32a()
	fmt.Fprint(h, t.Name(), os.Getpid())
	l, err := lab.New(fmt.Sprintf("test-%08x", h.Sum32()), lab.Options{Cache: os.Getenv("MOGGY_CACHE"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Errorf("lab down: %v", err)
		}
	})
	return l
}

// Up returns a lab that is up with the fleet's machines.
func Up(t testing.TB, f *fleet.Fleet) *lab.Lab {
	t.Helper()
	l := New(t)
	took, err := l.Up(t.Context(), f, Progress{t})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("lab %s: root file system %v, network %v, boot %v", l.Name(), took.Root, took.Network, took.Boot)
	return l
}

// Progress tells a test's log what is done and what failed.
type Progress struct{ T testing.TB }

// Step is left out: the log is long enough.
func (p Progress) Step(string, string) {}

// Done tells that name is ready.
func (p Progress) Done(name, text string) { p.T.Logf("%s: %s", name, text) }

// Fail tells why name stopped.
func (p Progress) Fail(name string, err error) { p.T.Logf("%s: %v", name, err) }

// Exec runs a command at a machine's keyboard and returns its output without
// the last newline. The test fails if the command does.
func Exec(t testing.TB, l *lab.Lab, node fleet.NodeName, argv ...string) string {
	t.Helper()
	out, code := TryExec(t, l, node, argv...)
	if code != 0 {
		t.Fatalf("%s: %s: exit code %d: %s", node, strings.Join(argv, " "), code, out)
	}
	return out
}

// TryExec is Exec for commands that may fail: it returns their exit code.
func TryExec(t testing.TB, l *lab.Lab, node fleet.NodeName, argv ...string) (string, int) {
	t.Helper()
	var out strings.Builder
	code, err := l.Exec(t.Context(), node, argv, lab.Stdio{In: strings.NewReader(""), Out: &out, Err: &out})
	if err != nil {
		t.Fatalf("%s: %s: %v", node, strings.Join(argv, " "), err)
	}
	return strings.TrimRight(out.String(), "\n"), code
}

// Run runs a command of this box as the operator in the lab's internet, or in
// the LAN of the site from, and returns its output and exit code.
func Run(t testing.TB, l *lab.Lab, from fleet.SiteName, argv ...string) (string, int) {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	code, err := l.Run(t.Context(), from, argv, lab.Stdio{In: strings.NewReader(""), Out: &out, Err: &out})
	if err != nil {
		t.Fatalf("run %s: %v", strings.Join(argv, " "), err)
	}
	return strings.TrimRight(out.String(), "\n"), code
}
