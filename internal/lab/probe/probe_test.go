package probe

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// clock is a time that a test moves on.
type clock struct{ now time.Time }

func (c *clock) read() time.Time { return c.now }

// answer has every pair but the silent ones answer a probe, Interval after
// Interval, for so long.
func answer(p *Prober, c *clock, nodes []fleet.NodeName, silent map[Pair]bool, long time.Duration) {
	for end := c.now.Add(long); c.now.Before(end); c.now = c.now.Add(Interval) {
		eachPair(nodes, func(pair Pair) {
			if !silent[pair] {
				p.heard(pair, c.now, c.now.Add(20*time.Millisecond))
			}
		})
	}
}

func TestSilences(t *testing.T) {
	nodes := []fleet.NodeName{"a", "b", "c"}
	c := &clock{time.Unix(1_800_000_000, 0)}
	p := New(nil, c.read)
	if got := p.Silent(nodes); len(got) != 6 {
		t.Errorf("silent before anything was heard: %v, want all six", got)
	}
	answer(p, c, nodes, nil, 3*time.Second)
	if got := p.Silent(nodes); len(got) != 0 {
		t.Errorf("silent: %v, want none", got)
	}
	if d, pair := p.Longest(nodes); d != 0 || pair != (Pair{}) {
		t.Errorf("no probe was lost, yet the longest silence is %v, %v", d, pair)
	}
	cut := map[Pair]bool{{"b", "c"}: true}
	answer(p, c, nodes, cut, 500*time.Millisecond)
	if got := p.Silent(nodes); len(got) != 0 {
		t.Errorf("half a second counts as silent already: %v", got)
	}
	answer(p, c, nodes, cut, 2*time.Second)
	if got := p.Silent(nodes); !slices.Equal(got, []Pair{{"b", "c"}}) {
		t.Errorf("silent: %v, want b -> c", got)
	}
	if d, pair := p.Longest(nodes); d != 2600*time.Millisecond || pair != (Pair{"b", "c"}) {
		t.Errorf("a silence that goes on: %v of %v, want 2.6 s of b -> c", d, pair)
	}
	answer(p, c, nodes, nil, time.Second)
	if d, pair := p.Longest(nodes); d != 2600*time.Millisecond || pair != (Pair{"b", "c"}) {
		t.Errorf("a silence that ended: %v of %v, want 2.6 s of b -> c", d, pair)
	}
	if d, _ := p.Longest([]fleet.NodeName{"a", "b"}); d != 0 {
		t.Errorf("c's silence was counted for a and b: %v", d)
	}
	p.Mark()
	if d, _ := p.Longest(nodes); d != 0 {
		t.Errorf("after a mark: %v", d)
	}
	p.Mark("c")
	if got := p.Silent(nodes); len(got) != 4 {
		t.Errorf("a node that was forgotten: %v, want its four pairs", got)
	}
}

func TestOneLostProbe(t *testing.T) {
	nodes := []fleet.NodeName{"a", "b"}
	c := &clock{time.Unix(1_800_000_000, 0)}
	p := New(nil, c.read)
	answer(p, c, nodes, nil, time.Second)
	answer(p, c, nodes, map[Pair]bool{{"a", "b"}: true}, Interval)
	answer(p, c, nodes, nil, time.Second)
	if d, pair := p.Longest(nodes); d != 2*Interval || pair != (Pair{"a", "b"}) {
		t.Errorf("one lost probe: %v of %v, want %v", d, pair, 2*Interval)
	}
}

func TestAnswersOutOfOrderAndLate(t *testing.T) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	p := New(nil, c.read)
	pair := Pair{"a", "b"}
	at := func(ms int) time.Time { return c.now.Add(time.Duration(ms) * time.Millisecond) }
	p.heard(pair, at(0), at(10))
	p.heard(pair, at(200), at(210))
	p.heard(pair, at(100), at(215)) // overtaken
	p.heard(pair, at(300), at(1500))
	if tr := p.tracks[pair]; !tr.heard.Equal(at(200)) || tr.longest != 200*time.Millisecond {
		t.Errorf("heard %v, longest %v; want the probe of 200 ms", tr.heard.Sub(c.now), tr.longest)
	}
}

// TestSockets probes this box itself, on the loopback device.
func TestSockets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("raw ICMP sockets need root")
	}
	p := New(map[fleet.NodeName]netip.Addr{"a": netip.MustParseAddr("127.0.0.1"), "b": netip.MustParseAddr("127.0.0.2")}, time.Now)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 2)
	for _, n := range []fleet.NodeName{"a", "b"} {
		go func() { done <- p.From(ctx, n, func(f func() error) error { return f() }) }()
	}
	for len(p.Silent([]fleet.NodeName{"a", "b"})) > 0 {
		if ctx.Err() != nil {
			t.Fatal("nothing was heard in 10 s")
		}
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	sealed := errors.New("sealed")
	if err := p.From(t.Context(), "a", func(func() error) error { return sealed }); !errors.Is(err, sealed) {
		t.Errorf("a namespace that cannot be entered: %v", err)
	}
}
