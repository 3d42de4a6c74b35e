package path

import (
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Advance does what is due at now, and returns when to call it next; sooner if
// traffic starts with a peer that was quiet. What it costs depends on how many
// peers something is due for.
func (e *Engine) Advance(now time.Time) time.Time {
	for len(e.timers) > 0 && !e.timers[0].due.After(now) {
		p := e.timers[0]
		e.rest(p)
		due := e.advance(now, p)
		e.rest(p) // that knows of all that was asked for meanwhile
		if !due.IsZero() {
			e.look(p, maxTime(due, now.Add(time.Millisecond)))
		}
	}
	next := now.Add(time.Minute)
	if len(e.timers) > 0 {
		next = minTime(next, e.timers[0].due)
	}
	return maxTime(next, now.Add(time.Millisecond))
}

// advance returns when something is to be done for p again; the zero time when
// there is nothing, and all that was known of it is forgotten.
func (e *Engine) advance(now time.Time, p *peer) time.Time {
	if p.awake && e.cfg.Traffic != nil {
		e.traffic(now, p, e.cfg.Traffic(now, p.ID))
	}
	if p.awake && now.Sub(p.lastTx) > Idle && now.Sub(p.lastRx) > Idle {
		p.sleep()
		e.publish(p, "idle")
	}
	var due time.Time
	at := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	for _, t := range p.tracks {
		e.expire(now, p, t)
	}
	if p.Hub {
		e.chooseLine(now, p)
	}
	if p.awake {
		at(e.suspicion(now, p))
		at(e.summon(now, p))
		e.choose(now, p, "")
		e.search(now, p)
		if !p.hedgeUntil.IsZero() {
			at(p.hedgeUntil)
		}
		at(maxTime(p.lastTx, p.lastRx).Add(Idle + time.Millisecond))
	}
	at(e.watch(now, p))
	for _, t := range p.tracks {
		at(e.attend(now, p, t))
	}
	if due.IsZero() {
		return e.forget(now, p)
	}
	return due
}

// watch looks at the traffic with p while it flows, and then asks to be told when
// it does again.
func (e *Engine) watch(now time.Time, p *peer) time.Time {
	if p.awake && (now.Sub(p.lastTx) < flowFor || now.Sub(p.lastRx) < flowFor) {
		p.flowing = true
		return now.Add(Look)
	}
	if p.flowing {
		p.flowing = false
		e.decide(Quiet{p.ID})
	}
	return time.Time{}
}

// attend sends what is due by t, and returns when something is again.
func (e *Engine) attend(now time.Time, p *peer, t *track) (due time.Time) {
	if !t.next.IsZero() && !now.Before(t.next) {
		e.probe(now, p, t)
	}
	full := e.fullDue(now, p, t)
	if !full.IsZero() && !now.Before(full) {
		e.probeFull(now, p, t)
		full = e.fullDue(now, p, t)
	}
	due = t.next
	if !full.IsZero() {
		due = minTime(due, full)
	}
	if sent, ok := t.waiting(); ok {
		due = minTime(due, sent.Add(t.timeout()))
	}
	return due
}

// forget drops all that is known of a peer that was not heard of for long, and
// returns when to look again. What is known of hubs is kept.
func (e *Engine) forget(now time.Time, p *peer) time.Time {
	if p.Hub {
		return time.Time{}
	}
	if old := p.known.Add(Forget); now.Before(old) {
		return old
	}
	delete(e.peers, p.ID)
	return time.Time{}
}

// expire gives up what was not answered in time.
func (e *Engine) expire(now time.Time, p *peer, t *track) {
	if len(t.flights) == 0 {
		return
	}
	limit := t.timeout()
	before := t.misses
	for i := range t.flights {
		if f := &t.flights[i]; !f.missed && now.Sub(f.at) >= limit {
			t.missed(now, *f)
			f.missed = true
		}
	}
	t.flights = slices.DeleteFunc(t.flights, func(f flight) bool {
		return f.missed && now.Sub(f.at) > lateFor
	})
	if t.misses == before {
		return
	}
	if t.misses < missesHard && (t.route == p.primary || p.Hub && t.route.Direct()) {
		e.probeAt(p, t, now) // make sure, quickly
	}
	if hub := e.peers[t.route.Hub]; hub != nil && t.route == p.primary {
		e.doubt(now, hub)
	}
}

// doubt probes at once what leads to p: somebody misses answers by it.
func (e *Engine) doubt(now time.Time, p *peer) {
	for _, t := range p.tracks {
		if (t.route == p.primary && p.awake || t.route == p.line) && !t.asked() {
			e.probeAt(p, t, now)
		}
	}
}

// probe sends one, and says when the next is due.
func (e *Engine) probe(now time.Time, p *peer, t *track) {
	if !t.route.Direct() {
		hub := e.peers[t.route.Hub]
		if hub == nil || hub.line.IsZero() {
			t.next = now.Add(Active) // nothing to send it by
			return
		}
		e.engage(now, hub)
	}
	t.tries++
	t.sent = now
	every := e.interval(now, p, t)
	if every == 0 {
		t.next = time.Time{}
	} else {
		t.next = now.Add(every)
	}
	e.ask(now, p, t, wire.ProbeSize)
}

// ask sends a probe.
func (e *Engine) ask(now time.Time, p *peer, t *track, size uint16) {
	f := flight{nonce: e.nonce(), at: now, full: size > wire.ProbeSize}
	m := wire.Probe{Kind: wire.Ping, Stamp: p.stamp(e.epoch), Nonce: f.nonce, Size: size}
	if p.mark(now, t.route) {
		m.Flags |= wire.Primary
	}
	const most = 32
	if len(t.flights) == most {
		t.flights = slices.Delete(t.flights, 0, 1)
	}
	t.flights = append(t.flights, f)
	e.send(p, t.route, e.localFor(p, t), m)
}

// probeFull sends a probe as large as a full packet: a route that lets small
// ones pass and drops those is of no use.
func (e *Engine) probeFull(now time.Time, p *peer, t *track) {
	t.fullSent = now
	e.ask(now, p, t, e.cfg.PadTo)
}

// fullDue is when to send one by t; zero for never.
func (e *Engine) fullDue(now time.Time, p *peer, t *track) time.Time {
	every := time.Duration(0)
	bulk := now.Sub(p.lastBulk) < bulkFor
	switch {
	case e.cfg.PadTo <= wire.ProbeSize || !p.awake || t.misses > 0 || t.lastEcho.IsZero():
	case t.route == p.primary && t.fullMisses > 0 && !t.narrow(), t.route == p.primary && bulk && (p.suspect || now.Sub(t.fullMissed) < missedFor):
		every = Burst
	case t.route == p.primary && (bulk || p.left && now.Sub(p.leftAt) < leftFor):
		every = FullBulk
	case t.route == p.primary:
		every = FullElse
	case t.lastFull.IsZero() && !t.narrow() && p.promising(t):
		every = Active / 4 // before it is used
	case t.narrow() && t.route.Direct():
		every = FullElse // until it passes them again
	case t.narrow():
		every = Background
	}
	if every == 0 {
		return time.Time{}
	}
	return t.fullSent.Add(every)
}

// promising says whether t may be used next.
func (p *peer) promising(t *track) bool {
	cur := p.track(p.primary)
	return t.route == p.spare || cur == nil || t.route.Direct() || t.cost() < cur.cost()
}

// interval is how long after a probe of t the next one follows; 0 for never.
func (e *Engine) interval(now time.Time, p *peer, t *track) time.Duration {
	hubLine := p.Hub && t.route.Direct()
	kept := hubLine && p.kept(now)
	inUse := p.awake && (t.route == p.primary || t.route == p.spare)
	switch {
	case inUse && t.route == p.primary && (p.suspect || t.misses > 0) && t.misses < missesHard:
		return Burst
	case inUse && t.misses == 0 && t.route == p.primary:
		return Active
	case inUse && t.misses == 0:
		return min(Spare, t.rests(now)) // it may be on trial
	case p.awake && e.cutOff(now, p):
		return Active / 2
	case kept && t.misses > 0 && t.misses < missesHard:
		return Active / 4
	case kept && t.misses > 0:
		return 2 * Active
	case p.awake && t.misses == 0 && !t.lastEcho.IsZero():
		return t.rests(now)
	case p.awake && t.tries <= 3, now.Before(p.punchUntil):
		return Active
	case p.awake && t.route.Direct() && t.hold > 0 && now.Sub(t.missSince) < failedFor:
		return 2 * Active
	case p.awake:
		return Background
	case hubLine:
		span := uint64(KeepaliveMax - KeepaliveMin)
		every := KeepaliveMin + time.Duration(e.cfg.Random()%span)
		if !kept {
			every *= time.Duration(len(e.hubs)) // one of them in a while
		}
		return every
	}
	return 0
}

// rests is how often t, which works and is not in use, is probed.
func (t *track) rests(now time.Time) time.Duration {
	switch {
	case t.echoes < echoesGood:
		return Active / 4
	case !t.route.Direct():
		return 2 * Background
	case t.loss() > 0 || now.Before(t.heldUntil):
		return Trial // to know soon whether that was an accident
	}
	return Background
}

// cutOff says whether p is in use and no route to it is known to work.
func (e *Engine) cutOff(now time.Time, p *peer) bool {
	for _, t := range p.tracks {
		if t.proven(now, Fresh) {
			return false
		}
	}
	return true
}

// search looks for a way at once where none is known to work: what was given up
// may have come back since.
func (e *Engine) search(now time.Time, p *peer) {
	if now.Sub(p.lastTx) > Active || !e.cutOff(now, p) {
		return
	}
	again := func(p *peer, t *track) { e.probeAt(p, t, maxTime(now, t.sent.Add(Active/2))) }
	for _, t := range p.tracks {
		again(p, t)
	}
	for _, h := range e.hubs {
		for _, t := range h.tracks {
			if h != p && t.route.Direct() && t.misses > 0 {
				again(h, t)
			}
		}
	}
}

// suspicion looks for data that should have been answered, and returns when to
// look again.
func (e *Engine) suspicion(now time.Time, p *peer) time.Time {
	t := p.track(p.primary)
	if t == nil {
		return time.Time{}
	}
	// What comes by another route is as good: it answers what we sent.
	quiet := maxTime(p.quietSince(), p.otherRx)
	if t.misses == 0 && !quiet.Before(p.lastTx) {
		p.suspect = false
	}
	// What was sent last may still be answered: look at the silence before it.
	patience := Suspect + t.srtt + 4*t.rttvar
	if p.calmed > 0 {
		// A stream in one direction, or a peer that answers by another route.
		patience = min(patience<<min(p.calmed, 4), Active)
	}
	if p.lastTx.After(quiet) && now.Sub(maxTime(quiet, p.since)) >= patience && now.Sub(p.lastTx) < Active {
		if !p.suspect && !t.asked() {
			e.probeAt(p, t, now)
		}
		p.suspect = true
	}
	doubtful := p.suspect && t.overdue(now) || t.losesFull(now) && now.Sub(p.lastBulk) < bulkFor
	if doubtful && p.hedgeUntil.IsZero() && !p.spare.IsZero() {
		p.hedgeUntil = now.Add(Hedged)
		e.publish(p, "suspected")
	}
	if now.After(p.hedgeUntil) && !p.hedgeUntil.IsZero() {
		p.hedgeUntil = time.Time{}
		e.publish(p, "hedge over")
	}
	if p.lastTx.After(quiet) && (p.suspect || now.Sub(p.lastTx) < Active) {
		return maxTime(quiet.Add(patience), now.Add(Burst/4))
	}
	return time.Time{}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// minTime is the earlier of two; a zero time is no time.
func minTime(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
