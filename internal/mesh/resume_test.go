package mesh

import (
	"testing"
	"time"
)

func TestClockWatch(t *testing.T) {
	const day = 24 * time.Hour
	var s clockWatch
	for i, step := range []struct {
		boot, mono, wall time.Duration
		slept, back      time.Duration
	}{
		{100 * time.Hour, 40 * time.Hour, 365 * day, 0, 0}, // it slept before we started
		{100*time.Hour + time.Second, 40*time.Hour + time.Second, 365*day + time.Second, 0, 0},
		{100*time.Hour + 3*time.Second, 40*time.Hour + 2*time.Second, 365*day + 3*time.Second, 0, 0}, // late by a second
		{101*time.Hour + 3*time.Second, 40*time.Hour + 3*time.Second, 365*day + time.Hour + 3*time.Second, time.Hour - time.Second, 0},
		{101*time.Hour + 4*time.Second, 40*time.Hour + 4*time.Second, 365*day + time.Hour + 4*time.Second, 0, 0},
		{101*time.Hour + 5*time.Second, 40*time.Hour + 5*time.Second, 9000 * day, 0, 0},                                           // told what time it is
		{101*time.Hour + 6*time.Second, 40*time.Hour + 6*time.Second, 9000*day + time.Second/2, 0, 0},                             // slewed
		{101*time.Hour + 7*time.Second, 40*time.Hour + 7*time.Second, 8999*day + 3*time.Second/2, 0, day},                         // put back
		{111*time.Hour + 8*time.Second, 40*time.Hour + 8*time.Second, 8999*day + 5*time.Second/2, 10 * time.Hour, 10 * time.Hour}, // stood still while it slept
		{111*time.Hour + 9*time.Second, 40*time.Hour + 9*time.Second, 8999*day + 7*time.Second/2, 0, 0},
	} {
		slept, back := s.look(clocks{step.boot, step.mono, step.wall})
		if slept != step.slept || back != step.back {
			t.Errorf("step %d: slept %v, back %v, want %v, %v", i, slept, back, step.slept, step.back)
		}
	}
	c := readClocks()
	if c.mono <= 0 || c.boot < c.mono-time.Second || c.wall < 50*365*day {
		t.Errorf("the clocks say %v since boot, %v of these awake, %v since 1970", c.boot, c.mono, c.wall)
	}
}
