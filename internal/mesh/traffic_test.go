package mesh

import (
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/link"
)

// TestTrafficOverClockSteps: the time of day jumps by a year, either way; what
// the engine is told does not.
func TestTrafficOverClockSteps(t *testing.T) {
	begin := time.Now()
	wall := begin.Round(0) // what the counters get
	var l looked
	at := func(after time.Duration, c link.Counters) time.Duration {
		return l.tell(begin.Add(after), c).Tx.Sub(begin)
	}
	var c link.Counters
	c.Tx = wall
	if got := at(40*time.Millisecond, c); got.Abs() > time.Millisecond {
		t.Errorf("sent at the beginning, told %v after it", got)
	}
	// Put back by a year, with nothing sent since; then something is.
	c.Tx = wall.Add(365 * 24 * time.Hour)
	if got := at(80*time.Millisecond, c); got.Abs() > time.Millisecond {
		t.Errorf("before the clock was put back, told %v after the beginning", got)
	}
	c.Tx = wall.Add(100 * time.Millisecond)
	if got := at(120*time.Millisecond, c); (got - 100*time.Millisecond).Abs() > time.Millisecond {
		t.Errorf("sent 100 ms after the beginning, told %v", got)
	}
	// The same packet at the next look is not another one.
	before := l.told
	if got := l.tell(begin.Add(160*time.Millisecond), c); got != before {
		t.Errorf("nothing happened, but told %+v after %+v", got, before)
	}
}

func TestTrafficInBulk(t *testing.T) {
	now := time.Now()
	var l looked
	c := link.Counters{TxBytes: 1 << 30}
	c.Tx = now.Round(0)
	if got := l.tell(now, c); !got.Bulk.IsZero() {
		t.Error("all that was ever sent is taken for bulk")
	}
	c.TxBytes += 100
	if got := l.tell(now, c); !got.Bulk.IsZero() {
		t.Error("a small packet is taken for bulk")
	}
	c.TxBytes += 2 * bulkBytes
	if got := l.tell(now, c); !got.Bulk.Equal(now) {
		t.Errorf("bulk at %v, want %v", got.Bulk, now)
	}
}
