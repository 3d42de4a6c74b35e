package mesh

import (
	"testing"
	"time"
)

func TestSleepWatch(t *testing.T) {
	var s sleepWatch
	for _, step := range []struct{ boot, mono, want time.Duration }{
		{100 * time.Hour, 40 * time.Hour, 0}, // it slept before we started
		{100*time.Hour + time.Second, 40*time.Hour + time.Second, 0},
		{100*time.Hour + 3*time.Second, 40*time.Hour + 2*time.Second, 0}, // late by a second
		{101*time.Hour + 3*time.Second, 40*time.Hour + 3*time.Second, time.Hour - time.Second},
		{101*time.Hour + 4*time.Second, 40*time.Hour + 4*time.Second, 0},
	} {
		if got := s.look(step.boot, step.mono); got != step.want {
			t.Errorf("at %v, %v: slept %v, want %v", step.boot, step.mono, got, step.want)
		}
	}
	boot, mono := readClocks()
	if mono <= 0 || boot < mono-time.Second {
		t.Errorf("the clocks say %v since boot, %v of these awake", boot, mono)
	}
}
