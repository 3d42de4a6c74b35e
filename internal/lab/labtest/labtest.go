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
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab"
)

// Need skips the test where there can be no lab, and says why. Only the lack
// of root is a reason: what else is missing makes the test fail.
func Need(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("a lab needs root")
	}
}

// Engines fails the test where the engines of the lab's internet have not been
// built.
func Engines(tb testing.TB) {
	tb.Helper()
	Need(tb)
	cache := os.Getenv("MOGGY_CACHE")
	if cache == "" {
		cache = lab.CacheDir
	}
	for _, name := range []string{"pebble", "images"} {
		if _, err := os.Stat(filepath.Join(cache, "engines", name+"-"+runtime.GOARCH)); err != nil {
			tb.Fatalf("%v: scripts/engine.sh %s", err, name)
		}
	}
}

// Fleet reads a fleet's file.
func Fleet(tb testing.TB, hcl string) *fleet.Fleet {
	tb.Helper()
	f, diags := config.Parse([]source.Text{{Name: "fleet.hcl", Content: []byte(hcl)}})
	if f == nil {
		tb.Fatal(diags)
	}
	return f
}

// New returns a lab with a name that no other test has, not up yet. It is
// taken down when the test ends.
func New(tb testing.TB) *lab.Lab {
	tb.Helper()
	Need(tb)
	h := fnv.New32a()
	fmt.Fprint(h, tb.Name(), os.Getpid())
	l, err := lab.New(fmt.Sprintf("test-%08x", h.Sum32()), lab.Options{Cache: os.Getenv("MOGGY_CACHE"), Now: time.Now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			tb.Errorf("lab down: %v", err)
		}
	})
	return l
}

// Up returns a lab that is up with the fleet's machines.
func Up(tb testing.TB, f *fleet.Fleet) *lab.Lab {
	tb.Helper()
	l := New(tb)
	took, err := l.Up(tb.Context(), f, Progress{tb})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Logf("lab %s: root file system %v, network %v, boot %v", l.Name(), took.Root, took.Network, took.Boot)
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
func Exec(tb testing.TB, l *lab.Lab, node fleet.NodeName, argv ...string) string {
	tb.Helper()
	out, code := TryExec(tb, l, node, argv...)
	if code != 0 {
		tb.Fatalf("%s: %s: exit code %d: %s", node, strings.Join(argv, " "), code, out)
	}
	return out
}

// TryExec is Exec for commands that may fail: it returns their exit code.
func TryExec(tb testing.TB, l *lab.Lab, node fleet.NodeName, argv ...string) (string, int) {
	tb.Helper()
	var out strings.Builder
	code, err := l.Exec(tb.Context(), node, argv, lab.Stdio{In: strings.NewReader(""), Out: &out, Err: &out})
	if err != nil {
		tb.Fatalf("%s: %s: %v", node, strings.Join(argv, " "), err)
	}
	return strings.TrimRight(out.String(), "\n"), code
}

// Run runs a command of this box as the operator in the lab's internet, or in
// the LAN of the site from, and returns its output and exit code.
func Run(tb testing.TB, l *lab.Lab, from fleet.SiteName, argv ...string) (string, int) {
	tb.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		tb.Fatal(err)
	}
	var out strings.Builder
	code, err := l.Run(tb.Context(), from, argv, lab.Stdio{In: strings.NewReader(""), Out: &out, Err: &out})
	if err != nil {
		tb.Fatalf("run %s: %v", strings.Join(argv, " "), err)
	}
	return strings.TrimRight(out.String(), "\n"), code
}
