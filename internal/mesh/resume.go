package mesh

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleepWatch notices that the machine slept: while it does, CLOCK_MONOTONIC, which
// all our timers go by, stands still, and CLOCK_BOOTTIME goes on
// (clock_gettime(2)). Nothing else tells: addresses stay, NATs forget.
type sleepWatch struct {
	apart time.Duration // of the two clocks
	known bool
}

// sleptAtLeast is what counts: the clocks are not read at the same moment.
const sleptAtLeast = 2 * time.Second

// look takes the clocks as they stand, and returns for how long the machine slept
// since the last look; 0 if it did not.
func (s *sleepWatch) look(boot, mono time.Duration) time.Duration {
	was, known := s.apart, s.known
	s.apart, s.known = boot-mono, true
	if slept := s.apart - was; known && slept >= sleptAtLeast {
		return slept
	}
	return 0
}

// readClocks reads both; where that cannot be done they never differ.
func readClocks() (boot, mono time.Duration) {
	var b, m unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &b) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &m) != nil {
		return 0, 0
	}
	return time.Duration(b.Nano()), time.Duration(m.Nano())
}
