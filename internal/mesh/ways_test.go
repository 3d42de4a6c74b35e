package mesh

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// TestWays: bianco, without IPv6, and ari, both behind NAT that maps per
// destination, as bianco sees it.
func TestWays(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	miki, cosmo, maco := wire.ID{1}, wire.ID{2}, wire.ID{3}
	names := map[wire.ID]fleet.NodeName{miki: "miki", cosmo: "cosmo", maco: "maco"}
	at := netip.MustParseAddrPort("192.0.2.1:20000")
	v := path.View{
		Route: path.Route{Hub: miki}, Spare: path.Route{Hub: cosmo},
		Routes: []path.RouteView{
			{Route: path.Route{Hub: maco}, LastEcho: now.Add(-900 * time.Millisecond), RTT: 51 * time.Millisecond},
			{Route: path.Route{Hub: cosmo}, LastEcho: now.Add(-400 * time.Millisecond), RTT: 51 * time.Millisecond},
			{Route: path.Route{Hub: miki}, LastEcho: now.Add(-100 * time.Millisecond), RTT: 48 * time.Millisecond},
			{Route: path.Route{Addr: at}, Misses: 2},
		},
		Punched: now.Add(-time.Minute),
		Own:     path.Family{Known: true, V4: true, NAT: true, Varies: true},
		Its:     path.Family{Known: true, V4: true, V6: true, NAT: true, Varies: true},
	}
	tried := now.Add(-time.Minute).Unix()
	want := []fleet.Way{
		{Path: fleet.PathDirectV6, State: fleet.WayNone, Why: "bianco has none", Tried: tried},
		{Path: fleet.PathDirectV4, State: fleet.WayUntold, Endpoint: at, Why: "both are behind NAT that maps per destination", Tried: tried},
		{Path: fleet.PathRelayed, Via: "miki", State: fleet.WayUsed, RTTMicro: 48_000, HeardMs: 100},
		{Path: fleet.PathRelayed, Via: "cosmo", State: fleet.WaySpare, RTTMicro: 51_000, HeardMs: 400},
		{Path: fleet.PathRelayed, Via: "maco", State: fleet.WayProven, RTTMicro: 51_000, HeardMs: 900},
	}
	got := waysOf(now, v, "bianco", "ari", func(id wire.ID) fleet.NodeName { return names[id] })
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhyNot(t *testing.T) {
	open := path.Family{Known: true, V4: true, V6: true}
	nat := path.Family{Known: true, V4: true, NAT: true}
	for _, tt := range []struct {
		kind     fleet.PathKind
		own, its path.Family
		want     string
	}{
		{fleet.PathDirectV6, nat, open, "a has none"},
		{fleet.PathDirectV6, open, nat, "b has none"},
		{fleet.PathDirectV6, open, open, "a firewall may be in between"},
		{fleet.PathDirectV4, open, path.Family{}, "b has not said where it may be reached"},
		{fleet.PathDirectV4, nat, nat, "both are behind NAT"},
		{fleet.PathDirectV4, nat, open, "a is behind NAT"},
		{fleet.PathDirectV4, open, nat, "b is behind NAT"},
		{fleet.PathDirectV4, open, open, ""},
	} {
		if got := whyNot(tt.kind, path.View{Own: tt.own, Its: tt.its}, "a", "b"); got != tt.want {
			t.Errorf("%s, %+v to %+v: %q, want %q", tt.kind, tt.own, tt.its, got, tt.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	var b bytes.Buffer
	writeMetrics(&b, fleet.MeshStatus{Peers: []fleet.PeerStatus{
		{Name: "ari", Path: fleet.PathRelayed, Via: "miki", RTTMicro: 48_000, HeardMs: 400, RxBytes: 7},
		{Name: "cosmo", Path: fleet.PathDirectV6, RTTMicro: 900, HeardMs: 3_600_000, RelayedFrom: 12},
	}})
	for _, line := range []string{
		`moggy_peer_path{peer="ari",path="relayed",via="miki"} 1`,
		`moggy_peer_rtt_seconds{peer="ari"} 0.048`,
		`moggy_peer_received_bytes_total{peer="ari"} 7`,
		`moggy_relayed_from_bytes_total{peer="cosmo"} 12`,
		`# TYPE moggy_peer_loss_ratio gauge`,
	} {
		if !strings.Contains(b.String(), line+"\n") {
			t.Errorf("no line %s in\n%s", line, &b)
		}
	}
	if strings.Contains(b.String(), `moggy_peer_rtt_seconds{peer="cosmo"}`) {
		t.Error("a round trip of an hour ago is given as the present")
	}
}

// TestMetricsForMembers: a stranger gets no answer at all.
func TestMetricsForMembers(t *testing.T) {
	conf := fleet.AgentConfig{V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd77::/48")}
	h := membersOnly(conf, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	ask := func(from string) (answered bool) {
		defer func() { answered = recover() == nil }()
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.RemoteAddr = from
		h.ServeHTTP(httptest.NewRecorder(), r)
		return true
	}
	for from, want := range map[string]bool{
		"10.77.0.3:4000": true, "[fd77::3]:4000": true, "[::ffff:10.77.0.3]:4000": true,
		"192.168.1.5:4000": false, "[2001:db8::1]:4000": false, "nonsense": false,
	} {
		if got := ask(from); got != want {
			t.Errorf("%s: answered %v, want %v", from, got, want)
		}
	}
}
