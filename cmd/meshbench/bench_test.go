package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/lab/labtest"
)

// What the short form asks for: the machine that runs it is busy with other
// things, and these ratios are what a change for the worse would miss by far.
const (
	shortDirect  = 0.8 // of plain wireguard-go
	shortRelayed = 0.6 // of direct
)

// best is the best ratio of two figures that were measured one after the other.
func best(a, b series) float64 {
	var m float64
	for i := range a {
		m = max(m, a[i]/b[i])
	}
	return m
}

// TestAsUnit: what is measured runs as the agent does.
func TestAsUnit(t *testing.T) {
	unit, err := os.ReadFile("../../internal/engine/agent/moggy-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	if want := "\nTimerSlackNSec=" + strings.Replace(timerSlack.String(), "µ", "u", 1) + "\n"; !strings.Contains(string(unit), want) {
		t.Errorf("the agent's unit lacks %q", want)
	}
}

// TestNetnsSpeed is make bench-mesh in short: as many rounds as it takes, five at
// most, until each ratio was seen once.
func TestNetnsSpeed(t *testing.T) {
	labtest.Need(t)
	dir := t.TempDir()
	build := func(name, pkg string) string {
		t.Helper()
		to := filepath.Join(dir, name)
		c := exec.Command("go", "build", "-trimpath", "-o", to, pkg) // as make build: it may be there already
		c.Env = append(c.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return to
	}
	o := options{
		moggy:     build("moggy", "github.com/moggyfleet/moggy/cmd/moggy"),
		wireguard: build("wireguard-go", "golang.zx2c4.com/wireguard"),
		rounds:    5, transfer: time.Second, pings: 100, peers: 1000,
		enough: func(r *results) bool {
			return best(r.Direct, r.Plain) >= shortDirect && best(r.Relayed, r.Direct) >= shortRelayed
		},
	}
	r, err := measure(t.Context(), o, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := r.print(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &table)
	if f := best(r.Direct, r.Plain); f < shortDirect {
		t.Errorf("direct is %.2f of plain wireguard-go at best, want %.2f", f, shortDirect)
	}
	if f := best(r.Relayed, r.Direct); f < shortRelayed {
		t.Errorf("relayed is %.2f of direct at best, want %.2f", f, shortRelayed)
	}
	for _, m := range []struct {
		what string
		all  map[string]memory
		bar  float64
	}{{"idle", r.Idle, idleMB}, {"after the load", r.Loaded, loadedMB}, {"with 1,000 peers", r.Large, largeMB}} {
		if rss, _ := mostMemory(m.all); rss >= m.bar || rss == 0 {
			t.Errorf("%s an agent takes %.0f MB, the bar is %.0f", m.what, rss, m.bar)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		s    series
		want float64
	}{{nil, 0}, {series{3}, 3}, {series{3, 1}, 2}, {series{9, 1, 2}, 2}, {series{4, 1, 3, 2}, 2.5}} {
		before := slices.Clone(tt.s)
		if got := tt.s.median(); got != tt.want || !slices.Equal(before, tt.s) {
			t.Errorf("median of %v: %v, want %v", before, got, tt.want)
		}
	}
}

// TestTable: a figure that misses its bar is said to.
func TestTable(t *testing.T) {
	good := func() *results {
		return &results{
			Rounds: 1, Peers: 1000, Plain: series{100}, Direct: series{101}, Relayed: series{95},
			PlainRTT: series{0.5, 0.6}, DirectRTT: series{0.5, 0.6}, RelayedRTT: series{0.7, 0.8},
			Idle: map[string]memory{"a": {20, 20}}, Loaded: map[string]memory{"a": {90, 90}, "b": {80, 99}}, Large: map[string]memory{"a": {60, 60}},
			CPU: map[string]float64{"a": 0.1},
		}
	}
	for name, spoil := range map[string]func(r *results){
		"":                                func(*results) {},
		"direct, TCP":                     func(r *results) { r.Direct = series{99} },
		"relayed, TCP":                    func(r *results) { r.Relayed = series{90} },
		"direct, added to the round trip": func(r *results) { r.PlainRTT = series{0.4, 0.41} },
		"relayed, added one way":          func(r *results) { r.RelayedRTT = series{1} },
		"RSS, idle, six nodes (largest)":  func(r *results) { r.Idle["b"] = memory{32, 32} },
		"RSS after the load (largest)":    func(r *results) { r.Loaded["b"] = memory{128, 128} },
		"RSS, 1000 configured peers":      func(r *results) { r.Large["b"] = memory{64, 64} },
		"CPU, idle, six nodes (largest)":  func(r *results) { r.CPU["b"] = 0.3 },
	} {
		r := good()
		spoil(r)
		var missed []string
		for _, f := range r.figures() {
			if f.bar != "" && !f.met {
				missed = append(missed, f.what)
			}
		}
		if got := strings.Join(missed, "; "); got != name {
			t.Errorf("missed: %q, want %q", got, name)
		}
	}
}
