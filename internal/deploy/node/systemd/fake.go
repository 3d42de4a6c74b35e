package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
)

// Fake is a Manager that starts nothing and remembers everything: a
// working stand-in for tests of what uses nodes. Like the real one it knows a
// unit by what its file said when it was last told to read it. Its methods may
// be called from any goroutine.
type Fake struct {
	Root string // of the machine whose unit files it reads
	// Crash holds the content of files with which a unit does not start, by a
	// word in its unit file.
	Crash string
	// Config is a file that every unit reads when it starts and when it reloads.
	Config string

	mu      sync.Mutex
	loaded  map[string]string // unit files as they were read
	started map[string]string // and as they were when the unit started
	read    map[string]string // Config, as each unit read it last
	active  map[string]bool
	failed  map[string]bool
	again   map[string]int // how often systemd restarted it
	calls   []string
	wait    sync.WaitGroup
	// Run carries out what is launched.
	Run func(command []string)
}

var _ Manager = (*Fake)(nil)

// foreignContent stands for the unit files of the distribution's units.
const foreignContent = "[Unit]\nDescription=not ours\n"

// Calls are what was done to units since the last time, "restart a.service".
func (s *Fake) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.calls
	s.calls = nil
	return out
}

// Kill makes a unit stop by itself.
func (s *Fake) Kill(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.active, unit)
}

// Restarted makes a unit crash and be started again by systemd.
func (s *Fake) Restarted(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.again == nil {
		s.again = make(map[string]int)
	}
	s.again[unit]++
}

// Off stops everything, as a power loss does.
func (s *Fake) Off() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active, s.failed, s.loaded, s.again = nil, nil, nil, nil
}

// Reboot stops everything and starts what is enabled.
func (s *Fake) Reboot() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active, s.failed, s.loaded, s.again = nil, nil, nil, nil
	entries, err := os.ReadDir(s.Root + protocol.SystemdDir + "/multi-user.target.wants")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if content, ok := s.file(e.Name()); ok {
			s.set(e.Name(), content, !s.crashes(content))
		}
	}
	return nil
}

// DaemonReload reads every unit file of ours again.
func (s *Fake) DaemonReload(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "daemon-reload")
	for name := range s.loaded {
		content, ok := s.file(name)
		if !ok {
			delete(s.loaded, name)
			continue
		}
		s.loaded[name] = content
	}
	return nil
}

// Do starts, stops, restarts or reloads.
func (s *Fake) Do(_ context.Context, verb Verb, units ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range units {
		s.calls = append(s.calls, string(verb)+" "+u)
		content, ok := s.load(u)
		switch {
		case verb == Stop:
			delete(s.active, u)
			delete(s.failed, u)
		case !ok:
			return fmt.Errorf("unit %s not found", u)
		case verb == Reload && !s.active[u]:
			return fmt.Errorf("unit %s cannot be reloaded because it is inactive", u)
		case verb == Reload:
			s.config(u)
		case verb == Restart || verb == Start:
			s.set(u, content, !s.crashes(content))
			if s.failed[u] {
				return fmt.Errorf("job for %s failed", u)
			}
		}
	}
	return nil
}

// Queue is Do; what cannot be done is not heard of.
func (s *Fake) Queue(ctx context.Context, verb Verb, units ...string) error {
	for _, u := range units {
		s.Do(ctx, verb, u) //nolint:errcheck // see above
	}
	return nil
}

// Show says how units are.
func (s *Fake) Show(_ context.Context, units ...string) ([]Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, len(units))
	for i, u := range units {
		out[i] = Status{Name: u, Load: "not-found", Active: "inactive", Sub: "dead", Type: "simple", Result: "success"}
		if _, ok := s.load(u); ok {
			out[i].Load = "loaded"
		}
		switch {
		case s.active[u]:
			out[i].Active, out[i].Sub, out[i].ActiveFor = "active", "running", time.Hour
		case s.failed[u]:
			out[i].Active, out[i].Sub, out[i].Result = "failed", "failed", "exit-code"
		}
		out[i].Restarts = s.again[u]
	}
	return out, nil
}

// Log is one line that says which unit it is of.
func (s *Fake) Log(_ context.Context, unit string, _ int) []string {
	return []string{"log of " + unit}
}

// Launch runs the command through Run, in a goroutine.
func (s *Fake) Launch(_ context.Context, unit string, command ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[unit] {
		return fmt.Errorf("unit %s was already loaded", unit)
	}
	s.set(unit, "", true)
	s.wait.Go(func() {
		s.Run(command)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.active, unit)
		delete(s.loaded, unit)
	})
	return nil
}

// Wait waits until everything that was launched has ended.
func (s *Fake) Wait() { s.wait.Wait() }

// Foreign makes a unit of the distribution's that runs.
func (s *Fake) Foreign(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(unit, foreignContent, true)
}

// Running says what the unit file said with which a unit runs, "" if it does
// not run.
func (s *Fake) Running(unit string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.active[unit] {
		return ""
	}
	return s.started[unit]
}

// Read is what a unit read last in Config.
func (s *Fake) Read(unit string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read[unit]
}

// config has the unit read its configuration.
func (s *Fake) config(unit string) {
	if s.read == nil {
		s.read = make(map[string]string)
	}
	b, err := os.ReadFile(s.Root + s.Config)
	if err != nil {
		b = nil
	}
	s.read[unit] = string(b)
}

func (s *Fake) set(unit, content string, runs bool) {
	if s.loaded == nil {
		s.loaded = make(map[string]string)
	}
	if s.active == nil {
		s.active, s.failed, s.started = make(map[string]bool), make(map[string]bool), make(map[string]string)
	}
	s.loaded[unit], s.started[unit] = content, content
	s.config(unit)
	s.active[unit], s.failed[unit] = runs, !runs
}

// load is what the unit's file said when it was last read; it is read now if
// it never was.
func (s *Fake) load(unit string) (string, bool) {
	if content, ok := s.loaded[unit]; ok {
		return content, true
	}
	content, ok := s.file(unit)
	if ok && s.loaded == nil {
		s.loaded = make(map[string]string)
	}
	if ok {
		s.loaded[unit] = content
	}
	return content, ok
}

func (s *Fake) file(unit string) (string, bool) {
	if s.loaded[unit] == foreignContent {
		return foreignContent, true
	}
	b, err := os.ReadFile(s.Root + protocol.UnitFile(unit))
	return string(b), err == nil
}

func (s *Fake) crashes(content string) bool {
	return s.Crash != "" && strings.Contains(content, s.Crash)
}
