package path

import (
	"container/heap"
	"time"
)

// timers are the peers that something is to be done for, by when. A peer that
// nobody talks to is not among them: what an engine does in a second depends on
// how many peers are awake, not on how many there are.
type timers []*peer

// Len, Less, Swap, Push and Pop are heap.Interface. Peers due at the same time are
// looked after by ID: what is done in order can be done again.
func (q timers) Len() int { return len(q) }

func (q timers) Less(i, j int) bool {
	if q[i].due.Equal(q[j].due) {
		return compareID(q[i].ID, q[j].ID) < 0
	}
	return q[i].due.Before(q[j].due)
}

func (q timers) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].slot, q[j].slot = i, j
}

// Push implements heap.Interface.
func (q *timers) Push(x any) {
	p := x.(*peer)
	p.slot = len(*q)
	*q = append(*q, p)
}

// Pop implements heap.Interface.
func (q *timers) Pop() any {
	last := len(*q) - 1
	p := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	p.slot = -1
	return p
}

// look makes Advance look after p at that time, or earlier if it would anyway.
func (e *Engine) look(p *peer, at time.Time) {
	switch {
	case p.slot < 0:
		p.due = at
		heap.Push(&e.timers, p)
	case at.Before(p.due):
		p.due = at
		heap.Fix(&e.timers, p.slot)
	}
}

// rest ends that.
func (e *Engine) rest(p *peer) {
	if p.slot >= 0 {
		heap.Remove(&e.timers, p.slot)
	}
}

// probeAt wants a probe of t, one of p's tracks, at that time or before; but not
// right after another, whatever asks for it: two ends that answer pings with pings
// must not drive each other on.
func (e *Engine) probeAt(p *peer, t *track, at time.Time) {
	t.next = minTime(t.next, maxTime(at, t.sent.Add(Burst/2)))
	e.look(p, t.next)
}
