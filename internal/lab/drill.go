package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab/probe"
	"github.com/moggyfleet/moggy/internal/lab/space"
)

// Drill is what came of failing nodes in turn.
type Drill struct {
	Version int     `json:"version"` // 1
	Rounds  []Round `json:"rounds"`
}

// Passed says whether every pair of survivors found together again, every
// time.
func (d Drill) Passed() bool {
	return !slices.ContainsFunc(d.Rounds, func(r Round) bool { return len(r.Lost) > 0 || !r.Returned })
}

// Round is what came of failing one node.
type Round struct {
	Node  fleet.NodeName `json:"node"`
	Pairs int            `json:"pairs"` // of survivors, each way counted
	// Silence is the longest time any pair of survivors did not reach each
	// other, 0 where no probe was lost; Worst is whose it was.
	Silence Seconds  `json:"silence_s"`
	Worst   string   `json:"worst,omitempty"`
	Lost    []string `json:"lost"` // pairs of survivors that never recovered
	// Back is the time from the moment the node was switched on again until
	// it and everybody reached each other.
	Back     Seconds `json:"back_s"`
	Returned bool    `json:"returned"`
}

// Seconds is a duration that JSON holds as a number of seconds.
type Seconds time.Duration

// MarshalJSON rounds to milliseconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", time.Duration(s).Seconds()), nil
}

// The patience of a drill.
const (
	drillReady  = 10 * time.Second // for everybody to reach everybody, before
	drillSettle = 8 * time.Second  // watched at least, after a node failed: late damage shows
	drillLimit  = 45 * time.Second // for survivors to find together, and for the node to be back
)

var (
	errNotReady = errors.New("do not reach each other before anything has failed")
	errFew      = errors.New("a drill needs at least three nodes with addresses")
)

// Drill fails the given nodes in turn, or every node if there are none given,
// while every node with an address pings all others without pause, and heals
// each before the next. The addresses are those that must keep working: the
// mesh's.
func (l *Lab) Drill(ctx context.Context, addrs map[fleet.NodeName]netip.Addr, only []fleet.NodeName, p Progress) (Drill, error) {
	s, err := l.open(ctx, false)
	if err != nil {
		return Drill{}, err
	}
	var nodes []fleet.NodeName
	for _, place := range s.net.Machines {
		if addrs[place.Node].IsValid() {
			nodes = append(nodes, place.Node)
		}
	}
	if len(nodes) < 3 {
		return Drill{}, errFew
	}
	d := &drill{session: s, ctx: ctx, nodes: nodes, prober: probe.New(addrs, l.opts.Now), sources: map[fleet.NodeName]func(){}}
	defer d.stopAll()
	for _, n := range nodes {
		if err := d.probeFrom(n); err != nil {
			return Drill{}, err
		}
	}
	if silent := d.until(nodes, 0, drillReady); len(silent) > 0 {
		return Drill{}, hint.Wrap(fmt.Errorf("%s %w", silent[0], errNotReady), "moggy lab status shows faults; moggy lab run -- moggy status shows paths")
	}
	out := Drill{Version: 1}
	if len(only) == 0 {
		only = nodes
	}
	for _, n := range only {
		if _, _, err := s.node(n); err != nil {
			return out, err
		}
		r, err := d.round(n, p)
		if err != nil {
			return out, err
		}
		out.Rounds = append(out.Rounds, r)
	}
	return out, ctx.Err()
}

type drill struct {
	*session
	ctx     context.Context //nolint:containedctx // a drill is one call, in several methods
	nodes   []fleet.NodeName
	prober  *probe.Prober
	sources map[fleet.NodeName]func()
}

// probeFrom starts the node's probes.
func (d *drill) probeFrom(n fleet.NodeName) error {
	place, _, err := d.node(n)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(d.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		// Without a socket the node's pairs stay silent, which is reported.
		_ = d.prober.From(ctx, n, func(f func() error) error { return space.Do(d.full(place.Space), f) })
	})
	d.sources[n] = func() { cancel(); done.Wait() }
	return nil
}

func (d *drill) stopFrom(n fleet.NodeName) {
	if stop := d.sources[n]; stop != nil {
		stop()
		delete(d.sources, n)
	}
}

func (d *drill) stopAll() {
	for n := range d.sources {
		d.stopFrom(n)
	}
}

// until watches the nodes until none of their pairs is silent, but at least
// and at most so long. It returns the pairs that are silent then.
func (d *drill) until(nodes []fleet.NodeName, least, most time.Duration) []probe.Pair {
	start := d.opts.Now()
	tick := time.NewTicker(probe.Interval)
	defer tick.Stop()
	for {
		silent := d.prober.Silent(nodes)
		took := d.opts.Now().Sub(start)
		if took >= most || len(silent) == 0 && took >= least {
			return silent
		}
		select {
		case <-d.ctx.Done():
			return silent
		case <-tick.C:
		}
	}
}

func (d *drill) round(n fleet.NodeName, p Progress) (Round, error) {
	survivors := slices.DeleteFunc(slices.Clone(d.nodes), func(m fleet.NodeName) bool { return m == n })
	r := Round{Node: n, Pairs: len(survivors) * (len(survivors) - 1), Lost: []string{}}
	name := string(n)
	p.Step(name, fmt.Sprintf("plug pulled; watching %d pairs", r.Pairs))
	d.stopFrom(n)
	d.prober.Mark(n)
	if err := d.Fail(d.ctx, string(n)); err != nil {
		return r, err
	}
	for _, pair := range d.until(survivors, drillSettle, drillLimit) {
		r.Lost = append(r.Lost, pair.String())
	}
	p.Step(name, "switched on again")
	start := d.opts.Now()
	if err := d.Heal(context.WithoutCancel(d.ctx), name, silentProgress{}); err != nil {
		return r, err
	}
	if err := d.ctx.Err(); err != nil {
		return r, err
	}
	if err := d.probeFrom(n); err != nil {
		return r, err
	}
	r.Returned = len(d.until(d.nodes, 0, drillLimit)) == 0
	r.Back = Seconds(d.opts.Now().Sub(start))
	silence, pair := d.prober.Longest(survivors)
	r.Silence = Seconds(silence)
	if silence > 0 {
		r.Worst = pair.String()
	}
	d.tell(r, p)
	return r, nil
}

func (d *drill) tell(r Round, p Progress) {
	kept := fmt.Sprintf("%d of %d pairs of the others", r.Pairs-len(r.Lost), r.Pairs)
	switch {
	case len(r.Lost) > 0:
		p.Fail(string(r.Node), fmt.Errorf("%s found together again; not %s", kept, r.Lost[0])) //nolint:err113 // shown, not compared
	case !r.Returned:
		p.Fail(string(r.Node), fmt.Errorf("%s kept working, but it did not come back", kept)) //nolint:err113 // shown, not compared
	default:
		p.Done(string(r.Node), fmt.Sprintf("%s, longest silence %.1f s, back in %.1f s",
			kept, time.Duration(r.Silence).Seconds(), time.Duration(r.Back).Seconds()))
	}
}

// silentProgress is for those who tell the story themselves.
type silentProgress struct{}

func (silentProgress) Step(string, string) {}
func (silentProgress) Done(string, string) {}
func (silentProgress) Fail(string, error)  {}
