package mesh

import (
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/link"
	"github.com/moggyfleet/moggy/internal/mesh/path"
)

// bulkBytes, sent between two looks, are so much that full packets were probably
// among it: the path is to be tried with such.
const bulkBytes = 1200

// looked is what the last look at the traffic with a peer saw.
type looked struct {
	bytes uint64 // sent
	raw   path.Traffic
	told  path.Traffic
}

// tell is what the engine is told of counters as they stand now. The counters
// have the time of day, which may jump by years, both ways, when a machine without
// a clock of its own first hears what time it is; what the engine is told has
// not: it is reckoned back from now.
func (l *looked) tell(now time.Time, c link.Counters) path.Traffic {
	first := l.told == path.Traffic{} && l.raw == path.Traffic{}
	reckon := func(told *time.Time, raw, was time.Time) {
		if raw.Equal(was) {
			return
		}
		if age := now.Round(0).Sub(raw); age >= 0 { // else the clock was put back since: it was before
			*told = now.Add(-age)
		}
	}
	reckon(&l.told.Tx, c.Tx, l.raw.Tx)
	reckon(&l.told.Rx, c.Rx, l.raw.Rx)
	reckon(&l.told.OtherRx, c.OtherRx, l.raw.OtherRx)
	l.told.Other = c.Other
	if !first && c.TxBytes-l.bytes >= bulkBytes {
		l.told.Bulk = now
	}
	l.bytes, l.raw = c.TxBytes, c.Traffic
	return l.told
}
