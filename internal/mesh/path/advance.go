package path

import (
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Advance does what is due at now, and returns when to call it next; sooner if
// traffic starts with a peer that was quiet.
func (e *Engine) Advance(now time.Time) time.Time {
	next := now.Add(time.Minute)
	for _, p := range slices.Clone(e.busy) {
		due := e.advance(now, p)
		if due.IsZero() {
			e.rest(p)
			continue
		}
		if due.Before(next) {
			next = due
		}
	}
	return maxTime(next, now.Add(time.Millisecond))
}

// advance returns the zero time when nothing more is to be done for p.
func (e *Engine) advance(now time.Time, p *peer) time.Time {
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
	for _, t := range p.tracks {
		if !t.next.IsZero() && !now.Before(t.next) {
			e.probe(now, p, t)
		}
		at(t.next)
		full := e.fullDue(now, p, t)
		if !full.IsZero() && !now.Before(full) {
			e.probeFull(now, p, t)
			full = e.fullDue(now, p, t)
		}
		at(full)
		if sent, ok := t.waiting(); ok {
			at(sent.Add(t.timeout()))
		}
	}
	return due
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
			t.missed(*f)
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
		t.next = minTime(t.next, now) // make sure, quickly
	}
	if hub := e.peers[t.route.Hub]; hub != nil && t.route == p.primary {
		e.doubt(now, hub)
	}
}

// doubt probes at once what leads to p: somebody misses answers by it.
func (e *Engine) doubt(now time.Time, p *peer) {
	for _, t := range p.tracks {
		if (t.route == p.primary && p.awake || t.route == p.line) && !t.asked() {
			t.next = minTime(t.next, now)
		}
	}
}

// probe sends one, and says when the next is due.
func (e *Engine) probe(now time.Time, p *peer, t *track) {
	if hub := e.peers[t.route.Hub]; !t.route.Direct() && (hub == nil || hub.line.IsZero()) {
		t.next = now.Add(Active) // nothing to send it by
		return
	}
	if again := t.sent.Add(Burst / 2); now.Before(again) {
		// Whatever asks for it: two ends that answer pings with pings must not
		// drive each other on.
		t.next = again
		return
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
	if p.mark(t.route) {
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
	case t.route == p.primary && t.fullMisses > 0 && !t.narrow(), t.route == p.primary && bulk && p.suspect:
		every = Burst
	case t.route == p.primary && bulk:
		every = FullBulk
	case t.route == p.primary:
		every = FullElse
	case t.lastFull.IsZero() && !t.narrow():
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

// interval is how long after a probe of t the next one follows; 0 for never.
func (e *Engine) interval(now time.Time, p *peer, t *track) time.Duration {
	hubLine := p.Hub && t.route.Direct()
	inUse := p.awake && (t.route == p.primary || t.route == p.spare)
	switch {
	case inUse && t.route == p.primary && (p.suspect || t.misses > 0) && t.misses < missesHard:
		return Burst
	case inUse && t.misses == 0:
		return Active
	case p.awake && e.cutOff(now, p):
		return Active / 2
	case hubLine && t.misses > 0 && t.misses < missesHard:
		return Active / 4
	case hubLine && t.misses > 0:
		return 2 * Active
	case p.awake && t.misses == 0 && !t.lastEcho.IsZero():
		if t.echoes < echoesGood {
			return Active / 4
		}
		if t.route.Direct() && t.loss() > 0 {
			return 2 * Active // to know soon whether that was an accident
		}
		return Background
	case p.awake && t.tries <= 3, now.Before(p.punchUntil):
		return Active
	case p.awake:
		return Background
	case hubLine:
		span := uint64(KeepaliveMax - KeepaliveMin)
		return KeepaliveMin + time.Duration(e.cfg.Random()%span)
	}
	return 0
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
	again := func(t *track) { t.next = minTime(t.next, maxTime(now, t.sent.Add(Active/2))) }
	for _, t := range p.tracks {
		again(t)
	}
	for _, h := range e.hubs {
		for _, t := range h.tracks {
			if h != p && t.route.Direct() && t.misses > 0 {
				again(t)
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
			t.next = minTime(t.next, now)
		}
		p.suspect = true
	}
	doubtful := p.suspect && t.overdue(now) || t.fullMisses > 1 && now.Sub(p.lastBulk) < bulkFor
	if doubtful && p.hedgeUntil.IsZero() && !p.spare.IsZero() {
		p.hedgeUntil = now.Add(Hedged)
		e.publish(p, "suspected")
	}
	if now.After(p.hedgeUntil) && !p.hedgeUntil.IsZero() {
		p.hedgeUntil = time.Time{}
		e.publish(p, "hedge over")
	}
	if p.lastTx.After(quiet) {
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
