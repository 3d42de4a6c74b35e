package path

import (
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/replay"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// peer is what is known of one other node.
type peer struct {
	Peer

	tracks []*track

	// When Advance looks after it; slot is its place among the timers, -1 if
	// there is nothing to do.
	due   time.Time
	slot  int
	known time.Time // when a frame of it, or traffic with it, was last seen

	// What the peer's frames must carry.
	epoch   uint32 // 0: not known
	was     uint32 // before Rename, until it is proven again; 0: nothing
	changes uint64 // unlike any before, so that an old proof is no proof
	window  replay.Filter
	newest  uint64 // highest counter

	asked []wire.Stamp // of pings that it was asked to prove its epoch for

	counter uint64 // of our own frames to it

	// Traffic.
	awake          bool
	lastTx, lastRx time.Time // of data; Rx by the primary only
	lastBulk       time.Time // of much data sent at once
	other          Route     // the last other route that data came by
	otherRx        time.Time // and when
	suspect        bool
	calmed         int  // suspicions in a row that an echo refuted, without data
	left           bool // it sends by another route than our primary
	leftAt         time.Time
	flowing        bool // its traffic is looked at often

	// The choice.
	primary, spare Route
	since          time.Time // of primary
	why            string    // and why
	hedgeUntil     time.Time
	published      Use

	// Of a hub.
	line     Route     // direct: where it gets what it shall relay
	draining time.Time // until then, not to be used
	home     bool      // always kept in touch with
	engaged  time.Time // until then, kept in touch with because it is used
	seen     sighting

	// As we, a hub, relay to it.
	egress   Egress
	egressAt time.Time

	// Finding a direct route.
	calls      int // of this series
	inVain     int // series
	callAt     time.Time
	answeredAt time.Time
	punchUntil time.Time
	punched    time.Time        // when we last called
	named      []netip.AddrPort // where it last said that it may be reached
	told       []wire.ID        // the hubs that it said it keeps in touch with
	noticeAt   time.Time

	discovering time.Time // beginning of the second in which
	discovered  int       // so many addresses were new
}

func (p *peer) track(r Route) *track {
	for _, t := range p.tracks {
		if t.route == r {
			return t
		}
	}
	return nil
}

// learn returns the track of r, adding it if there is room or something to
// make room of.
func (p *peer) learn(now time.Time, r Route) *track {
	t := p.track(r)
	if t == nil {
		p.forget(now)
		t = &track{route: r}
		p.tracks = append(p.tracks, t)
	}
	t.heard = now
	return t
}

// discover is learn for an address that a ping came from. It returns nil when
// there were too many lately: a NAT that translates every packet anew makes
// each of our probes look like another one to the peer, which probes back.
func (p *peer) discover(now time.Time, r Route) *track {
	if now.Sub(p.discovering) >= time.Second {
		p.discovering, p.discovered = now, 0
	}
	if p.discovered >= maxDiscovered {
		return nil
	}
	p.discovered++
	return p.learn(now, r)
}

// forget drops learned addresses without a sign of life, and the stalest when
// there are too many.
func (p *peer) forget(now time.Time) {
	droppable := func(t *track) bool {
		return !t.static && t.route.Direct() && t.route != p.primary && t.route != p.spare && t.route != p.line
	}
	p.tracks = slices.DeleteFunc(p.tracks, func(t *track) bool {
		return droppable(t) && now.Sub(t.heard) > Forget
	})
	learned, stalest := 0, -1
	for i, t := range p.tracks {
		if !droppable(t) {
			continue
		}
		learned++
		if stalest < 0 || t.heard.Before(p.tracks[stalest].heard) {
			stalest = i
		}
	}
	if learned >= maxLearned {
		p.tracks = slices.Delete(p.tracks, stalest, stalest+1)
	}
}

func (p *peer) stamp(epoch uint32) wire.Stamp {
	p.counter++
	return wire.Stamp{Epoch: epoch, Counter: p.counter}
}

// quietSince is when the primary was last known to work: data or an echo.
func (p *peer) quietSince() time.Time {
	last := p.lastRx
	if t := p.track(p.primary); t != nil && t.lastEcho.After(last) {
		last = t.lastEcho
	}
	return last
}

// lineTrack is the track of a hub's line, nil if it has none.
func (p *peer) lineTrack() *track {
	if p.line.IsZero() {
		return nil
	}
	return p.track(p.line)
}

// mark says whether our pings by r shall carry the Primary flag: a hub relays
// to where such a ping came from.
func (p *peer) mark(now time.Time, r Route) bool {
	if p.Hub && p.kept(now) {
		return r == p.line || p.line.IsZero() && r.Direct()
	}
	return r == p.primary && (p.awake || !p.Hub)
}

// sleep stops all that costs anything.
func (p *peer) sleep() {
	p.awake, p.suspect, p.left = false, false, false
	p.hedgeUntil = time.Time{}
	p.calls, p.inVain, p.callAt = 0, 0, time.Time{}
	for _, t := range p.tracks {
		if p.Hub && t.route.Direct() {
			continue
		}
		t.next, t.flights, t.tries = time.Time{}, t.flights[:0], 0
	}
}
