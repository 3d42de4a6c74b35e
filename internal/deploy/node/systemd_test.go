package node

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// testSystemd is what every Systemd must do. Put gives a unit file a content,
// "" removes it; the units are called moggy-test-*.
func testSystemd(t *testing.T, s Systemd, put func(unit, content string), launch []string, launched func() bool) {
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
	show := func(unit string) UnitStatus {
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
	if u := show(a); u.Load != "loaded" || u.Active != "inactive" || u.ActiveFor != 0 || u.runs() {
		t.Errorf("before it starts: %+v", u)
	}
	must(s.Do(ctx, Start, a))
	if u := show(a); u.Active != "active" || u.ActiveFor <= 0 || !u.runs() || u.broken() != "" {
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
	if u := show(bad); u.Active != "failed" || u.broken() == "" {
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
	m := newMachine(t)
	m.systemd.Crash = "crash"
	var mu sync.Mutex
	var ran []string
	m.systemd.Run = func(command []string) {
		mu.Lock()
		defer mu.Unlock()
		ran = command
	}
	put := func(unit, content string) {
		if content == "" {
			os.Remove(m.root + "/etc/systemd/system/" + unit)
			return
		}
		m.write("/etc/systemd/system/"+unit, content)
	}
	testSystemd(t, m.systemd, put, []string{"true"}, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(ran) == 1
	})
	m.systemd.Wait()
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
	testSystemd(t, Systemctl{Run: RunCommand}, put, []string{"/bin/touch", proof}, func() bool {
		_, err := os.Stat(proof)
		return err == nil
	})
}
