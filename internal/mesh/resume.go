package mesh

import (
	"time"

	"golang.org/x/sys/unix"
)

// clockWatch notices what nothing else tells.
//
// That the machine slept: while it does, CLOCK_MONOTONIC, which all our timers go by,
// stands still, and CLOCK_BOOTTIME goes on (clock_gettime(2)). Addresses stay, NATs
// forget.
//
// That its clock was put back. WireGuard's handshakes carry the time of day, and
// whoever has seen a later one takes none: for a year, if the clock was a year
// ahead. See Agent.anew.
type clockWatch struct {
	apart time.Duration // boot from mono
	ahead time.Duration // wall from boot
	known bool
}

// What counts: the clocks are not read at the same moment. One that is put back by
// less keeps WireGuard from a handshake for no longer than that.
const (
	sleptAtLeast = 2 * time.Second
	backAtLeast  = time.Second
)

// clocks are the machine's clocks at one moment; wall is the time of day, since 1970.
type clocks struct{ boot, mono, wall time.Duration }

// look takes the clocks as they stand, and returns for how long the machine slept
// since the last look, and by how much the time of day was put back; 0 if it was
// not.
func (s *clockWatch) look(c clocks) (slept, back time.Duration) {
	was, known := *s, s.known
	*s = clockWatch{apart: c.boot - c.mono, ahead: c.wall - c.boot, known: true}
	if !known {
		return 0, 0
	}
	if slept = s.apart - was.apart; slept < sleptAtLeast {
		slept = 0
	}
	if back = was.ahead - s.ahead; back < backAtLeast {
		back = 0
	}
	return slept, back
}

// readClocks reads them; where that cannot be done they say nothing.
func readClocks() clocks {
	var b, m, w unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &b) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &m) != nil || unix.ClockGettime(unix.CLOCK_REALTIME, &w) != nil {
		return clocks{}
	}
	return clocks{time.Duration(b.Nano()), time.Duration(m.Nano()), time.Duration(w.Nano())}
}
