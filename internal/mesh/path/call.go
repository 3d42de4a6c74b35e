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
	// callAgain is when we start over if that did not help.
	callAgain = 45 * time.Second
	// punchFor is how long endpoints that were named are probed, once a second:
	// both sides must have sent before either hears, and a first packet may
	// have made the other's NAT wary.
	punchFor = 4 * time.Second
	// sightingFor is how long what a hub saw of us is worth telling.
	sightingFor = 2 * KeepaliveMax
)

// sighted notes what we look like from a hub. If that changed, the NAT before us
// forgot us, or we moved: then no other hub can reach us either, until it hears
// from us.
func (e *Engine) sighted(now time.Time, p *peer, seen netip.AddrPort) {
	if !p.Hub {
		return
	}
	s := e.seen[p.ID]
	was := s.v6
	if seen.Addr().Is4() {
		was = s.v4
	}
	if was.IsValid() && was != seen && now.Sub(e.shifted) > Background {
		e.shifted = now
		for _, h := range e.hubs {
			for _, t := range h.tracks {
				if h != p && t.route.Direct() {
					t.next = minTime(t.next, now)
				}
			}
		}
	}
	if seen.Addr().Is4() {
		s.v4, s.at4 = seen, now
	} else {
		s.v6, s.at6 = seen, now
	}
	e.seen[p.ID] = s
}

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
		s := e.seen[h.ID]
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
		if t.route.Direct() && t.proven(now, Background+Fresh) {
			p.calls = 0
			return now.Add(Background)
		}
	}
	if now.Before(p.callAt) {
		return p.callAt
	}
	if p.calls >= callRounds {
		p.calls = 0
		p.callAt = now.Add(callAgain)
		return p.callAt
	}
	e.call(now, p, true)
	p.callAt = now.Add(time.Second << p.calls)
	p.calls++
	p.punchUntil, p.punched = now.Add(punchFor), now
	for _, t := range p.tracks {
		if t.route.Direct() && !t.proven(now, Background) {
			t.next = minTime(t.next, now)
		}
	}
	return p.callAt
}

// call sends our endpoints to p through every hub that is alive.
func (e *Engine) call(now time.Time, p *peer, answer bool) {
	m := wire.CallMe{Answer: answer, Endpoints: e.Endpoints(now)}
	for _, h := range e.hubs {
		if h != p && e.alive(now, h) && len(m.Hubs) < wire.MaxHubs {
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

// called tries the endpoints that p named, and names ours in return.
func (e *Engine) called(now time.Time, p *peer, m wire.CallMe) {
	for _, a := range m.Endpoints {
		ip := a.Addr()
		if !ip.IsGlobalUnicast() { // private addresses are global unicast, loopback and link-local not
			continue
		}
		t := p.learn(now, Route{Addr: a})
		if !t.proven(now, Background) {
			t.next = minTime(t.next, now)
			t.misses = min(t.misses, missesDead-1)
		}
	}
	p.named = m.Endpoints
	p.punchUntil = now.Add(punchFor)
	e.attend(p)
	if !m.Answer || now.Sub(p.answeredAt) < time.Second/2 {
		return
	}
	p.answeredAt = now
	e.call(now, p, false)
}
