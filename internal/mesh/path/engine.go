package path

import (
	"encoding/binary"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/aead/siphash"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Config is what an engine is made of.
type Config struct {
	Self wire.ID
	// Random gives 64 random bits; for nonces, so it must be unpredictable.
	Random func() uint64
	// Traffic says when data was last exchanged with a peer; Advance asks of those
	// that are awake. Nil: only what the engine is told.
	Traffic func(now time.Time, id wire.ID) Traffic
	// PadTo is the size, in bytes, of a probe that is as large as a full data
	// packet; 0 for none.
	PadTo uint16
}

// Engine chooses paths for one node. It is not safe for concurrent use.
type Engine struct {
	cfg    Config
	epoch  uint32
	secret [siphash.KeySize]byte // of the challenges

	dir    *Directory
	peers  map[wire.ID]*peer // those of which anything is known: hubs, and who was heard of lately
	hubs   []*peer           // of these, by ID
	ranked []wire.ID         // the hubs that others look for us at, first ones first
	timers timers
	local  []netip.AddrPort
	serves map[wire.ID]time.Time // devices that talk to this hub, and when it was last told

	shifted time.Time // when what we look like from outside last changed
	changes uint64    // epochs that were adopted, and peers met

	out []Decision
}

// New returns an engine without peers, with an epoch of its own.
func New(cfg Config) *Engine {
	e := &Engine{cfg: cfg, dir: NewDirectory(nil), peers: make(map[wire.ID]*peer), serves: make(map[wire.ID]time.Time)}
	binary.BigEndian.PutUint64(e.secret[:8], cfg.Random())
	binary.BigEndian.PutUint64(e.secret[8:], cfg.Random())
	e.renew()
	return e
}

// renew draws an epoch.
func (e *Engine) renew() {
	was := e.epoch
	for e.epoch == 0 || e.epoch == was {
		e.epoch = uint32(e.cfg.Random())
	}
}

// Anew takes a new epoch, for the others to forget what they know of this run, as
// when it ends. Whoever is in use, or relies on this node, is told at once.
func (e *Engine) Anew(now time.Time) {
	e.renew()
	e.askDependents(now)
	e.Moved(now)
}

// askDependents asks all who are relayed to from here.
func (e *Engine) askDependents(now time.Time) {
	for _, p := range e.known() {
		if p.egress.Addr.IsValid() && now.Sub(p.egressAt) < Registered {
			e.probeAt(p, p.learn(now, Route{Addr: p.egress.Addr}), now)
		}
	}
}

// Self is who this node is.
func (e *Engine) Self() wire.ID { return e.cfg.Self }

// Epoch is what our own frames carry.
func (e *Engine) Epoch() uint32 { return e.epoch }

// Decisions yields what was decided and not yet yielded, in order. Carrying one
// out may make the engine decide more.
func (e *Engine) Decisions() iter.Seq[Decision] {
	return func(yield func(Decision) bool) {
		for len(e.out) > 0 {
			d := e.out[0]
			e.out = e.out[1:]
			if !yield(d) {
				return
			}
		}
		e.out = nil
	}
}

func (e *Engine) decide(d Decision) { e.out = append(e.out, d) }

// SetPeers makes the others in the directory all the peers there are. What is
// known of those that stay is kept.
func (e *Engine) SetPeers(now time.Time, dir *Directory) {
	e.dir, e.ranked, e.hubs = dir, dir.ranked(e.cfg.Self), nil
	for _, p := range e.known() {
		conf, ok := dir.peers[p.ID]
		if !ok {
			e.rest(p)
			delete(e.peers, p.ID)
			continue
		}
		p.Peer = conf
	}
	for _, id := range dir.hubs {
		if id != e.cfg.Self {
			e.hubs = append(e.hubs, e.meet(now, id))
		}
	}
	all := e.known()
	for _, p := range all {
		if p.Hub || p.awake {
			e.setTracks(now, p)
		}
	}
	for _, h := range e.hubs { // first: routes lead through them
		e.askHub(now, h)
		e.chooseLine(now, h)
	}
	e.settleHomes(now)
	for _, p := range all {
		if !p.primary.IsZero() && p.track(p.primary) == nil {
			p.primary = Route{}
		}
		if p.primary.IsZero() && len(p.tracks) > 0 {
			e.choose(now, p, "first choice")
		}
	}
}

// known are the peers that anything is known of, by ID: what is done in order can
// be done again.
func (e *Engine) known() []*peer {
	return slices.SortedFunc(maps.Values(e.peers), func(a, b *peer) int { return compareID(a.ID, b.ID) })
}

// meet returns what is known of a peer, from now on; nil if there is no such.
func (e *Engine) meet(now time.Time, id wire.ID) *peer {
	p := e.peers[id]
	if p == nil {
		conf, ok := e.dir.peers[id]
		if !ok || id == e.cfg.Self {
			return nil
		}
		e.changes++
		p = &peer{Peer: conf, slot: -1, changes: e.changes}
		e.peers[id] = p
	}
	p.known = now
	return p
}

// setTracks gives p the tracks that its configuration implies, and no other static
// ones.
func (e *Engine) setTracks(now time.Time, p *peer) {
	var want []Route
	for _, a := range p.Public {
		want = append(want, Route{Addr: a})
	}
	for _, h := range e.relays(p) {
		want = append(want, Route{Hub: h})
	}
	p.tracks = slices.DeleteFunc(p.tracks, func(t *track) bool {
		return t.static && !slices.Contains(want, t.route)
	})
	for _, r := range want {
		t := p.track(r)
		if t == nil {
			t = &track{route: r}
			p.tracks = append(p.tracks, t)
		}
		t.static = true
		if t.next.IsZero() && p.awake {
			e.probeAt(p, t, now)
		}
	}
}

// SetLocal tells the engine where it listens in its own networks: told to peers
// that look for a direct route.
func (e *Engine) SetLocal(addrs []netip.AddrPort) { e.local = addrs }

// Moved says that this machine's addresses or routes changed, or that it slept:
// all that is in use must be proven again, at once; and nothing is sent from an
// address any more that SetLocal did not name.
func (e *Engine) Moved(now time.Time) {
	for _, p := range e.known() {
		if ip := p.egress.Local; ip.IsValid() && !slices.ContainsFunc(e.local, func(a netip.AddrPort) bool { return a.Addr() == ip }) {
			p.egress.Local = netip.Addr{}
			e.decide(p.egress)
			if p.line.Addr.IsValid() && p.line.Addr == p.egress.Addr {
				e.decide(Line{Hub: p.ID, Addr: p.line.Addr})
			}
			e.publish(p, "moved")
		}
		p.tryAnew(now)
		for _, t := range p.tracks {
			if p.awake || p.Hub && t.route.Direct() {
				t.tries = 0
				e.probeAt(p, t, now)
			}
		}
	}
}

// Rename gives this node another identity, because its key is another one now.
// What is known of routes stays. Whoever is in use, or relies on this node, is
// asked at once, and must prove its epoch again: what it sent to the old identity
// says nothing about the new one.
func (e *Engine) Rename(now time.Time, self wire.ID) {
	e.cfg.Self = self
	for _, p := range e.known() {
		if p.epoch != 0 {
			p.was = p.epoch
		}
		p.epoch, p.newest = 0, 0
		p.window.Reset()
		for _, t := range p.tracks {
			t.flights = t.flights[:0]
		}
	}
	e.askDependents(now)
	e.Moved(now)
}

// Traffic is when data was last exchanged with a peer. Zero times mean: never.
type Traffic struct {
	Tx      time.Time // sent
	Bulk    time.Time // so much was sent at once that full packets were among it
	Rx      time.Time // received by the primary
	Other   Route     // the last other route that data was received by
	OtherRx time.Time // and when
}

// Traffic tells of traffic with a peer: call it for data after a Quiet, and for a
// peer that was heard by another route than before. Advance asks for the rest.
func (e *Engine) Traffic(now time.Time, id wire.ID, t Traffic) {
	if p := e.meet(now, id); p != nil {
		e.traffic(now, p, t)
		p.flowing = true // what comes next is not told
		e.look(p, now)
	}
}

func (e *Engine) traffic(now time.Time, p *peer, t Traffic) {
	if t.Tx.After(p.lastTx) {
		p.lastTx = t.Tx
	}
	if t.Bulk.After(p.lastBulk) {
		p.lastBulk = t.Bulk
	}
	if t.Rx.After(p.lastRx) {
		p.lastRx = t.Rx
		p.suspect, p.left, p.calmed = false, false, 0
		if cur := p.track(p.primary); !p.hedgeUntil.IsZero() && t.Rx.After(p.since) && (cur == nil || !cur.losesFull(now)) {
			p.hedgeUntil = time.Time{}
		}
	}
	p.other, p.otherRx = t.Other, t.OtherRx
	if t.OtherRx.After(p.lastRx) && !p.left {
		e.leftBy(now, p, t.Other)
	}
	if !p.awake && (now.Sub(p.lastTx) < Idle || now.Sub(p.lastRx) < Idle) {
		e.wake(now, p)
	}
}

// leftBy takes the hint that the peer, which sent by our primary, now sends by
// another route: it may know of a break that we do not see yet. If the primary
// is silent, data goes both ways until an echo tells.
func (e *Engine) leftBy(now time.Time, p *peer, r Route) {
	p.left, p.leftAt = true, now
	t, cur := p.track(r), p.track(p.primary)
	if !p.awake || t == nil || cur == nil || e.unusable(now, t) || p.lastRx.IsZero() ||
		now.Sub(p.quietSince()) < Suspect {
		return
	}
	p.suspect = true
	e.probeAt(p, cur, now)
	if p.hedgeUntil.IsZero() {
		p.spare, p.hedgeUntil = r, now.Add(Hedged)
		e.publish(p, "peer left it")
	}
}

// wake starts to look after p.
func (e *Engine) wake(now time.Time, p *peer) {
	p.awake = true
	p.forget(now)
	e.setTracks(now, p)
	for _, t := range p.tracks {
		t.tries = 0
		e.probeAt(p, t, now)
	}
	e.look(p, now)
	e.choose(now, p, "traffic")
}

// IsAwake says whether there was traffic with a peer lately.
func (e *Engine) IsAwake(id wire.ID) bool {
	p := e.peers[id]
	return p != nil && p.awake
}

// RTT is how long the route in use for a peer takes; false when it was not proven
// lately.
func (e *Engine) RTT(now time.Time, id wire.ID) (time.Duration, bool) {
	p := e.peers[id]
	if p == nil {
		return 0, false
	}
	t := p.track(p.primary)
	if t == nil || !t.proven(now, Mapping) {
		return 0, false
	}
	return t.srtt, true
}

// challenge is the nonce by which a peer proves that its new epoch is no
// replay: it depends on a secret of this run, and is another one whenever that
// peer changed, or was forgotten in between.
func (e *Engine) challenge(p *peer, epoch uint32) uint64 {
	var b [20]byte
	copy(b[:], p.ID[:])
	binary.BigEndian.PutUint32(b[8:], epoch)
	binary.BigEndian.PutUint64(b[12:], p.changes)
	return siphash.Sum64(b[:], &e.secret) | 1
}

// adopt makes epoch the peer's, which was just proven.
func (e *Engine) adopt(now time.Time, p *peer, epoch uint32) {
	old := p.epoch
	if old == 0 {
		old = p.was
	}
	p.epoch, p.was = epoch, 0
	e.changes++
	p.changes = e.changes
	p.window.Reset()
	p.newest = 0
	for _, s := range p.asked {
		if s.Epoch == epoch { // who recorded one cannot send it again
			p.window.ValidateCounter(s.Counter, wire.CounterLimit)
		}
	}
	p.asked = nil
	p.draining = time.Time{}
	if t := p.lineTrack(); t != nil && old != 0 {
		e.probeAt(p, t, now) // it must learn anew where to relay to
	}
	e.decide(Epoch{p.ID, epoch})
	if old != 0 && old != epoch {
		e.decide(Restarted{p.ID})
	}
}

func (e *Engine) send(p *peer, r Route, local netip.Addr, m wire.Message) {
	e.decide(Send{Peer: p.ID, Route: r, Local: local, Message: m})
}

func (e *Engine) nonce() uint64 {
	for {
		if n := e.cfg.Random(); n != 0 {
			return n
		}
	}
}
