package config

import (
	"fmt"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func fleetKind() kind {
	return kind{
		name:       "fleet",
		attributes: []string{"domain", "mesh", "port", "operators"},
		aliases: map[string]string{
			"network": "mesh", "range": "mesh", "ranges": "mesh", "subnet": "mesh", "cidr": "mesh",
			"operator": "operators", "users": "operators", "admins": "operators", "keys": "operators", "ssh_keys": "operators",
			"dns": "domain", "listen_port": "port",
		},
		decode: (*decoder).fleetBlock,
	}
}

func (d *decoder) fleetBlock(b *block) {
	f := d.fields(b, fleetKind())
	if d.home != nil {
		d.Mistake(b.at, "one file describes one fleet", "%s: the fleet is described at %s already, as %s", b, source.Place(d.home.at), d.home)
	}
	ranges := f.meshRanges()
	operators := f.operators()
	port, portOK := f.number("port", 1, 65535)
	domain, ok := f.text("domain")
	if ok {
		f.domain(domain)
	}
	if d.home != nil {
		return
	}
	d.home, d.ranges = b, ranges
	d.fleet.Name, d.fleet.Domain, d.fleet.Operators = fleet.Name(b.name), domain.Value, operators
	if portOK {
		d.fleet.Port = uint16(port)
	}
	for _, r := range ranges {
		if r.prefix.Addr().Is4() {
			d.fleet.Mesh.V4 = r.prefix
		} else {
			d.fleet.Mesh.V6 = r.prefix
		}
	}
}

func (f fields) domain(it source.Item) {
	why := wrongDomain(it.Value)
	if why == "" {
		return
	}
	suggestion := ""
	if better := betterDomain(it.Value); better != "" {
		suggestion = fmt.Sprintf("did you mean %q?", better)
	}
	f.wrong(it.At, suggestion, "domain %s: %s", source.Quoted(it.Value), why)
}
