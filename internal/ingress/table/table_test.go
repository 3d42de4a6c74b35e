package table

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func config(backends int) fleet.IngressConfig {
	s := fleet.IngressService{Name: "web", Health: fleet.HealthHTTP, Path: "/"}
	for i := range backends {
		s.Backends = append(s.Backends, fleet.IngressBackend{
			Node:    fleet.NodeName(fmt.Sprintf("n%d", i)),
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 8080),
		})
	}
	return fleet.IngressConfig{
		Services: []fleet.IngressService{s, {Name: "api"}, {Name: "tool"}},
		Routes: []fleet.IngressRoute{
			{Host: "cats.example", Path: "/", To: fleet.Public, Service: "web"},
			{Host: "cats.example", Path: "/api", To: fleet.Public, Service: "api"},
			{Host: "cats.example", Path: "/api/admin", To: fleet.Mesh, Service: "tool"},
			{Host: "tool.cats.example", Path: "/", To: fleet.Mesh, Service: "tool"},
		},
	}
}

var start = time.Unix(1_700_000_000, 0)

func TestRoute(t *testing.T) {
	table := New(config(1), nil, start)
	for _, c := range []struct{ host, path, want string }{
		{"cats.example", "/", "web"},
		{"cats.example", "/apis", "web"},
		{"cats.example", "/api", "api"},
		{"cats.example", "/api/", "api"},
		{"cats.example", "/api/v1", "api"},
		{"cats.example", "/api/administrator", "api"},
		{"cats.example", "/api/admin", "tool"},
		{"cats.example", "/api/admin/x", "tool"},
		{"cats.example", "*", ""}, // OPTIONS *
		{"cats.example", "", ""},
		{"other.example", "/", ""},
		{"", "/", ""},
	} {
		got, ok := table.Route(c.host, c.path)
		if string(got.Service) != c.want || ok != (c.want != "") {
			t.Errorf("%s%s leads to %q, want %q", c.host, c.path, got.Service, c.want)
		}
	}
	if a, ok := table.Audience("cats.example"); a != fleet.Public || !ok {
		t.Errorf("cats.example is for %q", a)
	}
	if a, ok := table.Audience("tool.cats.example"); a != fleet.Mesh || !ok {
		t.Errorf("tool.cats.example is for %q", a)
	}
}

func probeAll(table *Table, o Outcome, now time.Time) {
	for _, b := range table.all {
		table.Probed(b, o, "no answer", now)
	}
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []Outcome // of probes
		want   fleet.BackendState
	}{
		{"nothing known", nil, fleet.BackendProbe},
		{"one answer is enough for a new one", []Outcome{Answered}, fleet.BackendUp},
		{"one failure is not", []Outcome{Answered, Failed}, fleet.BackendUp},
		{"two in a row are", []Outcome{Answered, Failed, Failed}, fleet.BackendDown},
		{"not in a row", []Outcome{Answered, Failed, Answered, Failed}, fleet.BackendUp},
		{"refused at once", []Outcome{Answered, Refused}, fleet.BackendDown},
		{"a new one that fails", []Outcome{Failed, Failed}, fleet.BackendDown},
		{"back needs two", []Outcome{Refused, Answered}, fleet.BackendDown},
		{"back", []Outcome{Refused, Answered, Answered}, fleet.BackendUp},
		{"back needs two in a row", []Outcome{Refused, Answered, Refused, Answered}, fleet.BackendDown},
	} {
		table := New(config(1), nil, start)
		for i, o := range c.events {
			probeAll(table, o, start.Add(time.Duration(i)*time.Second))
		}
		if got := table.all[0].State; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestPick(t *testing.T) {
	table := New(config(3), nil, start)
	probeAll(table, Answered, start)
	seen := make(map[netip.AddrPort]int)
	for range 30 {
		b, fresh := table.Pick("web", nil, start)
		if !fresh {
			t.Error("nothing was tried, and all was")
		}
		seen[b.Address]++
		table.Done(b)
	}
	for a, n := range seen {
		if n != 10 {
			t.Errorf("%s got %d of 30 requests", a, n)
		}
	}
	// What is busy gets less.
	busy, _ := table.Pick("web", nil, start)
	for range 20 {
		b, _ := table.Pick("web", nil, start)
		if b == busy {
			t.Error("the busy one is asked while others are free")
		}
		table.Done(b)
	}
	table.Done(busy)
	// What was tried comes last, before what is down comes after what is up.
	a, b, c := table.all[0], table.all[1], table.all[2]
	if !table.Tried(a, Refused, "refused", start) {
		t.Error("refused, and still in")
	}
	for range 10 {
		got, fresh := table.Pick("web", []netip.AddrPort{b.Address}, start)
		if got != c || !fresh {
			t.Errorf("picked %s, want %s", got.Address, c.Address)
		}
		table.Done(got)
	}
	if got, fresh := table.Pick("web", []netip.AddrPort{b.Address, c.Address}, start); got != a || !fresh {
		t.Error("with all others tried, what is down is")
	}
	if _, fresh := table.Pick("web", []netip.AddrPort{a.Address, b.Address, c.Address}, start); fresh {
		t.Error("all were tried")
	}
	// All down: the one that failed longest ago.
	table.Tried(b, Refused, "refused", start.Add(time.Second))
	table.Tried(c, Refused, "refused", start.Add(2*time.Second))
	if got, _ := table.Pick("web", nil, start); got != a {
		t.Errorf("picked %s of those that are down", got.Address)
	}
	if got, _ := table.Pick("none", nil, start); got != nil {
		t.Error("picked of nothing")
	}
}

// TestOut plays the clock: a backend that falls silent at any moment of the round
// is out within 2 s.
func TestOut(t *testing.T) {
	for offset := time.Duration(0); offset < Interval; offset += 10 * time.Millisecond {
		table := New(config(1), nil, start)
		silent := start.Add(3*time.Second + offset)
		type answer struct {
			at time.Time
			b  *Backend
			o  Outcome
		}
		var open []answer
		now := start
		for table.all[0].State != fleet.BackendDown {
			if now.Sub(silent) > 2*time.Second {
				t.Fatalf("silent %v into the round: still in after 2 s", offset)
			}
			for _, a := range open {
				if !a.at.After(now) {
					table.Probed(a.b, a.o, "no answer", now)
				}
			}
			open = open[:0:0]
			due, next := table.Due(now, func() float64 { return 0 })
			if !next.After(now) {
				t.Fatal("due in the past")
			}
			for _, b := range due {
				if now.Before(silent) {
					table.Probed(b, Answered, "", now)
				} else {
					open = append(open, answer{now.Add(Timeout), b, Failed})
				}
			}
			if len(open) > 0 {
				now = open[0].at
			} else {
				now = next
			}
		}
	}
}

// TestLazy says what a hundred services of two instances cost that nobody wants.
func TestLazy(t *testing.T) {
	cfg := config(200)
	table := New(cfg, nil, start)
	probeAll(table, Answered, start)
	probes := 0
	for now := start; now.Before(start.Add(20 * time.Second)); now = now.Add(50 * time.Millisecond) {
		due, _ := table.Due(now, func() float64 { return 0.5 })
		for _, b := range due {
			probes++
			table.Probed(b, Answered, "", now)
		}
	}
	if perSecond := probes / 20; perSecond > 120 || perSecond < 50 {
		t.Errorf("%d probes per second", perSecond)
	}
}

func TestNewKeepsWhatItKnows(t *testing.T) {
	old := New(config(2), nil, start)
	probeAll(old, Refused, start)
	next := New(config(3), old, start.Add(time.Hour))
	if next.all[0].State != fleet.BackendDown || next.all[2].State != fleet.BackendProbe {
		t.Errorf("%s %s after a change of another", next.all[0].State, next.all[2].State)
	}
	cfg := config(2)
	cfg.Services[0].Path = "/health"
	if got := New(cfg, old, start); got.all[0].State != fleet.BackendProbe {
		t.Error("the question changed, and the old answer is believed")
	}
}
