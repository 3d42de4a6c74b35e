package config

import (
	"github.com/moggyfleet/moggy/internal/fleet"
)

func siteKind() kind {
	return kind{
		name:       "site",
		attributes: []string{"kind", "nat", "ipv6"},
		aliases:    map[string]string{"type": "kind", "ip6": "ipv6", "v6": "ipv6", "cgnat": "nat"},
		decode:     (*decoder).site,
	}
}

// site decodes a site. A rented rack has public addresses, a home has a router.
func (d *decoder) site(b *block) {
	f := d.fields(b, siteKind())
	s := fleet.Site{Name: fleet.SiteName(b.name), Kind: fleet.Datacenter, NAT: fleet.NoNAT, IPv6: true}
	kind, ok := f.choice("kind", []string{string(fleet.Datacenter), string(fleet.Home)}, map[string]string{
		"dc": "datacenter", "rack": "datacenter", "cloud": "datacenter", "colo": "datacenter",
		"house": "home", "flat": "home", "residential": "home", "office": "home",
	})
	switch {
	case ok:
		s.Kind = fleet.SiteKind(kind)
	case f.missing("kind"):
		f.wrong(b.at, `kind = "datacenter" or kind = "home"`, "kind is missing")
		fallthrough
	default:
		d.doubt = doubt{hubs: true, servers: true}
	}
	if s.Kind == fleet.Home {
		s.NAT = fleet.RouterNAT
	}
	nat, ok := f.choice("nat", []string{string(fleet.NoNAT), string(fleet.RouterNAT), string(fleet.CarrierNAT)}, map[string]string{
		"carrier": "cgnat", "cgn": "cgnat", "carrier-nat": "cgnat", "carrier-grade": "cgnat", "ds-lite": "cgnat", "nat444": "cgnat",
		"router": "nat", "yes": "nat", "true": "nat", "home": "nat", "no": "none", "false": "none", "off": "none",
	})
	if ok {
		s.NAT = fleet.NAT(nat)
	} else if f.has("nat") {
		d.doubt.hubs = true
	}
	if v6 := f.flag("ipv6"); v6 != nil {
		s.IPv6 = *v6
	} else if f.has("ipv6") {
		d.doubt.hubs = true
	}
	if d.names["site"][b.name] != b {
		return
	}
	d.fleet.Sites = append(d.fleet.Sites, s)
	d.sites[s.Name] = s
}
