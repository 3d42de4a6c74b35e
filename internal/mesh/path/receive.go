package path

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Receive takes a message that wire.Keyring.Open found authentic.
func (e *Engine) Receive(now time.Time, from Source, m wire.Message) {
	id, _ := wire.SenderOf(m)
	p := e.meet(now, id)
	if p == nil {
		return
	}
	defer e.look(p, now)
	switch m := m.(type) {
	case wire.Probe:
		if m.Kind == wire.Ping {
			e.ping(now, from, p, m)
		} else {
			e.pong(now, from, p, m)
		}
	case wire.CallMe:
		if p.fresh(m.Stamp) {
			e.called(now, p, m)
		}
	case wire.Note:
		if p.fresh(m.Stamp) {
			e.noted(now, p, m)
		}
	}
}

// fresh says whether a frame of the peer's current epoch was not seen before.
func (p *peer) fresh(s wire.Stamp) bool {
	return p.epoch == s.Epoch && p.epoch != 0 && p.window.ValidateCounter(s.Counter, wire.CounterLimit)
}

func (e *Engine) ping(now time.Time, from Source, p *peer, m wire.Probe) {
	if m.Stamp.Epoch != p.epoch && m.Echo == e.challenge(p, m.Stamp.Epoch) {
		e.adopt(now, p, m.Stamp.Epoch)
	}
	answer := wire.Probe{Kind: wire.Pong, Stamp: p.stamp(e.epoch), Echo: m.Nonce, Size: m.Size}
	if from.Route.Direct() {
		answer.Seen = from.Route.Addr
	}
	if m.Stamp.Epoch != p.epoch {
		// It may be a replay: let the sender prove that it is there, and
		// believe nothing else that this frame says.
		answer.Flags, answer.Nonce = wire.Challenge, e.challenge(p, m.Stamp.Epoch)
		if len(p.asked) == maxAsked {
			p.asked = slices.Delete(p.asked, 0, 1)
		}
		p.asked = append(p.asked, m.Stamp)
		e.send(p, from.Route, from.Local, answer)
		return
	}
	if !p.fresh(m.Stamp) {
		return
	}
	answer.Nonce = e.nonce()
	e.send(p, from.Route, from.Local, answer)
	newest := m.Stamp.Counter > p.newest
	p.newest = max(p.newest, m.Stamp.Counter)
	if !from.Route.Direct() && e.peers[from.Route.Hub] == nil {
		return
	}
	t := p.track(from.Route)
	if t == nil {
		if t = p.discover(now, from.Route); t == nil {
			return
		}
	}
	t.heard, t.pinged = now, now
	if newest && from.Route.Direct() {
		e.register(now, p, from, m.Flags&wire.Primary != 0)
	}
	switch {
	case (p.awake || now.Before(p.punchUntil)) && !t.proven(now, Background):
		e.probeAt(p, t, maxTime(now, t.sent.Add(Burst))) // open our side as well
	case p.awake && from.Route != p.primary && m.Flags&wire.Primary != 0:
		e.doubt(now, p) // the peer left the route we use: does it still work?
	}
}

// register notes where a hub sends what it relays to p.
func (e *Engine) register(now time.Time, p *peer, from Source, primary bool) {
	stale := now.Sub(p.egressAt) > Registered
	at := Egress{Peer: p.ID, Addr: from.Route.Addr, Local: from.Local}
	if at != p.egress {
		if !primary && !stale {
			return
		}
		p.egress = at
		e.decide(at)
	}
	p.egressAt = now
	if stale {
		e.tellDevices(now, p)
	}
	cur := p.track(p.primary)
	if !p.Hub && p.primary != from.Route && (cur == nil || !cur.proven(now, Mapping)) {
		// Better than any guess, for the first packet we may have for it.
		p.primary, p.since, p.why = from.Route, now, "heard"
		e.publish(p, "heard")
	}
}

func (e *Engine) pong(now time.Time, from Source, p *peer, m wire.Probe) {
	t := p.track(from.Route)
	if t == nil {
		return
	}
	f := t.take(m.Echo)
	if f.nonce == 0 {
		return // late, or not for this route
	}
	// The nonce is ours and recent: so is the epoch.
	if m.Stamp.Epoch != p.epoch {
		e.adopt(now, p, m.Stamp.Epoch)
	}
	p.window.ValidateCounter(m.Stamp.Counter, wire.CounterLimit)
	first := t.lastEcho.IsZero() || t.misses > 0
	if t.route == p.primary && !t.proven(now, Mapping) {
		e.decide(Proven{p.ID, now.Sub(f.at)})
	}
	t.echoed(now, f)
	if p.suspect && t.route == p.primary && f.at.After(p.lastRx) {
		p.suspect = false
		p.calmed++
	}
	if m.Seen.IsValid() {
		e.sighted(now, p, m.Seen)
	}
	if from.Route.Direct() && p.egress.Addr != from.Route.Addr && now.Sub(p.egressAt) > Registered {
		e.register(now, p, from, true)
	}
	if m.Flags&wire.Challenge != 0 {
		e.confirm(now, from, p, t, m.Nonce)
	}
	if first && !from.Route.Direct() && p.callAt.IsZero() && p.awake {
		p.callAt = now
	}
	if t.echoes < echoesGood && (p.awake || p.Hub) {
		e.probeAt(p, t, now.Add(Active/4))
	}
	if p.Hub {
		e.chooseLine(now, p)
		if first || !p.home {
			e.settleHomes(now) // now that we know how far it is
		}
	}
	if p.awake || p.Hub {
		e.choose(now, p, "")
	}
}

// confirm proves our epoch to p by answering its challenge at once.
func (e *Engine) confirm(now time.Time, from Source, p *peer, t *track, nonce uint64) {
	f := flight{nonce: e.nonce(), at: now}
	m := wire.Probe{Kind: wire.Ping, Stamp: p.stamp(e.epoch), Nonce: f.nonce, Echo: nonce, Size: wire.ProbeSize}
	if p.mark(now, t.route) {
		m.Flags |= wire.Primary
	}
	t.flights = append(t.flights, f)
	e.send(p, from.Route, from.Local, m)
}

// Failed says that this machine refused to send to a peer by that route: no
// route, no address of that family, a firewall.
func (e *Engine) Failed(now time.Time, id wire.ID, r Route) {
	p := e.peers[id]
	if p == nil {
		return
	}
	t := p.track(r)
	if t == nil || t.misses >= missesHard {
		return
	}
	t.broken(now)
	e.look(p, now)
	if p.Hub {
		e.chooseLine(now, p)
	}
	e.choose(now, p, "refused")
}

func (e *Engine) noted(now time.Time, p *peer, n wire.Note) {
	switch n.Code {
	case wire.Draining:
		p.draining = now.Add(5 * time.Second)
		for _, other := range e.known() {
			if other.awake && other.primary.Hub == p.ID {
				e.choose(now, other, "hub draining")
			}
		}
	case wire.Serving:
		if p.Hub {
			delete(e.serves, n.About)
			e.decide(Serving{p.ID, n.About})
		}
	case wire.Unreachable:
		about := e.peers[n.About]
		if about == nil {
			return
		}
		t := about.track(Route{Hub: p.ID})
		if t == nil {
			return
		}
		t.broken(now)
		if about.awake {
			e.look(about, now)
			e.choose(now, about, "")
		}
	}
}

// Meet asks a node, whose relay frame was authentic but of an epoch we do not
// know, who it is: we were restarted, or it was. At most one every 50 ms per
// sender.
func (e *Engine) Meet(now time.Time, sender wire.ID, from Source) {
	p := e.meet(now, sender)
	if p == nil || now.Sub(p.noticeAt) < 50*time.Millisecond {
		return
	}
	p.noticeAt = now
	t := p.learn(now, from.Route)
	f := flight{nonce: e.nonce(), at: now}
	t.flights = append(t.flights, f)
	e.look(p, now)
	e.send(p, from.Route, from.Local,
		wire.Probe{Kind: wire.Ping, Stamp: p.stamp(e.epoch), Nonce: f.nonce, Size: wire.ProbeSize})
}

// Refuse tells a sender that this hub has no address for about. At most one
// every 50 ms per sender.
func (e *Engine) Refuse(now time.Time, sender, about wire.ID) {
	p := e.peers[sender]
	if p == nil || !p.egress.Addr.IsValid() || now.Sub(p.noticeAt) < 50*time.Millisecond {
		return
	}
	p.noticeAt = now
	e.send(p, Route{Addr: p.egress.Addr}, p.egress.Local,
		wire.Note{Stamp: p.stamp(e.epoch), Code: wire.Unreachable, About: about})
}

// Drain tells all who rely on this node that it is about to stop.
func (e *Engine) Drain(now time.Time) { e.tellDependents(now, wire.Note{Code: wire.Draining}) }

// Serve tells them that this hub has a device; and for ServedFor those who rely on
// it from then on.
func (e *Engine) Serve(now time.Time, device wire.ID) {
	e.serves[device] = now
	e.tellDependents(now, wire.Note{Code: wire.Serving, About: device})
}

// tellDevices tells one that relies on this hub as of now which devices it has.
func (e *Engine) tellDevices(now time.Time, p *peer) {
	for _, id := range slices.SortedFunc(maps.Keys(e.serves), func(a, b wire.ID) int { return bytes.Compare(a[:], b[:]) }) {
		if now.Sub(e.serves[id]) > ServedFor {
			delete(e.serves, id)
			continue
		}
		e.send(p, Route{Addr: p.egress.Addr}, p.egress.Local, wire.Note{Stamp: p.stamp(e.epoch), Code: wire.Serving, About: id})
	}
}

func (e *Engine) tellDependents(now time.Time, n wire.Note) {
	for _, p := range e.known() {
		if p.egress.Addr.IsValid() && now.Sub(p.egressAt) < Registered {
			n.Stamp = p.stamp(e.epoch)
			e.send(p, Route{Addr: p.egress.Addr}, p.egress.Local, n)
		}
	}
}

// localFor is our own address that p reaches by t, where we know it: replies
// and probes must leave by the address the other side's NAT knows.
func (e *Engine) localFor(p *peer, t *track) netip.Addr {
	if t.route.Direct() && t.route.Addr == p.egress.Addr {
		return p.egress.Local
	}
	return netip.Addr{}
}
