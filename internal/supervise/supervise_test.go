package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

const unit = "demo.service"

// machine is a node in a temporary directory, with generation 1 confirmed and 2
// staged.
type machine struct {
	*node.Node
	t       *testing.T
	root    string
	systemd *node.FakeSystemd
	report  node.ReportID
	began   time.Time
	jumped  atomic.Int64 // how far somebody has set the wall clock, in ns
	// dieAt kills the supervisor at the first event that fits.
	dieAt func(protocol.Event) bool
	ends  []protocol.Outcome
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir(), began: time.Now()}
	m.systemd = &node.FakeSystemd{Root: m.root, Crash: "crash"}
	m.Node = m.node("nico@laptop")
	for _, dir := range []string{"/etc/systemd/system", "/usr/local/bin", "/var/lib", "/run"} {
		if err := os.MkdirAll(m.root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.stage(1, "one")
	m.locked(func(h *node.Held) error {
		_, err := h.Activate(t.Context(), node.Target{Generation: 1}, func(protocol.Event) {})
		if err == nil {
			_, err = h.Confirm(1)
		}
		return err
	})
	m.stage(2, "two")
	id, err := m.Reports().New(2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m.report = id
	return m
}

func (m *machine) node(by string) *node.Node {
	return node.New(node.Options{
		Root: m.root, Systemd: m.systemd, By: by, Await: 5 * time.Second, Run: node.RunCommand,
		Now:    func() time.Time { return time.Now().Add(time.Duration(m.jumped.Load())) },
		Uptime: func() time.Duration { return time.Since(m.began) },
	})
}

func (m *machine) locked(work func(*node.Held) error) {
	m.t.Helper()
	h, err := m.Lock(m.t.Context(), "test")
	if err == nil {
		err = errors.Join(work(h), h.Release())
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) stage(number int, content string) {
	m.t.Helper()
	g := fleet.Manifest{Version: 1, Fleet: "one", Node: "solo", Generation: number, Units: []fleet.Unit{{Name: unit}}}
	files := []fleet.File{
		fleet.NewFile("/etc/demo.conf", 0o644, []byte(content)),
		fleet.NewFile("/etc/systemd/system/"+unit, 0o644, []byte("# "+content+"\n[Install]\nWantedBy=multi-user.target\n")),
	}
	var stream bytes.Buffer
	var blobs []protocol.Blob
	for _, f := range files {
		g.Files = append(g.Files, fleet.ManifestFile{Path: f.Path, Mode: f.Mode, Digest: f.Digest})
		blobs = append(blobs, protocol.Blob{Digest: f.Digest, Size: int64(len(f.Content))})
	}
	err := protocol.WriteStream(&stream, g, blobs, func(d fleet.Digest) (io.ReadCloser, error) {
		for _, f := range files {
			if f.Digest == d {
				return io.NopCloser(bytes.NewReader(f.Content)), nil
			}
		}
		return nil, fmt.Errorf("no %s", d)
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.locked(func(h *node.Held) error {
		_, err := h.Receive(&stream)
		return err
	})
}

type killed struct{}

// supervise is the unit's process; it says whether it was killed.
func (m *machine) supervise(within time.Duration) (dead bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			dead = true
		}
	}()
	s := Supervisor{
		Node: m.node("nico@laptop"), Target: node.Target{Generation: 2, Commit: "c0ffee"}, Report: m.report, Within: within,
		Tell: func(e protocol.Event) {
			if e.End != nil {
				m.ends = append(m.ends, *e.End)
			}
			if m.dieAt != nil && m.dieAt(e) {
				m.dieAt = nil
				panic(killed{})
			}
		},
	}
	return false, s.Run(m.t.Context())
}

// stands fails the test unless the generation is in force, and runs.
func (m *machine) stands(number int, content string) {
	m.t.Helper()
	o, err := m.Observe(m.t.Context(), node.Look{})
	if err != nil {
		m.t.Fatal(err)
	}
	if o.Current.Number != number || !o.Current.Confirmed || o.Activation != nil || len(o.Drift) > 0 || o.Probation != nil {
		m.t.Errorf("generation %+v, activation %+v, drift %v, probation %+v; want %d", o.Current, o.Activation, o.Drift, o.Probation, number)
	}
	if got := m.systemd.Running(unit); !strings.HasPrefix(got, "# "+content) {
		m.t.Errorf("the unit runs with %q", got)
	}
}

func (m *machine) lastTurn() fleet.Turn {
	m.t.Helper()
	turns, err := m.History()
	if err != nil || len(turns) == 0 {
		m.t.Fatalf("history: %v, %v", turns, err)
	}
	return turns[len(turns)-1]
}

// meanwhile does something 10 s after the generation began to wait. It is done
// before the directory goes.
func (m *machine) meanwhile(do func()) {
	done := make(chan struct{})
	m.t.Cleanup(func() { <-done })
	go func() {
		defer close(done)
		for m.Probation() == nil {
			time.Sleep(10 * time.Millisecond) // virtual
		}
		time.Sleep(10 * time.Second) // virtual
		do()
	}()
}

func (m *machine) confirm() {
	n := m.node("nico@laptop")
	h, err := n.Lock(context.Background(), "confirm 2")
	if err == nil {
		_, err = h.Confirm(2)
		err = errors.Join(err, h.Release())
	}
	if err != nil {
		m.t.Error(err)
	}
}

func TestProbation(t *testing.T) {
	const year = 365 * 24 * time.Hour
	tests := map[string]struct {
		within    time.Duration
		meanwhile func(m *machine)
		stands    int
		took      time.Duration // rounded
		why       string
	}{
		"confirmed":        {30 * time.Second, (*machine).confirm, 2, 10 * time.Second, ""},
		"nobody confirms":  {30 * time.Second, func(*machine) {}, 1, 30 * time.Second, "nobody confirmed it in time"},
		"crashes":          {30 * time.Second, func(m *machine) { m.systemd.Restarted(unit) }, 1, 10 * time.Second, "unit demo.service: crashed"},
		"stops":            {30 * time.Second, func(m *machine) { m.systemd.Kill(unit) }, 1, 15 * time.Second, "unit demo.service: inactive"},
		"a year ahead":     {30 * time.Second, func(m *machine) { m.jumped.Store(int64(year)) }, 1, 30 * time.Second, "nobody confirmed it in time"},
		"a year back":      {30 * time.Second, func(m *machine) { m.jumped.Store(-int64(year)) }, 1, 30 * time.Second, "nobody confirmed it in time"},
		"back, confirmed":  {30 * time.Second, func(m *machine) { m.jumped.Store(-int64(year)); m.confirm() }, 2, 10 * time.Second, ""},
		"nobody has to":    {0, nil, 2, 0, ""},
		"another in force": {30 * time.Second, (*machine).takeOver, 3, 10 * time.Second, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				if tt.meanwhile != nil {
					m.meanwhile(func() { tt.meanwhile(m) })
				}
				began := time.Now()
				_, err := m.supervise(tt.within)
				if took := time.Since(began).Round(time.Second); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
				if (tt.why == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.why) {
					t.Errorf("error %v, want %q", err, tt.why)
				}
				first := m.ends[0]
				if first.Generation != 2 || first.Error != "" || first.ConfirmBy.IsZero() != (tt.within == 0) {
					t.Errorf("the first end: %+v", first)
				}
				if tt.within == 0 {
					return
				}
				m.stands(tt.stands, map[int]string{1: "one", 2: "two", 3: "three"}[tt.stands])
				if tt.why == "" {
					return
				}
				out, err := m.Follow(t.Context(), 2, m.report, func([]byte) error { return nil })
				if err != nil || !out.WentBack || !strings.Contains(out.Error, tt.why) {
					t.Errorf("who comes later hears %+v, %v", out, err)
				}
				if last := m.lastTurn(); last.Kind != fleet.TurnWentBack || last.Generation != 1 || last.From != 2 ||
					last.Commit != "c0ffee" || last.By != "nico@laptop" || !strings.Contains(last.Why, tt.why) {
					t.Errorf("history: %+v", last)
				}
			})
		})
	}
}

// takeOver is another operator's generation.
func (m *machine) takeOver() {
	n := m.node("ada@desk")
	m.stage(3, "three")
	h, err := n.Lock(context.Background(), "activate 3")
	if err == nil {
		_, err = h.Activate(context.Background(), node.Target{Generation: 3}, func(protocol.Event) {})
		if err == nil {
			_, err = h.Confirm(3)
		}
		err = errors.Join(err, h.Release())
	}
	if err != nil {
		m.t.Error(err)
	}
}

// TestKilledAtEveryEvent kills the supervisor at each event it reports, there
// and on the way back, and has its unit start it again.
func TestKilledAtEveryEvent(t *testing.T) {
	for name, tt := range map[string]struct {
		confirm bool
		stands  int
	}{"then confirmed": {true, 2}, "then not": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			events := 0
			for k := 0; ; k++ {
				alive := false
				synctest.Test(t, func(t *testing.T) {
					m := newMachine(t)
					left := k
					m.dieAt = func(protocol.Event) bool { left--; return left < 0 }
					if tt.confirm {
						m.meanwhile(m.confirm)
					}
					dead, err := m.supervise(30 * time.Second)
					if alive = !dead; dead {
						_, err = m.supervise(30 * time.Second)
					}
					if (err == nil) != tt.confirm {
						t.Errorf("error %v", err)
					}
					m.stands(tt.stands, map[int]string{1: "one", 2: "two"}[tt.stands])
					if took := time.Since(m.began); took > time.Minute {
						t.Errorf("took %s", took)
					}
					out, err := m.Follow(t.Context(), 2, m.report, func([]byte) error { return nil })
					if err != nil || out.WentBack == tt.confirm {
						t.Errorf("the report ends with %+v, %v", out, err)
					}
				})
				if t.Failed() {
					t.Fatalf("killed at event %d", k)
				}
				if alive {
					events = k
					break
				}
			}
			t.Logf("%d events", events)
			if events < len(node.Steps()) {
				t.Errorf("only %d events", events)
			}
		})
	}
}

// TestGoesBackOnceTheLockIsFree: whoever has it may be confirming.
func TestGoesBackOnceTheLockIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.meanwhile(func() {
			h, err := m.node("ada@desk").Lock(context.Background(), "stage")
			if err != nil {
				t.Error(err)
				return
			}
			time.Sleep(40 * time.Second) // virtual
			h.Release()
		})
		if _, err := m.supervise(30 * time.Second); err == nil {
			t.Error("no error")
		}
		if took := time.Since(m.began).Round(time.Second); took != 50*time.Second {
			t.Errorf("took %s, want 50s", took)
		}
		m.stands(1, "one")
	})
}

// TestHeldAt is the drill's way to stop an activation at a step.
func TestHeldAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		at := m.root + "/run/moggy-node/hold-at"
		if err := os.WriteFile(at, []byte("start\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(5 * time.Second) // virtual
			os.Remove(at)
		}()
		if _, err := m.supervise(0); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(m.began).Round(time.Second); took != 5*time.Second {
			t.Errorf("took %s, want 5s", took)
		}
		var said bool
		m.Follow(t.Context(), 2, m.report, func(line []byte) error {
			var e protocol.Event
			if err := json.Unmarshal(line, &e); err != nil {
				return err
			}
			said = said || e.Step == "start" && strings.HasPrefix(e.Text, "waits at start")
			return nil
		})
		if !said {
			t.Error("the report does not say so")
		}
	})
}
