package lab

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// TestZone has the names of a fleet's file lead where they do outside.
func TestZone(t *testing.T) {
	public := netip.MustParseAddr("198.51.100.11")
	f := &fleet.Fleet{
		Sites: []fleet.Site{{Name: "rack", Kind: fleet.Datacenter, NAT: fleet.NoNAT, IPv6: true}},
		Nodes: []fleet.Node{{Name: "cosmo", Site: "rack", Public: []netip.Addr{public}, SSH: fleet.SSH{Host: "cosmo.hoster.example"}}},
		Services: []fleet.Service{
			{
				Name: "web", Image: "registry.cats.example/web:1.0",
				Expose: []fleet.Route{{Host: "cats.example", Path: "/", To: fleet.Public}, {Host: "tool.cats.example", Path: "/", To: fleet.Mesh}},
			},
			{Name: "own", Image: "images.cats.example/x:1", Expose: []fleet.Route{{Host: "images.cats.example", Path: "/", To: fleet.Public}}},
		},
	}
	net, err := topology.Build(f)
	if err != nil {
		t.Fatal(err)
	}
	z := zoneOf(f, net)
	at := func(s topology.Server) []netip.Addr { return []netip.Addr{net.Servers[s].V4, net.Servers[s].V6} }
	for name, want := range map[string][]netip.Addr{
		"cats.example":                 {public},
		"cosmo.hoster.example":         {public},
		"tool.cats.example":            nil,
		"registry.cats.example":        at(topology.Registry),
		"images.cats.example":          {public}, // the fleet's own word counts most
		"registry-1.docker.io":         at(topology.Registry),
		"ghcr.io":                      at(topology.Registry),
		"acme-v02.api.letsencrypt.org": at(topology.ACME),
		"deb.lab":                      at(topology.Packages),
	} {
		if diff := cmp.Diff(want, z[name], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
