package lab_test

import (
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/lab"
	"github.com/moggyfleet/moggy/internal/lab/labtest"
)

// slowly delays a site and a node, and measures what is least of a few round
// trips: that is what the line is, however busy this box.
func slowly(t *testing.T, l *lab.Lab) {
	t.Helper()
	least := func(where string) time.Duration {
		t.Helper()
		out := labtest.Exec(t, l, "bianco", "ping", "-q", "-c", "4", "-i", "0.2", "-W", "10", where)
		_, rtt, ok := strings.Cut(out, "rtt min/avg/max/mdev = ") // iputils
		lowest, _, _ := strings.Cut(rtt, "/")
		d, err := time.ParseDuration(lowest + "ms")
		if !ok || err != nil || !strings.Contains(out, " 0% packet loss") {
			t.Fatalf("ping says:\n%s", out)
		}
		return d
	}
	const cosmo = "198.51.100.11"
	delay := func(who string, d time.Duration) {
		t.Helper()
		if err := l.Delay(t.Context(), who, d); err != nil {
			t.Fatal(err)
		}
	}
	before := least(cosmo)
	delay("home", 100*time.Millisecond)
	if got := least(cosmo); got < before+200*time.Millisecond {
		t.Errorf("with 100 ms each way: %v, without: %v", got, before)
	}
	delay("bianco", 200*time.Millisecond) // counts more than its site's
	if got := least(cosmo); got < before+400*time.Millisecond {
		t.Errorf("with 200 ms each way: %v, without: %v", got, before)
	}
	delay("bianco", 0)
	delay("cosmo", 50*time.Millisecond) // both ends: 100 and 50
	if got := least(cosmo); got < before+300*time.Millisecond {
		t.Errorf("with 100 and 50 ms each way: %v, without: %v", got, before)
	}
	delay("cosmo", 0)
	if err := l.Heal(t.Context(), "home", labtest.Progress{T: t}); err != nil {
		t.Fatal(err)
	}
	if got := least(cosmo); got >= before+200*time.Millisecond {
		t.Errorf("healed: %v, before: %v", got, before)
	}
	if err := l.Delay(t.Context(), "operator", time.Second); err == nil {
		t.Error("the operator's packets can be held where no router is")
	}
}
