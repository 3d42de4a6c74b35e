package config

import (
	"net/netip"

	"github.com/hashicorp/hcl/v2"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func nodeKind() kind {
	return kind{
		name:       "node",
		attributes: []string{"site", "public", "os", "ssh", "hub", "server", "ingress"},
		aliases: map[string]string{
			"ip": "public", "ips": "public", "address": "public", "addresses": "public", "ipv4": "public", "ipv6": "public", "public_ip": "public",
			"location": "site", "datacenter": "site", "distribution": "os", "distro": "os", "system": "os",
			"user": "ssh", "host": "ssh", "relay": "hub", "control": "server", "controlplane": "server", "gateway": "ingress",
		},
		decode: (*decoder).node,
	}
}

// DefaultOS is any Linux with systemd.
const DefaultOS = "linux"

func systems() []string {
	return []string{DefaultOS, "debian", "ubuntu", "fedora", "arch", "opensuse"}
}

// nodePlaces are where a node's mistakes about the whole fleet are shown.
type nodePlaces struct {
	fields
	public []source.Item
}

func (d *decoder) node(b *block) {
	f := d.fields(b, nodeKind())
	n := fleet.Node{Name: fleet.NodeName(b.name), OS: DefaultOS, SSH: fleet.SSH{User: defaultUser, Port: defaultSSHPort}}
	site, ok := f.reference("site", "site")
	n.Site = fleet.SiteName(site)
	if !ok {
		d.doubt = doubt{hubs: true, servers: true}
		if f.missing("site") {
			f.wrong(b.at, "site = site.NAME", "site is missing")
		}
	}
	if os, ok := f.choice("os", systems(), map[string]string{
		"archlinux": "arch", "suse": "opensuse", "ubuntu-server": "ubuntu", "raspbian": "debian", "any": "linux",
	}); ok {
		n.OS = os
	}
	places := &nodePlaces{fields: f}
	for _, it := range f.texts("public", `public = ["198.51.100.11"]`) {
		if a, ok := f.publicAddress(it); ok {
			n.Public = append(n.Public, a)
			places.public = append(places.public, it)
		}
	}
	if f.has("public") && len(n.Public) == 0 {
		d.doubt = doubt{hubs: true, servers: true}
	}
	if it, ok := f.text("ssh"); ok {
		n.SSH = f.ssh(it, f.has("public"))
	}
	n.Hub, n.Server, n.Ingress = f.flag("hub"), f.flag("server"), f.flag("ingress")
	d.doubt.hubs = d.doubt.hubs || f.has("hub") && n.Hub == nil
	d.doubt.servers = d.doubt.servers || f.has("server") && n.Server == nil
	for i, a := range n.Public {
		f.publicAt(d.sites[n.Site], a, places.public[i].At)
		d.claim(b, a, places.public[i].At)
	}
	if d.names["node"][b.name] != b {
		return
	}
	d.fleet.Nodes = append(d.fleet.Nodes, n)
	d.places[n.Name] = places
}

// publicAt reports an address that the node's site cannot give it.
func (f fields) publicAt(s fleet.Site, a netip.Addr, at hcl.Range) {
	switch {
	case s.Name == "":
	case a.Is4() && s.NAT == fleet.CarrierNAT:
		f.wrong(at, `remove it, or say nat = "nat" or "none" at the site`,
			"the site %q is behind carrier NAT: no IPv4 address leads to a machine there", s.Name)
	case a.Is6() && !s.IPv6:
		f.wrong(at, "remove it, or remove ipv6 = false from the site", "the site %q has no IPv6", s.Name)
	}
}

// claim reports an address that another node has already.
func (d *decoder) claim(b *block, a netip.Addr, at hcl.Range) {
	first, taken := d.claims[a]
	switch {
	case !taken:
		d.claims[a] = claim{b, at}
	case first.block == b:
		d.Mistake(at, "remove it", "%s: %s is listed twice", b, a)
	default:
		d.Mistake(at, "", "%s: %s is the address of %s already (%s)", b, a, first.block, source.Place(first.at))
	}
}

// claim is who has an address, and where it says so.
type claim struct {
	block *block
	at    hcl.Range
}
