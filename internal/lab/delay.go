package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab/hold"
	"github.com/moggyfleet/moggy/internal/lab/space"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// longest is the longest delay: longer ones nothing would outlast.
const longest = time.Minute

var errDelay = errors.New("not a delay between 0 and a minute")

// Delay holds every packet that a node or a site sends to or gets from beyond
// its site, for d each way. 0 ends that.
func (l *Lab) Delay(ctx context.Context, name string, d time.Duration) error {
	if d < 0 || d > longest {
		return fmt.Errorf("%v: %w", d, errDelay)
	}
	s, err := l.open(ctx, true)
	if err != nil {
		return err
	}
	defer s.close()
	who, err := s.net.Party(name)
	if err != nil {
		return hint.Wrap(err, "moggy lab status lists them")
	}
	delays := slices.DeleteFunc(slices.Clone(s.state.Delays), func(o topology.Delay) bool { return o.Of == who })
	if d > 0 {
		delays = append(delays, topology.Delay{Of: who, For: d, Queue: freeQueue(s.state.Delays)})
	}
	return s.applyDelays(ctx, delays)
}

// freeQueue is the number of a queue that none of the delays has.
func freeQueue(delays []topology.Delay) uint16 {
	for n := uint16(1); ; n++ {
		if !slices.ContainsFunc(delays, func(d topology.Delay) bool { return d.Queue == n }) {
			return n
		}
	}
}

// applyDelays makes exactly these delays. Packets are sent to a queue only while
// somebody holds it, and what was held before is let go only when nothing is
// sent there any more: nothing is lost.
func (s *session) applyDelays(ctx context.Context, delays []topology.Delay) error {
	slow, err := s.net.Slowness(delays)
	if err != nil || len(delays) == 0 && len(s.state.Delays) == 0 {
		return err
	}
	s.state.Delays = append(slices.DeleteFunc(s.state.Delays, func(d topology.Delay) bool { return slices.Contains(delays, d) }), delays...)
	if err := s.save(); err != nil {
		return err
	}
	for _, r := range slices.Sorted(maps.Keys(slow)) {
		if err := s.heldBack(ctx, r, slow[r]); err != nil {
			return err
		}
		if err := s.mangle(ctx, r, slow[r]); err != nil {
			return err
		}
	}
	s.state.Delays = delays
	return s.save()
}

func (s *session) mangle(ctx context.Context, router string, slow topology.Slowness) error {
	for _, family := range []struct{ program, script string }{{"iptables-restore", slow.V4}, {"ip6tables-restore", slow.V6}} {
		program, err := exec.LookPath(family.program)
		if err != nil {
			return hint.Wrap(err, "apt-get install --no-install-recommends iptables")
		}
		if err := space.Do(s.full(router), func() error {
			cmd := exec.CommandContext(ctx, program)
			cmd.Stdin = strings.NewReader(family.script)
			var said bytes.Buffer
			cmd.Stderr = &said
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s in %s: %w: %s", family.program, router, err, strings.TrimSpace(said.String()))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

var errNobodyHolds = errors.New("nobody holds its packets back: the lab's internet does not answer")

// heldBack waits until somebody listens to all of the router's queues.
func (s *session) heldBack(ctx context.Context, router string, slow topology.Slowness) error {
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		all := true
		if err := space.Do(s.full(router), func() error {
			for num := range slow.Queues {
				all = all && hold.Bound(num)
			}
			return nil
		}); err != nil {
			return err
		}
		if all {
			return nil
		}
		select {
		case <-ctx.Done():
			return hint.Wrap(fmt.Errorf("%s: %w", router, errNobodyHolds), "moggy lab up starts it again")
		case <-tick.C:
		}
	}
}

// pace is how often the lab's internet looks whether delays have changed.
const pace = 20 * time.Millisecond

// queue is one that is held, and for how long.
type queue struct {
	router string
	num    uint16
	d      time.Duration
}

// holdBack holds what the lab's delays say, until ctx ends.
func (l *live) holdBack(ctx context.Context) error {
	holding := map[queue]context.CancelFunc{}
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		wanted := l.queues()
		for q, stop := range holding {
			if !wanted[q] {
				stop()
				delete(holding, q)
			}
		}
		for q := range wanted {
			if holding[q] != nil {
				continue
			}
			if stop := l.hold(ctx, q); stop != nil {
				holding[q] = stop
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// queues are those that are to be held now; none while that cannot be read.
func (l *live) queues() map[queue]bool {
	wanted := map[queue]bool{}
	s, err := l.read()
	if err != nil {
		return wanted
	}
	slow, err := s.net.Slowness(s.state.Delays)
	if err != nil {
		return wanted
	}
	for r := range slow {
		for num, d := range slow[r].Queues {
			wanted[queue{r, num, d}] = true
		}
	}
	return wanted
}

// hold holds one queue until the function it returns is called; nil where that
// cannot be yet.
func (l *live) hold(ctx context.Context, q queue) context.CancelFunc {
	var h *hold.Queue
	if err := space.Do(l.lab.full(q.router), func() (err error) {
		h, err = hold.Open(q.num)
		return err
	}); err != nil {
		return nil // whoever waits for it sees that nobody listens
	}
	ctx, stop := context.WithCancel(ctx)
	go func() {
		defer stop()
		_ = h.Run(ctx, q.d) // likewise
	}()
	return stop
}
