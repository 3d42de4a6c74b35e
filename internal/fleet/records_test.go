package fleet_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func TestRecords(t *testing.T) {
	no := false
	addr := netip.MustParseAddr
	f := &fleet.Fleet{
		Nodes: []fleet.Node{
			{Name: "cosmo", Public: []netip.Addr{addr("198.51.100.11"), addr("2001:db8::11")}},
			{Name: "maco", Public: []netip.Addr{addr("198.51.100.12")}, Ingress: &no},
			{Name: "six", Public: []netip.Addr{addr("2001:db8::6")}},
			{Name: "miki", Public: []netip.Addr{addr("203.0.113.21")}},
			{Name: "ari"},
		},
		Services: []fleet.Service{
			{Name: "web", Expose: []fleet.Route{
				{Host: "www.cats.example", Path: "/", To: fleet.Public},
				{Host: "Cats.example", Path: "/", To: fleet.Public},
			}},
			{Name: "api", Expose: []fleet.Route{{Host: "cats.example", Path: "/api", To: fleet.Public}}},
			{Name: "tool", Expose: []fleet.Route{{Host: "tool.cats.example", Path: "/", To: fleet.Mesh}}},
		},
	}
	all := []netip.Addr{addr("198.51.100.11"), addr("2001:db8::11"), addr("203.0.113.21")}
	want := []fleet.Record{{Name: "cats.example", Addrs: all}, {Name: "www.cats.example", Addrs: all}}
	if diff := cmp.Diff(want, f.Records(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if got := want[0].Type(all[0]) + want[0].Type(all[1]); got != "AAAAA" {
		t.Errorf("types of an IPv4 and an IPv6 address: %s", got)
	}
}
