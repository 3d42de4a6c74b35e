package path

import (
	"bytes"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// choose settles p's primary and spare, and publishes a change.
func (e *Engine) choose(now time.Time, p *peer, why string) {
	cur := p.track(p.primary)
	switch {
	case cur == nil || e.unusable(now, cur):
		if t := e.best(now, p, nil); t != nil {
			e.switchTo(now, p, t, orElse(why, "first choice"))
		}
	case e.dead(p, cur):
		e.failover(now, p, cur)
	case cur.narrow() && e.widen(now, p, cur):
	default:
		e.upgrade(now, p, cur)
	}
	e.chooseSpare(now, p)
	e.publish(p, why)
}

// dead says whether t no longer carries anything. Data that still arrives by
// the primary puts that off, but not for ever: the route may work one way only.
func (e *Engine) dead(p *peer, t *track) bool {
	if t.misses >= missesHard {
		return true
	}
	heard := t.route == p.primary && p.lastRx.After(t.missSince)
	return t.misses >= missesDead && !heard
}

func (e *Engine) failover(now time.Time, p *peer, cur *track) {
	t := e.best(now, p, cur)
	if t == nil {
		return // nothing is better: stay, and keep trying
	}
	if s := p.track(p.spare); s != nil && t.shares(cur) && !s.route.Direct() && s.proven(now, Fresh) && !e.unusable(now, s) {
		t = s
	}
	if !cur.lastEcho.IsZero() {
		cur.fail(now)
		e.doubtKin(now, p, cur)
	}
	e.switchTo(now, p, t, "no answer")
}

// doubtKin wants the other direct routes proven again before one of them is
// used, now that a direct one failed: most of the way they share.
func (e *Engine) doubtKin(now time.Time, p *peer, failed *track) {
	for _, t := range p.tracks {
		if t != failed && failed.route.Direct() && t.route.Direct() && !t.lastEcho.IsZero() {
			t.echoes, t.lastFull = 0, time.Time{}
			e.probeAt(p, t, now)
		}
	}
}

// widen leaves a route that full packets do not pass for one that is proven and
// not known to be like that, if there is one: the spare, which shares the least
// with it, or else the cheapest.
func (e *Engine) widen(now time.Time, p *peer, cur *track) bool {
	var found *track
	for _, t := range p.tracks {
		if t == cur || t.narrow() || e.unusable(now, t) || !t.proven(now, lately) {
			continue
		}
		if t.route == p.spare {
			found = t
			break
		}
		if found == nil || t.cost() < found.cost() {
			found = t
		}
	}
	if found == nil {
		return false
	}
	cur.fail(now)
	e.doubtKin(now, p, cur)
	e.switchTo(now, p, found, "large packets lost")
	return true
}

// best returns the route to use instead of the track not: the cheapest of those
// most surely alive, nil if there is none.
func (e *Engine) best(now time.Time, p *peer, not *track) *track {
	var found *track
	rank := 0
	for _, t := range p.tracks {
		if t == not || e.unusable(now, t) {
			continue
		}
		r := e.sureness(now, p, t)
		if r > rank || r == rank && r > 0 && e.expect(t) < e.expect(found) {
			found, rank = t, r
		}
	}
	return found
}

// sureness says how sure it is that t works: 0 means that there is no reason
// to think so.
func (e *Engine) sureness(now time.Time, p *peer, t *track) int {
	hub := e.peers[t.route.Hub]
	switch {
	case t.proven(now, Fresh) && !now.Before(t.heldUntil) && !t.narrow():
		return 5
	case t.proven(now, Mapping):
		return 4
	case t.misses > 0:
		return 0
	case t.route.Direct() && p.egress.Addr == t.route.Addr && now.Sub(p.egressAt) < Registered:
		return 4
	case t.route.Direct() && !t.pinged.IsZero() && now.Sub(t.pinged) < Mapping:
		return 3
	case hub != nil && e.alive(now, hub):
		return 3
	case t.route.Direct() && t.static:
		return 2
	case hub != nil:
		return 1
	}
	return 0
}

// expect is the cost of a, or of reaching its hub where a itself was never
// measured.
func (e *Engine) expect(t *track) float64 {
	if t.srtt > 0 || t.route.Direct() {
		return t.cost()
	}
	if h := e.peers[t.route.Hub]; h != nil {
		if line := h.lineTrack(); line != nil {
			return 2*line.cost() + 10
		}
	}
	return 1e6
}

// upgrade changes to a route that is proven, and clearly cheaper.
func (e *Engine) upgrade(now time.Time, p *peer, cur *track) {
	guess := cur.lastEcho.IsZero()
	var better *track
	for _, t := range p.tracks {
		if t == cur || t.misses > 0 || e.unusable(now, t) || now.Before(t.heldUntil) || !t.proven(now, lately) {
			continue
		}
		if cur.wider(t) || cur.misses > 0 && t.shares(cur) {
			continue
		}
		if guess {
			// A relay, or IPv4, often answers first: give the guess a moment.
			if cur.route.Direct() && cur.misses == 0 && now.Sub(p.since) < guessFor {
				continue
			}
		} else if t.echoes < echoesGood || !worthIt(cur, t, now.Sub(p.since)) {
			continue
		}
		if better == nil || t.cost() < better.cost() {
			better = t
		}
	}
	if better == nil {
		if t := e.common(now, p, cur); t != nil {
			e.switchTo(now, p, t, "as the peer")
		}
		return
	}
	why := "better"
	switch {
	case cur.misses > 0:
		why = "no answer"
		cur.fail(now)
	case cur.lossy():
		why = "loses less"
		cur.fail(now)
	}
	e.switchTo(now, p, better, why)
}

// common is the relay that the peer sends by, if it is not the one that we do,
// and as good: a pair that goes by two hubs breaks when either does. Of the two
// ends one changes, that with the higher ID.
func (e *Engine) common(now time.Time, p *peer, cur *track) *track {
	if !p.left || cur.route.Direct() || bytes.Compare(e.cfg.Self[:], p.ID[:]) < 0 ||
		now.Sub(p.since) < Hedged || now.Sub(p.otherRx) > Active {
		return nil
	}
	t := p.track(p.other)
	if t == nil || t.route.Direct() || t.echoes < echoesGood || e.unusable(now, t) ||
		now.Before(t.heldUntil) || !t.proven(now, lately) || t.cost() > 1.25*cur.cost()+10 {
		return nil
	}
	return t
}

// worthIt says whether t is better than cur by more than chance: measured times
// jitter with the load of both machines, and every change costs some packets
// their order.
func worthIt(cur, t *track, used time.Duration) bool {
	was, is := cur.cost(), t.cost()
	switch {
	case t.route.Direct() && !cur.route.Direct():
		return is < 1.2*was+5
	case t.route.Kind() == fleet.PathDirectV6 && cur.route.Kind() == fleet.PathDirectV4:
		return is < 1.1*was+2 // no NAT on the way that forgets
	case used < settled && !cur.lossy():
		return false
	case !t.route.Direct() && cur.route.Direct():
		return is < 0.6*was-15
	default:
		return is < 0.8*was-3
	}
}

func (e *Engine) switchTo(now time.Time, p *peer, t *track, why string) {
	old := p.primary
	p.primary, p.since, p.why = t.route, now, why
	p.suspect = false
	if p.awake {
		e.probeAt(p, t, now)
	}
	if !old.IsZero() && p.awake {
		// The new route may echo and yet lose data: until data comes, send both.
		p.spare = old
		p.hedgeUntil = now.Add(Hedged)
	}
	e.publish(p, why)
	if t.proven(now, Fresh) {
		e.decide(Proven{p.ID, t.srtt})
	}
}

// chooseSpare keeps a proven route at hand that shares as little as possible
// with the primary: another hub's, or a relay where the primary is direct.
func (e *Engine) chooseSpare(now time.Time, p *peer) {
	if !p.awake || p.primary.IsZero() {
		p.spare = Route{}
		return
	}
	kin := func(t *track) bool { return t.route.Direct() && p.primary.Direct() }
	cur := p.track(p.spare)
	if cur != nil && (cur.route == p.primary || e.unusable(now, cur)) {
		cur = nil
	}
	if cur != nil && (!p.hedgeUntil.IsZero() || cur.proven(now, Fresh) && !kin(cur)) {
		return
	}
	var found *track
	for _, t := range p.tracks {
		if t.route == p.primary || e.unusable(now, t) || !t.proven(now, lately) {
			continue
		}
		if found == nil || kin(found) && !kin(t) || kin(found) == kin(t) && t.cost() < found.cost() {
			found = t
		}
	}
	switch {
	case cur != nil && cur.proven(now, Fresh) && (found == nil || kin(found)):
		return // no better kind than what there is
	case found == nil:
		p.spare = Route{}
		return
	}
	p.spare = found.route
	e.probeAt(p, found, now)
}

// publish tells what is used now, if that changed.
func (e *Engine) publish(p *peer, why string) {
	u := Use{Peer: p.ID, Route: p.primary, Spare: p.spare, Hedge: !p.hedgeUntil.IsZero() && !p.spare.IsZero()}
	if t := p.track(p.primary); t != nil {
		u.Local = e.localFor(p, t)
		u.Narrow = t.narrow()
		u.Wide = !t.lastFull.IsZero() && t.fullMisses == 0
	}
	if u == p.published {
		return
	}
	p.published = u
	u.Why = why
	e.decide(u)
}

func orElse(s, or string) string {
	if s == "" {
		return or
	}
	return s
}
