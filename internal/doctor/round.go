package doctor

import (
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Round is the probes on their way from not begun to over. It decides what may
// begin and what is skipped; whoever runs the probes tells it how they ended.
// It is not for use by several goroutines at once.
//
//	waiting ──▶ begun ──▶ passed, warning, failed
//	   ├──▶ skipped    something it needs failed, or was skipped
//	   └──▶ unneeded   another way serves
type Round struct {
	probes  []Probe
	index   map[ID]int
	waiters map[ID][]int // who looks at how that one ends
	queue   []int        // to be looked at again
	begun   map[ID]bool
	results map[ID]Result
	open    map[fleet.NodeName]int // probes that are not over
	running int
}

// NewRound begins with the probes in their graph's order.
func NewRound(probes []Probe) *Round {
	r := &Round{
		probes: probes, index: make(map[ID]int, len(probes)), waiters: make(map[ID][]int),
		begun: make(map[ID]bool), results: make(map[ID]Result), open: make(map[fleet.NodeName]int),
	}
	for i, p := range probes {
		r.index[p.ID] = i
		r.queue = append(r.queue, i)
		r.open[p.ID.Node]++
		for _, id := range slices.Concat(p.Needs, p.Any, p.After, []ID{p.Instead}) {
			r.waiters[id] = append(r.waiters[id], i)
		}
	}
	return r
}

// Begin returns the probes that can begin now, and counts them as begun. When
// it returns none and none is running, all are over.
func (r *Round) Begin() []Probe {
	var out []Probe
	for {
		for len(r.queue) > 0 {
			p := r.probes[r.queue[0]]
			r.queue = r.queue[1:]
			if r.begun[p.ID] {
				continue
			}
			switch res, state := r.look(p); state {
			case over:
				r.begun[p.ID] = true
				r.end(p.ID, res)
			case ready:
				r.begun[p.ID] = true
				r.running++
				out = append(out, p)
			case waiting:
			}
		}
		if len(out) > 0 || r.running > 0 || !r.untangle() {
			return out
		}
	}
}

func (r *Round) end(id ID, res Result) {
	r.results[id] = res
	r.open[id.Node]--
	r.queue = append(r.queue, r.waiters[id]...)
}

type state int

const (
	waiting state = iota
	ready
	over
)

// look says whether a probe waits, can begin, or is over with the result.
func (r *Round) look(p Probe) (Result, state) {
	if p.Instead != (ID{}) {
		res, done := r.result(p.Instead)
		if !done {
			return Result{}, waiting
		}
		if res.good() || res.Status == Unneeded {
			return Result{Status: Unneeded}, over
		}
	}
	wait := false
	for _, id := range p.Needs {
		res, done := r.result(id)
		switch {
		case !done:
			wait = true
		case res.Status == Unneeded:
			return Result{Status: Unneeded}, over
		case !res.good():
			return r.skip(id), over
		}
	}
	if res, s := r.anyOf(p); s != ready {
		return res, s
	}
	for _, id := range p.After {
		if _, done := r.result(id); !done {
			wait = true
		}
	}
	if wait {
		return Result{}, waiting
	}
	return Result{}, ready
}

// anyOf is ready as soon as one alternative has passed, over when all are over
// and none has: then it names the first that failed.
func (r *Round) anyOf(p Probe) (Result, state) {
	if len(p.Any) == 0 {
		return Result{}, ready
	}
	var because ID
	open, unneeded := false, 0
	for _, id := range p.Any {
		res, done := r.result(id)
		switch {
		case !done:
			open = true
		case res.good():
			return Result{}, ready
		case res.Status == Unneeded:
			unneeded++
		case because == ID{}:
			because = id
		}
	}
	switch {
	case open:
		return Result{}, waiting
	case unneeded == len(p.Any):
		return Result{Status: Unneeded}, over
	}
	return r.skip(because), over
}

// skip names the cause: where id was skipped itself, what that was because of.
func (r *Round) skip(id ID) Result {
	if res := r.results[id]; res.Status == Skipped {
		id = res.Because
	}
	return Result{Status: Skipped, Because: id}
}

// untangle ends a wait in a circle: two hubs that cannot be reached are each
// other's last way. Neither leads to the other.
func (r *Round) untangle() bool {
	for _, p := range r.probes {
		if r.begun[p.ID] || p.Hub == "" {
			continue
		}
		r.begun[p.ID] = true
		r.end(p.ID, r.skip(ID{p.Hub, TCP}))
		return true
	}
	return false
}

// Finish says how a probe that began has ended.
func (r *Round) Finish(id ID, res Result) {
	if _, done := r.results[id]; !done && r.begun[id] {
		r.running--
		r.end(id, res)
	}
}

// result is how a probe ended. One that is not in the graph holds nothing up.
func (r *Round) result(id ID) (Result, bool) {
	if _, ok := r.index[id]; !ok {
		return Result{Status: Passed}, true
	}
	res, ok := r.results[id]
	return res, ok
}

// Outcomes are the probes with their results, in the graph's order.
func (r *Round) Outcomes() []Outcome {
	out := make([]Outcome, 0, len(r.probes))
	for _, p := range r.probes {
		out = append(out, Outcome{ID: p.ID, Result: r.results[p.ID]})
	}
	return out
}

// Outcome is one probe and what it found.
type Outcome struct {
	ID
	Result
}

// Open says how many probes of the node are not over.
func (r *Round) Open(node fleet.NodeName) int { return r.open[node] }

// Result is how the probe ended, the zero Result while it has not.
func (r *Round) Result(id ID) Result { return r.results[id] }
