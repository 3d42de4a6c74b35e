package path

import (
	"math/bits"
	"slices"
	"time"
)

// track is what is known of one route to one peer.
type track struct {
	route  Route
	static bool // from the configuration: never forgotten

	next    time.Time // when to probe it; zero: not at all
	sent    time.Time // when that was last done
	flights []flight  // probes that are neither answered nor given up
	tries   int       // probes since the peer woke

	lastEcho  time.Time // zero: never proven
	heard     time.Time // when a sign of life last came by it, or it was named
	pinged    time.Time // when an authentic ping last came by it
	echoes    int       // in a row
	misses    int       // in a row
	missSince time.Time // when the first of these misses was sent

	// Of probes as large as a full packet: a route that passes small ones only is
	// of no use for much.
	fullSent   time.Time
	lastFull   time.Time // when one was answered; zero: never
	fullMisses int       // in a row
	fullMissed time.Time // the last of all
	fullTwice  time.Time // when one was missed lastly that was not the first in missedFor

	srtt, rttvar time.Duration    // RFC 6298; 0: no sample yet
	recent       [8]time.Duration // round trips, newest first; 0: none
	outcomes     uint32           // bit set: lost; newest lowest
	samples      int

	hold      time.Duration // length of the last hold-down
	heldUntil time.Time
}

type flight struct {
	nonce  uint64
	at     time.Time
	full   bool // as large as a full packet: its loss says nothing about small ones
	missed bool // given up, but still recognized should its answer come
}

// lateFor is how long an answer that was given up is recognized: it is no loss
// then, but a round trip to learn from.
const lateFor = 3 * time.Second

// timeout is how long an echo may take.
func (t *track) timeout() time.Duration {
	if t.srtt == 0 {
		return time.Second
	}
	return min(max(t.srtt+4*t.rttvar+50*time.Millisecond, 120*time.Millisecond), 2*time.Second)
}

// take returns the flight of that nonce, which is answered now; the zero flight if
// there is none, or not any more.
func (t *track) take(nonce uint64) (f flight) {
	if i := slices.IndexFunc(t.flights, func(f flight) bool { return f.nonce == nonce }); i >= 0 {
		f = t.flights[i]
		t.flights = slices.Delete(t.flights, i, i+1)
	}
	return f
}

// echoed books the answer to a flight.
func (t *track) echoed(now time.Time, f flight) {
	rtt := max(now.Sub(f.at), time.Microsecond)
	switch {
	case t.lastEcho.IsZero() || now.Sub(t.lastEcho) > Idle:
		// What came before was another time: a NAT that was not open yet, or a
		// break.
		t.srtt, t.outcomes, t.samples = 0, 0, 0
		t.flights = t.flights[:0]
		t.recent = [8]time.Duration{}
		t.lastFull, t.fullMisses = time.Time{}, 0
	case t.misses >= missesHard:
		t.returned(now)
	}
	copy(t.recent[1:], t.recent[:])
	t.recent[0] = rtt
	if t.srtt == 0 {
		t.srtt, t.rttvar = rtt, rtt/2
	} else {
		t.rttvar += (abs(t.srtt-rtt) - t.rttvar) / 4
		t.srtt += (rtt - t.srtt) / 8
	}
	switch {
	case f.full:
		t.lastFull, t.fullMisses = now, 0
	case f.missed:
		t.outcomes &= t.outcomes - 1 // one loss less
	default:
		t.record(0)
	}
	t.lastEcho, t.heard = now, now
	t.echoes++
	t.misses = 0
}

// returned books the end of an outage. It says nothing of how lossy the route is;
// but the route is held down, lest it comes and goes, if it is not already: it may
// have been left for a better one while it broke, or not have been in use.
func (t *track) returned(now time.Time) {
	away := min(bits.TrailingZeros32(^t.outcomes), t.misses, t.samples)
	t.outcomes >>= away
	t.samples -= away
	if t.heldUntil.Before(t.missSince) {
		t.holdOn(now)
	}
}

// holdOn begins the hold-down again: as long as the last one, not longer.
func (t *track) holdOn(now time.Time) {
	t.hold = max(t.hold, Hold)
	t.heldUntil = now.Add(t.hold)
}

// missed books a flight that was given up.
func (t *track) missed(now time.Time, f flight) {
	if f.full {
		t.fullMisses++
		if now.Sub(t.fullMissed) < missedFor {
			t.fullTwice = now
		}
		t.fullMissed = now
		return
	}
	t.record(1)
	if t.misses == 0 && now.Before(t.heldUntil) {
		t.holdOn(now) // it comes and goes
	}
	if t.misses == 0 || f.at.Before(t.missSince) {
		t.missSince = f.at
	}
	t.misses++
	t.echoes = 0
}

// broken makes the route dead at once, on somebody's word.
func (t *track) broken(now time.Time) {
	t.flights = t.flights[:0]
	t.echoes, t.misses, t.missSince = 0, missesHard, now
}

func (t *track) record(lost uint32) {
	t.outcomes = t.outcomes<<1 | lost
	t.samples = min(t.samples+1, 32)
}

// loss is the share of the last probes, at most 32, that were not answered. A
// single one is no share of anything.
func (t *track) loss() float64 {
	lost := bits.OnesCount32(t.outcomes & (1<<t.samples - 1))
	if lost <= 1 {
		return 0
	}
	return float64(lost) / float64(max(t.samples, 16))
}

// lossy says whether so much is lost that another route is better, if it is not
// much slower.
func (t *track) lossy() bool { return t.loss() > 0.1 }

// proven says whether an echo came within d, and no probe was missed since.
func (t *track) proven(now time.Time, d time.Duration) bool {
	return t.misses == 0 && !t.lastEcho.IsZero() && now.Sub(t.lastEcho) <= d
}

// overdue says whether an answer is missing that should be here: well before
// it counts as missed.
func (t *track) overdue(now time.Time) bool {
	if t.misses > 0 {
		return true
	}
	at, ok := t.waiting()
	return ok && now.Sub(at) > t.srtt+max(4*t.rttvar, Burst/2)
}

// waiting returns when the oldest probe was sent that may still be answered in
// time.
func (t *track) waiting() (at time.Time, ok bool) {
	for _, f := range t.flights {
		if !f.missed {
			return f.at, true
		}
	}
	return time.Time{}, false
}

// asked says whether the answer to a small probe is awaited.
func (t *track) asked() bool {
	for _, f := range t.flights {
		if !f.missed && !f.full {
			return true
		}
	}
	return false
}

// shares says whether t may share what just broke cur: both are direct, and it has
// not answered since.
func (t *track) shares(cur *track) bool {
	return t.route.Direct() && cur.route.Direct() && t.lastEcho.Before(cur.missSince)
}

// wider says whether full packets pass by t, and not by other, or nobody has tried
// yet.
func (t *track) wider(other *track) bool {
	return !t.narrow() && (other.narrow() || other.lastFull.IsZero() && !t.lastFull.IsZero())
}

// losesFull says whether more than one full packet was lost lately.
func (t *track) losesFull(now time.Time) bool {
	return t.fullMisses > 1 || now.Sub(t.fullTwice) < missedFor
}

// narrow says whether full packets do not pass.
func (t *track) narrow() bool { return t.fullMisses >= missesFull }

// fail puts the route into hold-down.
func (t *track) fail(now time.Time) {
	if t.hold == 0 || now.Sub(t.heldUntil) > goodFor {
		t.hold = Hold
	} else {
		t.hold = min(2*t.hold, HoldMax)
	}
	t.heldUntil = now.Add(t.hold)
	t.echoes = 0
}

// best is the shortest of the last round trips: what the route takes when
// neither machine is busy with something else.
func (t *track) best() time.Duration {
	shortest := t.recent[0]
	for _, d := range t.recent[1:] {
		if d > 0 && d < shortest {
			shortest = d
		}
	}
	return shortest
}

// cost ranks routes that work, in milliseconds. A relay uses the owner's
// bandwidth twice, and loss hurts far more than delay.
func (t *track) cost() float64 {
	ms := float64(t.best()) / float64(time.Millisecond)
	switch {
	case !t.route.Direct():
		ms = ms*1.25 + 10
	case t.route.Addr.Addr().Is4():
		ms++
	}
	if t.narrow() {
		ms += narrowCost
	}
	loss := t.loss()
	return ms + 1000*max(loss-0.05, 0)
}

// narrowCost is more than any detour takes.
const narrowCost = 1000

func abs(d time.Duration) time.Duration {
	if d < 0 {
		return -d
	}
	return d
}
