package probe

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/ingress/table"
)

func TestAsk(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/nowhere", http.StatusFound)
		case "/ill":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/":
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer web.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	at := func(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }
	for _, c := range []struct {
		name string
		kind fleet.HealthKind
		at   netip.AddrPort
		path string
		want table.Outcome
		why  string
	}{
		{"well", fleet.HealthHTTP, at(web.Listener.Addr()), "/", table.Answered, ""},
		{"moved is well", fleet.HealthHTTP, at(web.Listener.Addr()), "/moved", table.Answered, ""},
		{"ill", fleet.HealthHTTP, at(web.Listener.Addr()), "/ill", table.Failed, "answers 503"},
		{"no such page", fleet.HealthHTTP, at(web.Listener.Addr()), "/x", table.Failed, "answers 404"},
		{"silent", fleet.HealthHTTP, at(silent.Addr()), "/", table.Failed, "no answer"},
		{"takes connections", fleet.HealthTCP, at(silent.Addr()), "", table.Answered, ""},
		{"gone", fleet.HealthHTTP, at(gone.Addr()), "/", table.Refused, "connection refused"},
		{"gone", fleet.HealthTCP, at(gone.Addr()), "", table.Refused, "connection refused"},
	} {
		got, why := New().Ask(t.Context(), c.kind, c.at, c.path)
		if got != c.want || why != c.why {
			t.Errorf("%s (%s): %d %q, want %d %q", c.name, c.kind, got, why, c.want, c.why)
		}
	}
}
