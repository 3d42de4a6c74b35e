package health

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func TestServices(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sick":
			w.WriteHeader(http.StatusInternalServerError)
		case "/moved":
			http.Redirect(w, r, "/sick", http.StatusFound)
		}
	}))
	defer s.Close()
	address := s.Listener.Addr().String()
	checks := []fleet.Check{
		{Unit: "well", Kind: fleet.CheckHTTP, Address: s.URL + "/"},
		{Unit: "moved", Kind: fleet.CheckHTTP, Address: s.URL + "/moved"},
		{Unit: "open", Kind: fleet.CheckTCP, Address: address},
		{Unit: "sick", Kind: fleet.CheckHTTP, Address: s.URL + "/sick"},
		{Unit: "closed", Kind: fleet.CheckTCP, Address: "127.0.0.1:1"},
		{Unit: "away", Kind: fleet.CheckHTTP, Address: "http://127.0.0.1:1/"},
		{Unit: "", Kind: fleet.CheckTCP, Address: "127.0.0.1:1"},
	}
	got := Machine{}.Failing(t.Context(), checks)
	for unit, want := range map[string]string{"sick": "status 500", "closed": "refused", "away": "refused"} {
		if !strings.Contains(got[unit], want) {
			t.Errorf("%s: %q, want %q in it", unit, got[unit], want)
		}
		delete(got, unit)
	}
	if len(got) > 0 {
		t.Errorf("these should hold, or are no unit's: %v", got)
	}
}

// TestCrashes gives up a unit that keeps crashing, long before its time is over,
// and no other.
func TestCrashes(t *testing.T) {
	for _, tt := range []struct {
		unit string
		want time.Duration
	}{{"bad", 5 * time.Second}, {"slow", 30 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			m := Machine{
				Run: func(context.Context, []string, string, ...string) ([]byte, error) { return nil, errors.New("no") },
				Crashes: func(_ context.Context, unit string) bool {
					return unit == "bad" && time.Since(began) >= 5*time.Second
				},
			}
			err := m.Await(t.Context(), []fleet.Check{{Name: "x", Kind: fleet.CheckRun, Command: []string{"x"}, Unit: tt.unit, Seconds: 30}})
			if took := time.Since(began); err == nil || took != tt.want || strings.Contains(err.Error(), "keeps crashing") != (tt.unit == "bad") {
				t.Errorf("%s: after %s: %v; want %s", tt.unit, took, err, tt.want)
			}
		})
	}
}
