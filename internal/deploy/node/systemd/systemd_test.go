package systemd

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/node/command"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
)

// testSystemd is what every Manager must do. Put gives a unit file a content,
// "" removes it; the units are called moggy-test-*.
func testSystemd(t *testing.T, s Manager, put func(unit, content string), launch []string, launched func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const a, bad, none = "moggy-test-a.service", "moggy-test-bad.service", "moggy-test-none.service"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	show := func(unit string) Status {
		t.Helper()
		states, err := s.Show(ctx, none, unit)
		must(err)
		if len(states) != 2 || states[0].Name != none || states[0].Load != "not-found" || states[1].Name != unit {
			t.Fatalf("show: %+v", states)
		}
		return states[1]
	}
	put(a, "[Service]\nExecStart=/bin/sleep 1001\n")
	put(bad, "[Service]\nType=exec\nExecStart=/nonexistent/crash\n")
	must(s.DaemonReload(ctx))
	if u := show(a); u.Load != "loaded" || u.Active != "inactive" || u.ActiveFor != 0 || u.Runs() {
		t.Errorf("before it starts: %+v", u)
	}
	must(s.Do(ctx, Start, a))
	if u := show(a); u.Active != "active" || u.ActiveFor <= 0 || !u.Runs() || u.Broken() != "" {
		t.Errorf("started: %+v", u)
	}
	must(s.Do(ctx, Start, a)) // again is no error
	must(s.Do(ctx, Restart, a))
	must(s.Do(ctx, Stop, a))
	must(s.Do(ctx, Stop, a))
	if u := show(a); u.Active != "inactive" {
		t.Errorf("stopped: %+v", u)
	}
	must(s.Do(ctx, Restart, a)) // starts what does not run
	if err := s.Do(ctx, Start, bad); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("a unit that cannot start: %v", err)
	}
	if u := show(bad); u.Active != "failed" || u.Broken() == "" {
		t.Errorf("failed: %+v", u)
	}
	if err := s.Do(ctx, Start, none); err == nil {
		t.Error("a unit that is not there was started")
	}
	put(a, "")
	must(s.DaemonReload(ctx))
	if u := show(a); u.Active != "active" {
		t.Errorf("running without its file: %+v", u)
	}
	must(s.Do(ctx, Stop, a))
	if u := show(a); u.Load != "not-found" || u.Active != "inactive" {
		t.Errorf("gone: %+v", u)
	}
	put(bad, "")
	must(s.DaemonReload(ctx))
	const job = "moggy-test-job.service"
	must(s.Launch(ctx, job, launch...))
	for show(job).Active != "inactive" {
		if ctx.Err() != nil {
			t.Fatal("the job does not end")
		}
	}
	if !launched() {
		t.Error("the job did nothing")
	}
	must(s.Launch(ctx, job, launch...)) // the name can be used again
}

func TestSystemdFake(t *testing.T) {
	s := &Fake{Root: t.TempDir(), Crash: "crash"}
	dir := s.Root + protocol.SystemdDir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var ran []string
	s.Run = func(command []string) {
		mu.Lock()
		defer mu.Unlock()
		ran = command
	}
	put := func(unit, content string) {
		if content == "" {
			os.Remove(dir + "/" + unit)
			return
		}
		if err := os.WriteFile(dir+"/"+unit, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	testSystemd(t, s, put, []string{"true"}, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(ran) == 1
	})
	s.Wait()
}

// TestSystemdReal changes the machine's units: it runs where it is told to, on
// a lab's machine (TestLabNode).
func TestSystemdReal(t *testing.T) {
	if os.Getenv("MOGGY_TEST_SYSTEMD") == "" {
		t.Skip("needs a machine to spoil: see TestLabNode")
	}
	put := func(unit, content string) {
		path := "/etc/systemd/system/" + unit
		if content == "" {
			os.Remove(path)
			return
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	proof := t.TempDir() + "/proof"
	testSystemd(t, Systemctl{Run: command.Run}, put, []string{"/bin/touch", proof}, func() bool {
		_, err := os.Stat(proof)
		return err == nil
	})
}

func TestParseShow(t *testing.T) {
	const block = `Type=simple
Result=success
NRestarts=2
LoadState=loaded
ActiveState=active
SubState=running
ActiveEnterTimestampMonotonic=5000000`
	want := Status{
		Name: "a.service", Load: "loaded", Active: "active", Sub: "running", Type: "simple", Result: "success", Restarts: 2, ActiveFor: 3 * time.Second,
	}
	if diff := cmp.Diff(want, parseShow("a.service", block, 8*time.Second)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got := parseShow("a.timer", "LoadState=loaded\nActiveState=inactive\nNRestarts=[not set]\nActiveEnterTimestampMonotonic=0", time.Second)
	if got.ActiveFor != 0 || got.Restarts != 0 || got.Runs() {
		t.Errorf("%+v", got)
	}
}

// FuzzParseShow: systemctl's words, whatever they are, do not stop us.
func FuzzParseShow(f *testing.F) {
	f.Add("LoadState=loaded\nActiveState=active\nActiveEnterTimestampMonotonic=5000000")
	f.Fuzz(func(t *testing.T, block string) {
		u := parseShow("a.service", block, time.Hour)
		if u.ActiveFor < 0 || u.Name != "a.service" || u.ActiveFor > 0 && !u.Runs() {
			t.Errorf("%+v", u)
		}
	})
}
