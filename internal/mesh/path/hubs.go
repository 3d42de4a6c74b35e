package path

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

const (
	// Homes is how many hubs a node keeps in touch with. Where there are more, it
	// is the nearest, and byHash of those that every node finds by the hash of
	// its ID: two, so that no hub's death makes a node hard to find.
	Homes   = 5
	byHash  = 2
	nearest = Homes - byHash
	// toldHubs is how many hubs that a peer named, as its own, are tried.
	toldHubs = nearest
	// engagedFor is how long a hub that is no home is kept in touch with after
	// something was sent by it.
	engagedFor = Idle
)

// settleHomes settles which hubs are kept in touch with.
//
//	      few hubs                       many hubs
//	all of them are homes    by hash, until 2 are not dead
//	                         + the nearest 3 that answer
//	                         fewer than 2 of these answer: all
//
// The others are asked now and then, to know how far they are.
func (e *Engine) settleHomes(now time.Time) {
	home := e.hubs
	if len(e.hubs) > Homes {
		home = e.pickHomes()
	}
	for _, h := range e.hubs {
		was := h.home
		h.home = slices.Contains(home, h)
		if h.home && !was {
			e.askHub(now, h)
		}
	}
}

func (e *Engine) pickHomes() (home []*peer) {
	answering := 0
	add := func(h *peer) {
		home = append(home, h)
		if h.answers() {
			answering++
		}
	}
	for _, id := range e.findable(e.ranked) {
		add(e.peers[id])
	}
	near := slices.DeleteFunc(slices.Clone(e.hubs), func(h *peer) bool { return !h.answers() || slices.Contains(home, h) })
	slices.SortStableFunc(near, func(a, b *peer) int { return cmp.Compare(a.distance(), b.distance()) })
	for _, h := range near[:min(nearest, len(near))] {
		add(h)
	}
	if answering < 2 {
		return e.hubs
	}
	return home
}

// answers says whether a hub answered when it was last asked.
func (p *peer) answers() bool {
	t := p.lineTrack()
	return t != nil && t.misses == 0 && !t.lastEcho.IsZero()
}

// distance ranks hubs that answer; one that is home already stays so unless
// another is clearly nearer.
func (p *peer) distance() float64 {
	d := p.lineTrack().cost()
	if p.home {
		return 0.8*d - 3
	}
	return d
}

// kept says whether a hub is kept in touch with.
func (p *peer) kept(now time.Time) bool {
	return p.home || now.Before(p.engaged)
}

// engage keeps a hub in touch for as long as something is sent by it.
func (e *Engine) engage(now time.Time, h *peer) {
	if !h.kept(now) {
		e.askHub(now, h)
	}
	h.engaged = now.Add(engagedFor)
}

func (e *Engine) askHub(now time.Time, h *peer) {
	for _, t := range h.tracks {
		if t.route.Direct() {
			e.probeAt(h, t, now)
		}
	}
}

// findable are the first of ranked hubs, until two of them are not dead: where a
// node registers, and where others look for it.
func (e *Engine) findable(ranked []wire.ID) []wire.ID {
	alive := 0
	for i, id := range ranked {
		if alive == byHash {
			return ranked[:i]
		}
		if h := e.peers[id]; h != nil && !h.line.IsZero() {
			alive++
		}
	}
	return ranked
}

// relays are the hubs by which p is to be reached: all, or of many those that it
// registers at, and those that it named.
func (e *Engine) relays(p *peer) []wire.ID {
	ranked := slices.DeleteFunc(e.dir.ranked(p.ID), func(id wire.ID) bool { return id == e.cfg.Self })
	if len(ranked) <= Homes {
		return ranked
	}
	out := slices.Clone(e.findable(ranked))
	for _, id := range p.told[:min(toldHubs, len(p.told))] {
		if id != e.cfg.Self && id != p.ID && e.dir.peers[id].Hub && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// alive says whether a hub answered lately.
func (e *Engine) alive(now time.Time, hub *peer) bool {
	t := hub.lineTrack()
	return t != nil && t.proven(now, KeepaliveMax+5*time.Second)
}

// unusable says whether t leads through a hub that is not there, or is about
// to stop.
func (e *Engine) unusable(now time.Time, t *track) bool {
	if t.route.Direct() {
		return false
	}
	h := e.peers[t.route.Hub]
	return h == nil || h.line.IsZero() || now.Before(h.draining)
}

// chooseLine settles by which of its addresses a hub is sent what it shall
// relay.
func (e *Engine) chooseLine(now time.Time, hub *peer) {
	cur, found := hub.lineTrack(), e.bestLine(now, hub)
	if found == cur || cur != nil && found != nil && !e.worthChange(now, hub, cur, found) {
		return
	}
	had := cur != nil
	if found == nil {
		hub.line = Route{}
		e.decide(Line{Hub: hub.ID})
	} else {
		hub.line = found.route
		e.probeAt(hub, found, now) // it must learn where to relay to
		e.decide(Line{Hub: hub.ID, Addr: found.route.Addr, Local: e.localFor(hub, found)})
	}
	if had && found != nil {
		return
	}
	e.settleHomes(now)
	for _, p := range e.known() {
		if p.awake {
			e.setTracks(now, p)
			e.look(p, now)
		}
		switch {
		case had && p.primary.Hub == hub.ID:
			e.choose(now, p, "hub lost")
		case !had && p != hub && p.primary.IsZero():
			e.choose(now, p, "first choice")
		}
	}
}

// bestLine is the surest, then cheapest, of a hub's addresses that are not
// dead; nil if all are.
func (e *Engine) bestLine(now time.Time, hub *peer) *track {
	var found *track
	rank := -1
	for _, t := range hub.tracks {
		if !t.route.Direct() || t.misses >= missesDead {
			continue
		}
		if r := e.sureness(now, hub, t); r > rank || r == rank && t.cost() < found.cost() {
			found, rank = t, r
		}
	}
	return found
}

// worthChange says whether a hub's line shall move: from one that is dead or a
// guess always, from one that works only to one that is proven and clearly
// better.
func (e *Engine) worthChange(now time.Time, hub *peer, cur, found *track) bool {
	if cur.misses >= missesDead || cur.lastEcho.IsZero() {
		return true
	}
	if e.sureness(now, hub, found) < 4 {
		return false
	}
	return e.sureness(now, hub, cur) < 4 || found.cost() < 0.8*cur.cost()-3
}

// sighting is what we look like from a hub.
type sighting struct {
	v4, v6 netip.AddrPort
	at4    time.Time
	at6    time.Time
}

// sighted notes what we look like from a hub. If that changed, the NAT before us
// forgot us, or we moved: then no other hub can reach us either, until it hears
// from us.
func (e *Engine) sighted(now time.Time, p *peer, seen netip.AddrPort) {
	if !p.Hub {
		return
	}
	was := p.seen.v6
	if seen.Addr().Is4() {
		was = p.seen.v4
	}
	if was.IsValid() && was != seen && now.Sub(e.shifted) > Background {
		e.shifted = now
		for _, h := range e.hubs {
			if h != p && h.kept(now) {
				e.askHub(now, h)
			}
		}
	}
	if seen.Addr().Is4() {
		p.seen.v4, p.seen.at4 = seen, now
	} else {
		p.seen.v6, p.seen.at6 = seen, now
	}
}
