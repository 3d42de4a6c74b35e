package deploy

import (
	"net/netip"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// catsFleet is the reference fleet: three hubs, three workers.
func catsFleet() *fleet.Fleet {
	root := fleet.SSH{User: "root"}
	public := func(v4 string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(v4)} }
	return &fleet.Fleet{
		Name: "cats", Port: fleet.DefaultPort,
		Sites: []fleet.Site{
			{Name: "dusseldorf", Kind: fleet.Datacenter, NAT: fleet.NoNAT, IPv6: true},
			{Name: "london", Kind: fleet.Home, NAT: fleet.CarrierNAT, IPv6: true},
		},
		Nodes: []fleet.Node{
			{Name: "cosmo", Site: "dusseldorf", Public: public("198.51.100.11"), SSH: root},
			{Name: "maco", Site: "dusseldorf", Public: public("198.51.100.12"), SSH: root},
			{Name: "miki", Site: "dusseldorf", Public: public("203.0.113.21"), SSH: root},
			{Name: "ari", Site: "london", SSH: root},
			{Name: "ziggy", Site: "london", SSH: root},
			{Name: "bianco", Site: "london", SSH: root},
		},
	}
}
