package link

import (
	"bytes"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Handshake is what a peer's session needs.
type Handshake uint8

// The states of a session, as far as somebody must do something.
const (
	Settled  Handshake = iota // it works, or nobody wants one
	Waiting                   // our handshake for a first one lacks an answer
	Yielding                  // as Waiting or Void, but a handshake is under way
	Void                      // the peer seals with keys that we do not have
)

// WireGuard has one handshake state per peer. When both ends begin at the same
// time, each one's initiation wipes the other's:
//
//	lower ID                 higher ID
//	   | I1 ------.  .------ I2 |
//	   |           \/           |
//	   | I2 <-----'  '-----> I1 |   both forget their own
//	   | R2 ------.  .------ R1 |
//	   |           \/           |
//	   | R1 <-----'  '-----> R2 |   both refuse the answer: silence for 5 s
//
// Worse, wireguard-go handles messages on several cores: an answer that comes
// together with an initiation may be taken for keys whose index is no longer
// known. That end then seals what the other one can open, and not the reverse:
// silence for 15 s. So, below WireGuard,
//
//   - of two initiations that crossed, the lower ID's counts: it does not look at
//     the other's for crossFor,
//   - no initiation is sent while one that just came is not yet answered,
//   - of an initiation and an answer that come together, the first one counts.
//
// The sender of an initiation is known by its address only, so this is no
// guarantee. What goes wrong in spite of it, for whatever reason, is noticed by
// what it means: data comes, and nothing of it can be opened. See arrived.
const (
	// crossFor is how long a handshake may take before it is thought lost.
	crossFor = 250 * time.Millisecond
	// togetherFor is how long wireguard-go may be at work on one message.
	togetherFor = 50 * time.Millisecond
	// shutFor is how long data comes that cannot be opened, beyond the first
	// of it, before the session counts as void. Data under way when keys change,
	// and second copies of data, are no more than a few packets. The higher ID
	// leaves the lower one as much again.
	shutFor = 100 * time.Millisecond
	// Such data may be forged, or be of an address that the peer may not use. So
	// handshakes for it are voidEvery apart, and twice as long each until data
	// is opened, up to voidMost.
	voidEvery = time.Second
	voidMost  = time.Minute
)

// first says whether our handshakes go before the peer's.
func (p *peer) first() bool {
	self := p.pair.Load().Self
	return bytes.Compare(self[:], p.id[:]) < 0
}

// within says whether then was, less than d ago. It may be a little later than
// now when it was another goroutine's.
func within(now, then int64, d time.Duration) bool {
	return then != 0 && time.Duration(now-then) < d
}

// says books a handshake message that WireGuard sends, and says whether it shall
// leave.
func (p *peer) says(b []byte, now int64) bool {
	switch {
	case wire.Initiation(b):
		p.bind.announce(p, wire.SenderIndex(b))
		p.begun.Store(now)
		p.waiting.Store(true)
		p.bind.control.Look(p.id)
		if p.owing.Load() && within(now, p.greeted.Load(), crossFor) {
			return false
		}
		p.mine.Store(wire.SenderIndex(b))
		p.asked.Store(now)
	case wire.Response(b):
		p.bind.announce(p, wire.SenderIndex(b))
		p.owing.Store(false)
		p.met.Store(now)
		p.opened()
	}
	return true
}

// hears says whether WireGuard shall see a handshake message of the peer. It may
// be forged, which only WireGuard can tell: so an initiation that follows one
// which WireGuard did not answer holds up nothing.
func (p *peer) hears(b []byte, now int64) bool {
	switch {
	case wire.Initiation(b):
		asked, answered := p.asked.Load(), p.answered.Load()
		if within(now, answered, togetherFor) || p.first() && answered < asked && within(now, asked, crossFor) {
			return false
		}
		if !p.owing.Swap(true) {
			p.greeted.Store(now)
		}
	case wire.Response(b):
		greeted := p.greeted.Load()
		if greeted > p.asked.Load() && within(now, greeted, togetherFor) {
			return false
		}
		if index, _ := wire.ReceiverIndex(b); index == p.mine.Load() {
			p.answered.Store(now)
			p.opened()
		}
	}
	return true
}

// seals books data that is sealed with the keys that the peer calls index. It
// says that there is a session, unless these are keys that the peer lost.
func (p *peer) seals(index uint32, now int64) {
	p.index.Store(index)
	if index == p.lost.Load() {
		return
	}
	p.session.Store(now)
	if p.waiting.Load() {
		p.waiting.Store(false)
	}
}

// expire says that the session is of no use, nor what is still sealed for it.
func (p *peer) expire() {
	p.lost.Store(p.index.Load())
	p.session.Store(0)
	p.opened()
}

// arrived books sealed data of the peer, before WireGuard tries to open it.
func (p *peer) arrived(now int64) {
	since := p.shutSince.Load()
	switch {
	case since == 0:
		p.shutSince.Store(now)
	case p.shut.Load() == 0 && !within(now, since, shutFor):
		p.shut.Store(now)
		p.bind.control.Look(p.id)
	}
}

// opened says that what comes from the peer may be opened: something was, or
// there are new keys.
func (p *peer) opened() {
	if p.shutSince.Load() != 0 {
		p.shutSince.Store(0)
		p.shut.Store(0)
	}
}

// reads says that data of the peer was opened.
func (p *peer) reads() {
	p.opened()
	if p.voids.Load() != 0 {
		p.voids.Store(0)
	}
}

// void says whether the peer seals with keys that we do not have, and whether it
// does for long enough to do something.
func (p *peer) void(now int64) (shut, due bool) {
	at := p.shut.Load()
	if at == 0 {
		return false, false
	}
	if n := p.voids.Load(); n > 0 && within(now, p.voidAt.Load(), min(voidEvery<<min(n-1, 6), voidMost)) {
		return false, false
	}
	patience := shutFor
	if !p.first() {
		patience *= 2
	}
	return true, !within(now, at, patience)
}

// Handshake says what the peer's session needs.
func (b *Bind) Handshake(id wire.ID, at time.Time) Handshake {
	p := b.peer(id)
	if p == nil {
		return Settled
	}
	now := b.nano(at)
	shut, due := p.void(now)
	need := Waiting
	switch {
	case due:
		need = Void
	case shut:
		return Yielding
	case !p.waiting.Load() || !within(now, p.begun.Load(), keepFor):
		return Settled
	case within(now, p.session.Load(), SessionFor):
		return Settled
	}
	if within(now, p.greeted.Load(), crossFor) || need == Void && within(now, p.asked.Load(), crossFor) {
		return Yielding
	}
	return need
}

// Expire says that the session with the peer is of no use: it restarted. A new
// one is about to be made.
func (b *Bind) Expire(id wire.ID) {
	if p := b.peer(id); p != nil {
		p.expire()
	}
}

// Voided says the same of a peer that is Void.
func (b *Bind) Voided(id wire.ID, now time.Time) {
	if p := b.peer(id); p != nil {
		p.voidAt.Store(b.nano(now))
		p.voids.Add(1)
		p.expire()
	}
}

// Met says whether WireGuard answered a handshake of the peer within d.
func (b *Bind) Met(id wire.ID, now time.Time, d time.Duration) bool {
	p := b.peer(id)
	return p != nil && within(b.nano(now), p.met.Load(), d)
}

// indexes is how many of our own names for keys we remember per peer: WireGuard
// has up to three pairs of keys and a handshake.
const indexes = 4

// announce notes that we told the peer index, for it to put into what it sends.
func (b *Bind) announce(p *peer, index uint32) {
	b.namesMu.Lock()
	defer b.namesMu.Unlock()
	old := &p.names[p.name%indexes]
	if b.names[*old] == p {
		delete(b.names, *old)
	}
	*old = index
	p.name++
	b.names[index] = p
}

// addressee returns the peer that we told the index which m carries, a message
// from an address that is no peer's; nil if there is none.
func (b *Bind) addressee(m []byte) *peer {
	index, ok := wire.ReceiverIndex(m)
	if !ok {
		return nil
	}
	b.namesMu.RLock()
	defer b.namesMu.RUnlock()
	return b.names[index]
}
