package path

import (
	"bytes"
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
	// PadTo is the size, in bytes, of a probe that is as large as a full data
	// packet; 0 for none.
	PadTo uint16
}

// Engine chooses paths for one node. It is not safe for concurrent use.
type Engine struct {
	cfg    Config
	epoch  uint32
	secret [siphash.KeySize]byte // of the challenges

	peers map[wire.ID]*peer
	all   []*peer // the same, by ID: what is done in order can be done again
	hubs  []*peer // of these, by ID
	busy  []*peer // by ID: awake, or to be probed for another reason; all hubs are
	local []netip.AddrPort
	seen  map[wire.ID]sighting // by hub and family: what we look like from there

	shifted time.Time // when that last changed

	out []Decision
}

type sighting struct {
	v4, v6 netip.AddrPort
	at4    time.Time
	at6    time.Time
}

// New returns an engine without peers, with an epoch of its own.
func New(cfg Config) *Engine {
	e := &Engine{
		cfg:   cfg,
		peers: make(map[wire.ID]*peer),
		seen:  make(map[wire.ID]sighting),
	}
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
	for _, p := range e.all {
		if p.egress.Addr.IsValid() && now.Sub(p.egressAt) < Registered {
			p.learn(now, Route{Addr: p.egress.Addr}).next = now
			e.attend(p)
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

// SetPeers makes peers all there are. What is known of those that stay is kept.
func (e *Engine) SetPeers(now time.Time, peers []Peer) {
	next := make(map[wire.ID]*peer, len(peers))
	for _, np := range peers {
		p := e.peers[np.ID]
		if p == nil {
			p = &peer{}
		}
		p.Peer = np
		next[np.ID] = p
	}
	for id, p := range e.peers {
		if next[id] == nil {
			e.rest(p)
			delete(e.seen, id)
		}
	}
	e.peers = next
	e.all = slices.SortedFunc(maps.Values(next), byID)
	e.hubs = e.hubs[:0]
	for _, p := range e.all {
		if p.Hub {
			e.hubs = append(e.hubs, p)
		}
	}
	for _, p := range e.all {
		e.setTracks(now, p)
	}
	for _, h := range e.hubs { // first: routes lead through them
		e.attend(h)
		e.chooseLine(now, h)
	}
	for _, p := range e.all {
		if !p.primary.IsZero() && p.track(p.primary) == nil {
			p.primary = Route{}
		}
		if p.primary.IsZero() {
			e.choose(now, p, "first choice")
		}
	}
}

// setTracks gives p the tracks its configuration implies, and no other static
// ones.
func (e *Engine) setTracks(now time.Time, p *peer) {
	var want []Route
	for _, a := range p.Public {
		want = append(want, Route{Addr: a})
	}
	for _, h := range e.hubs {
		if h != p {
			want = append(want, Route{Hub: h.ID})
		}
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
		if t.next.IsZero() && (p.Hub && r.Direct() || p.awake) {
			t.next = now
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
	for _, p := range e.all {
		if ip := p.egress.Local; ip.IsValid() && !slices.ContainsFunc(e.local, func(a netip.AddrPort) bool { return a.Addr() == ip }) {
			p.egress.Local = netip.Addr{}
			e.decide(p.egress)
			if p.line.Addr.IsValid() && p.line.Addr == p.egress.Addr {
				e.decide(Line{Hub: p.ID, Addr: p.line.Addr})
			}
			e.publish(p, "moved")
		}
	}
	for _, p := range e.busy {
		for _, t := range p.tracks {
			if p.awake || p.Hub && t.route.Direct() {
				t.next, t.tries = now, 0
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
	for _, p := range e.all {
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

// Traffic tells of traffic with a peer. Call it before Advance for all that
// Awake returns; and at once for a peer that sent something after a silence,
// or that was heard by another route than before.
func (e *Engine) Traffic(now time.Time, id wire.ID, t Traffic) {
	p := e.peers[id]
	if p == nil {
		return
	}
	if t.Tx.After(p.lastTx) {
		p.lastTx = t.Tx
	}
	if t.Bulk.After(p.lastBulk) {
		p.lastBulk = t.Bulk
	}
	if t.Rx.After(p.lastRx) {
		p.lastRx = t.Rx
		p.suspect, p.left, p.calmed = false, false, 0
		if cur := p.track(p.primary); !p.hedgeUntil.IsZero() && t.Rx.After(p.since) && (cur == nil || cur.fullMisses < 2) {
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
	p.left = true
	t, cur := p.track(r), p.track(p.primary)
	if !p.awake || t == nil || cur == nil || e.unusable(now, t) || p.lastRx.IsZero() ||
		now.Sub(p.quietSince()) < Suspect {
		return
	}
	p.suspect = true
	cur.next = minTime(cur.next, now)
	if p.hedgeUntil.IsZero() {
		p.spare, p.hedgeUntil = r, now.Add(Hedged)
		e.publish(p, "peer left it")
	}
}

// wake starts to look after p.
func (e *Engine) wake(now time.Time, p *peer) {
	p.awake = true
	e.attend(p)
	p.forget(now)
	for _, t := range p.tracks {
		t.tries = 0
		t.next = now
	}
	e.choose(now, p, "traffic")
}

// Awake yields the peers whose traffic the engine wants to hear of, by ID, and
// of each whether it wants to soon: data was exchanged within the last second.
func (e *Engine) Awake(now time.Time) iter.Seq2[wire.ID, bool] {
	return func(yield func(wire.ID, bool) bool) {
		for _, p := range slices.Clone(e.busy) {
			if p.awake && !yield(p.ID, now.Sub(p.lastTx) < Active || now.Sub(p.lastRx) < Active) {
				return
			}
		}
	}
}

// IsAwake says whether Awake would yield that peer.
func (e *Engine) IsAwake(id wire.ID) bool {
	p := e.peers[id]
	return p != nil && p.awake
}

func byID(a, b *peer) int { return bytes.Compare(a.ID[:], b.ID[:]) }

// attend makes Advance look after p.
func (e *Engine) attend(p *peer) {
	if i, ok := slices.BinarySearchFunc(e.busy, p, byID); !ok {
		e.busy = slices.Insert(e.busy, i, p)
	}
}

// rest ends that.
func (e *Engine) rest(p *peer) {
	if i, ok := slices.BinarySearchFunc(e.busy, p, byID); ok {
		e.busy = slices.Delete(e.busy, i, i+1)
	}
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
// replay: it depends on a secret of this run, and on how often that peer
// changed.
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
	p.changes++
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
		t.next = now // it must learn anew where to relay to
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
