// Package sim is an internet in memory, with virtual time: networks with delay
// and loss, routers that translate and filter in every way RFC 4787 names, and
// machines that run the real path engine, the real frames and the real relay on
// it. A minute takes milliseconds, and the same seed gives the same run. What it
// leaves out is WireGuard: data is a packet of its size, which the receiver
// answers.
package sim

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Packet is one UDP datagram.
type Packet struct {
	Src, Dst netip.AddrPort
	Data     []byte

	note *note
}

// World is one simulated internet. It is not safe for concurrent use: all
// happens inside Run.
type World struct {
	now    time.Time
	queue  queue
	serial int
	random *rand.Rand

	// Internet is where public addresses are.
	Internet *Network
	// Drop, if set, decides which packets are lost on their way into the network
	// of their destination.
	Drop func(p Packet) bool
	// Sent counts what machines sent.
	Sent Tally

	nodes []*Node // by name
	byID  map[wire.ID]*Node
	dir   *path.Directory

	seed   uint64
	begin  time.Time
	notes  []*note              // what happened lately
	owners map[netip.Addr]*Node // of addresses, to those who look from outside
}

// New returns an empty world. Runs with the same seed are the same.
func New(seed uint64) *World {
	w := &World{
		now:    time.Unix(1_700_000_000, 0),
		random: rand.New(rand.NewPCG(seed, seed)),
		byID:   make(map[wire.ID]*Node),
		seed:   seed,
		owners: make(map[netip.Addr]*Node),
	}
	w.begin = w.now
	w.Internet = w.Network(10 * time.Millisecond)
	return w
}

// Now is the virtual time.
func (w *World) Now() time.Time { return w.now }

type event struct {
	at     time.Time
	serial int // of events at the same time, the first comes first
	do     func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].serial < q[j].serial
	}
	return q[i].at.Before(q[j].at)
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// At does something at a time; at once if that has passed.
func (w *World) At(t time.Time, do func()) {
	if t.Before(w.now) {
		t = w.now
	}
	w.serial++
	heap.Push(&w.queue, event{t, w.serial, do})
}

// After does something later.
func (w *World) After(d time.Duration, do func()) { w.At(w.now.Add(d), do) }

// Run lets time pass.
func (w *World) Run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// RunUntil lets time pass until ok, at most d, and returns how long it took and
// whether it came true.
func (w *World) RunUntil(d time.Duration, ok func() bool) (time.Duration, bool) {
	begin := w.now
	for w.now.Sub(begin) < d {
		if ok() {
			return w.now.Sub(begin), true
		}
		w.Run(10 * time.Millisecond)
	}
	return d, ok()
}
