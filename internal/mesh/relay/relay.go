// Package relay is what a hub does for others: it forwards frames between
// nodes that cannot reach each other, without being able to read them. It is
// the decision and the new header only; sockets are the caller's.
//
// A frame is refused as cheaply as can be: length and kind, known sender, MAC,
// epoch, replay, receiver, rate. The address a frame goes to is the one the
// receiver proved (path.Egress), never one taken from a frame. A frame that a
// hub has forwarded is a Deliver, which no hub forwards: loops cannot form.
package relay

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/replay"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Verdict is what became of a frame.
type Verdict uint8

// The verdicts.
const (
	Drop        Verdict = iota // not ours to forward: say nothing
	Sent                       // rewritten in place: send it to the address returned
	Unknown                    // authentic, but of an epoch we do not know: ask the sender
	Unreachable                // the receiver has no address here: tell the sender
	Limited                    // over the sender's rate
)

// Hop is where a frame goes next.
type Hop struct {
	Addr  netip.AddrPort
	Local netip.Addr // our address to send it from; invalid for any
}

// The rate a node may have relayed.
const (
	// Rate is bytes per second per sender: more than one core forwards, and more
	// than most lines of servers carry. A limit below what the hub could do would
	// only cost: TCP shares by itself.
	Rate = 1 << 30
	// Burst is in bytes: some 50 ms at Rate.
	Burst = 50 << 20
)

// Forwarder relays between its members. It is safe for concurrent use.
type Forwarder struct {
	epoch   atomic.Uint32
	members atomic.Pointer[map[wire.ID]*member]
	mu      sync.Mutex // of changes to members
}

type member struct {
	pair    *wire.Pair
	former  atomic.Pointer[member] // by our key before, while that is rotated; else nil
	hop     atomic.Pointer[Hop]
	counter atomic.Uint64 // of our Delivers to it
	in, out atomic.Uint64 // bytes relayed from it, to it

	mu     sync.Mutex // of what follows
	epoch  uint32     // 0: unknown
	window replay.Filter
	tokens float64
	filled time.Time
}

// New returns a forwarder without members. The epoch is that of this run.
func New(epoch uint32) *Forwarder {
	f := &Forwarder{}
	f.epoch.Store(epoch)
	f.members.Store(&map[wire.ID]*member{})
	return f
}

// SetOwnEpoch makes epoch what our own frames carry.
func (f *Forwarder) SetOwnEpoch(epoch uint32) { f.epoch.Store(epoch) }

// SetMembers makes the owners of pairs all that is relayed between. What is
// known of those that stay is kept. Where a pair is another, because our own key
// is, frames made with the one before are relayed too, until Settle.
func (f *Forwarder) SetMembers(pairs []*wire.Pair) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := *f.members.Load()
	next := make(map[wire.ID]*member, len(pairs))
	for _, p := range pairs {
		m := old[p.Peer]
		switch {
		case m == nil:
			m = &member{pair: p, tokens: Burst}
		case m.pair != p:
			m = m.renewed(p)
		}
		next[p.Peer] = m
	}
	f.members.Store(&next)
}

// renewed is m for another pair with the same node.
func (m *member) renewed(p *wire.Pair) *member {
	n := &member{pair: p, tokens: Burst}
	n.former.Store(m)
	n.hop.Store(m.hop.Load())
	n.in.Store(m.in.Load())
	n.out.Store(m.out.Load())
	return n
}

// Settle ends what SetMembers said of frames made with an earlier key of ours.
func (f *Forwarder) Settle() {
	for _, m := range *f.members.Load() {
		m.former.Store(nil)
	}
}

// SetEpoch says what epoch a member's frames must carry. Of the one they carry
// already, what was seen stays seen.
func (f *Forwarder) SetEpoch(id wire.ID, epoch uint32) {
	m := (*f.members.Load())[id]
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.epoch != epoch {
		m.epoch = epoch
		m.window.Reset()
	}
}

// SetHop says where frames for a member go.
func (f *Forwarder) SetHop(id wire.ID, h Hop) {
	if m := (*f.members.Load())[id]; m != nil {
		m.hop.Store(&h)
	}
}

// Share lets frames for a member go where those for another go: both are one
// machine.
func (f *Forwarder) Share(from, to wire.ID) {
	members := *f.members.Load()
	if a, b := members[from], members[to]; a != nil && b != nil && b.hop.Load() == nil {
		b.hop.Store(a.hop.Load())
	}
}

// Relayed returns how many bytes were relayed from and to a member.
func (f *Forwarder) Relayed(id wire.ID) (from, to uint64) {
	if m := (*f.members.Load())[id]; m != nil {
		return m.in.Load(), m.out.Load()
	}
	return 0, 0
}

// Forward judges b, a Forward that was just received, and rewrites it in place
// for the next hop when the verdict is Sent.
func (f *Forwarder) Forward(now time.Time, b []byte) (Hop, wire.Frame, Verdict) {
	r := f.Run(now)
	return r.Forward(b)
}

// Run judges frames that were received together. Most are from one sender to one
// receiver, so these are looked up once. It is for one goroutine, and not kept:
// of members it sees what was so when it was made.
type Run struct {
	members  map[wire.ID]*member
	now      time.Time
	epoch    uint32
	from, to *member // of the last frame that was sent on
}

// Run returns a run of frames that came now.
func (f *Forwarder) Run(now time.Time) Run {
	return Run{members: *f.members.Load(), now: now, epoch: f.epoch.Load()}
}

// Forward is Forwarder.Forward for the next frame.
func (r *Run) Forward(b []byte) (Hop, wire.Frame, Verdict) {
	sender, err := wire.RelaySender(b)
	if err != nil || wire.Classify(b) != wire.Forward {
		return Hop{}, wire.Frame{}, Drop
	}
	from := r.from
	if from == nil || from.pair.Peer != sender {
		if from = r.members[sender]; from == nil {
			return Hop{}, wire.Frame{}, Drop
		}
	}
	frame, err := from.pair.OpenRelay(b)
	with := from
	if err != nil {
		if with = from.former.Load(); with == nil {
			return Hop{}, wire.Frame{}, Drop
		}
		if frame, err = with.pair.OpenRelay(b); err != nil {
			return Hop{}, wire.Frame{}, Drop
		}
	}
	if v := with.admit(r.now, frame.Stamp, len(b)); v != Sent {
		return Hop{}, frame, v
	}
	to := r.to
	if to == nil || to.pair.Peer != frame.To {
		to = r.members[frame.To]
	}
	if to == nil || to == from {
		return Hop{}, frame, Drop
	}
	hop := to.hop.Load()
	if hop == nil {
		return Hop{}, frame, Unreachable
	}
	from.in.Add(uint64(len(b)))
	to.out.Add(uint64(len(b)))
	to.pair.PutDeliver(b, sender, wire.Stamp{Epoch: r.epoch, Counter: to.counter.Add(1)})
	r.from, r.to = from, to
	return *hop, frame, Sent
}

func (m *member) admit(now time.Time, s wire.Stamp, size int) Verdict {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.epoch != s.Epoch || s.Epoch == 0:
		return Unknown
	case !m.window.ValidateCounter(s.Counter, wire.CounterLimit):
		return Drop
	}
	if now != m.filled {
		m.tokens = min(m.tokens+now.Sub(m.filled).Seconds()*Rate, Burst)
		m.filled = now
	}
	if m.tokens < float64(size) {
		return Limited
	}
	m.tokens -= float64(size)
	return Sent
}
