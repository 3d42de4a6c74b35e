package path

import (
	"net/netip"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

const (
	// callRounds is how often we ask a peer to open its side: 1, 2, 4 s apart.
	callRounds = 4
	// callAgain is when we start over if that did not help; twice as late each
	// time, up to callLast: some NATs never open, and the endpoints that were
	// named are probed meanwhile.
	callAgain = 45 * time.Second
	callLast  = 6 * time.Minute
	// punchFor is how long endpoints that were named are probed, once a second:
	// both sides must have sent before either hears, and a first packet may
	// have made the other's NAT wary.
	punchFor = 4 * time.Second
	// sightingFor is how long what a hub saw of us is worth telling.
	sightingFor = 2 * KeepaliveMax
)

// Endpoints is where peers may try to reach us: as hubs saw us, then our own
// addresses.
func (e *Engine) Endpoints(now time.Time) []netip.AddrPort {
	var out []netip.AddrPort
	add := func(a netip.AddrPort) {
		if a.IsValid() && !slices.Contains(out, a) && len(out) < wire.MaxEndpoints {
			out = append(out, a)
		}
	}
	for _, h := range e.hubs {
		s := h.seen
		if now.Sub(s.at6) < sightingFor {
			add(s.v6)
		}
		if now.Sub(s.at4) < sightingFor {
			add(s.v4)
		}
	}
	for _, a := range e.local {
		add(a)
	}
	return out
}

// summon asks p, through hubs, to open its side for a direct route, and returns
// when to do so again.
func (e *Engine) summon(now time.Time, p *peer) time.Time {
	if p.callAt.IsZero() {
		return time.Time{}
	}
	for _, t := range p.tracks {
		if t.route.Direct() && t.proven(now, lately) {
			p.calls, p.inVain = 0, 0
			return now.Add(Background)
		}
	}
	if now.Before(p.callAt) {
		return p.callAt
	}
	if p.calls >= callRounds {
		p.calls = 0
		p.callAt = now.Add(min(callAgain<<p.inVain, callLast))
		p.inVain = min(p.inVain+1, 8)
		return p.callAt
	}
	e.call(now, p, true)
	p.callAt = now.Add(time.Second << p.calls)
	p.calls++
	p.punchUntil, p.punched = now.Add(punchFor), now
	for _, t := range p.tracks {
		if t.route.Direct() && !t.proven(now, Background) {
			e.probeAt(p, t, now)
		}
	}
	return p.callAt
}

// call sends our endpoints to p through every hub that is alive.
func (e *Engine) call(now time.Time, p *peer, answer bool) {
	m := wire.CallMe{Answer: answer, Endpoints: e.Endpoints(now)}
	for _, h := range e.hubs {
		if h != p && h.home && e.alive(now, h) && len(m.Hubs) < wire.MaxHubs {
			m.Hubs = append(m.Hubs, h.ID)
		}
	}
	for _, t := range p.tracks {
		hub := e.peers[t.route.Hub]
		if hub != nil && e.alive(now, hub) && t.misses < missesDead && !e.unusable(now, t) {
			m.Stamp = p.stamp(e.epoch)
			e.send(p, t.route, netip.Addr{}, m)
		}
	}
}

// tryAnew forgets that calling was in vain: one of the two sides is connected in
// another way now.
func (p *peer) tryAnew(now time.Time) {
	p.inVain = 0
	if !p.callAt.IsZero() && p.calls == 0 {
		p.callAt = now
	}
}

// called tries the endpoints that p named, and names ours in return.
func (e *Engine) called(now time.Time, p *peer, m wire.CallMe) {
	for _, a := range m.Endpoints {
		ip := a.Addr()
		if !ip.IsGlobalUnicast() { // private addresses are global unicast, loopback and link-local not
			continue
		}
		t := p.learn(now, Route{Addr: a})
		if !t.proven(now, Background) {
			e.probeAt(p, t, now)
			t.misses = min(t.misses, missesDead-1)
		}
	}
	if !slices.Equal(p.named, m.Endpoints) {
		p.tryAnew(now)
	}
	p.named, p.told = m.Endpoints, m.Hubs
	p.punchUntil = now.Add(punchFor)
	if p.awake {
		e.setTracks(now, p)
	}
	if !m.Answer || now.Sub(p.answeredAt) < time.Second/2 || now.Sub(p.punched) < time.Second/2 {
		return // it knows: we just called
	}
	p.answeredAt = now
	e.call(now, p, false)
}
