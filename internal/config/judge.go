package config

import (
	"fmt"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// judge looks at the fleet as a whole, where what it rests on is beyond doubt.
func (d *decoder) judge() {
	if d.home == nil || d.partial {
		return
	}
	if len(d.blocks["node"]) == 0 {
		if !d.home.broken {
			d.Mistake(d.home.at, `node "name" { site = site.NAME }`, "%s: there is no node", d.home)
		}
		return
	}
	d.judgeRoom()
	d.judgeServices()
	d.judgeRoutes()
	roles := d.fleet.Roles()
	for _, n := range d.fleet.Nodes {
		d.judgeOverrides(n)
	}
	if !d.doubt.hubs {
		d.judgeHubs(roles)
	}
	if !d.doubt.servers {
		d.judgeServers(roles)
	}
}

// judgeRoom reports a range with too few addresses.
func (d *decoder) judgeRoom() {
	for _, r := range d.ranges {
		if !r.prefix.Addr().Is4() {
			continue
		}
		room := 1<<(32-r.prefix.Bits()) - 2 // all but the network's own and the broadcast address
		if nodes := len(d.blocks["node"]); nodes > room {
			d.Mistake(r.at, fmt.Sprintf("as in %q", exampleV4), "%s: %s has room for %d nodes, and there are %d", d.home, r.prefix, room, nodes)
		}
	}
}

// judgeOverrides reports roles a node cannot have.
func (d *decoder) judgeOverrides(n fleet.Node) {
	p := d.places[n.Name]
	if len(n.Public) > 0 || p.has("public") {
		return
	}
	const advice = `give it one: public = ["ADDRESS"]`
	if n.Hub != nil && *n.Hub {
		p.wrong(p.at("hub"), advice, "a hub needs a public address")
		d.doubt.hubs = true
	}
	if n.Ingress != nil && *n.Ingress {
		p.wrong(p.at("ingress"), advice, "an ingress needs a public address")
	}
}

// judgeHubs reports nodes that nobody can bring together.
func (d *decoder) judgeHubs(roles map[fleet.NodeName]fleet.Roles) {
	if len(d.fleet.Nodes) < 2 {
		d.judgeAlone()
		d.judgeLines(roles)
		return
	}
	var hubs, hubs4, hubs6 int
	refused := ""
	for _, n := range d.fleet.Nodes {
		_, v4 := n.PublicV4()
		_, v6 := n.PublicV6()
		switch {
		case roles[n.Name].Hub:
			hubs++
			hubs4 += count(v4)
			hubs6 += count(v6)
		case v4 && refused == "":
			refused = string(n.Name)
		}
	}
	if hubs == 0 {
		d.noHub(fleet.NodeName(refused))
		return
	}
	for _, n := range d.fleet.Nodes {
		if roles[n.Name].Hub {
			continue
		}
		line := d.line(n)
		if line.v4 && hubs4 > 0 || line.v6 && hubs6 > 0 {
			continue
		}
		p := d.places[n.Name]
		switch {
		case !line.v4 && !line.v6:
			p.wrong(p.b.at, "give it a public address, or mend nat and ipv6 at the site", "it has no way to the internet: neither IPv4 nor IPv6 at site %q", n.Site)
		case line.v4:
			p.wrong(p.b.at, "give a hub a public IPv4 address", "it reaches no hub: it has only IPv4, and the hubs have only IPv6")
		default:
			p.wrong(p.b.at, "give a hub a public IPv6 address", "it reaches no hub: it has only IPv6, and the hubs have only IPv4")
		}
	}
	d.judgeLines(roles)
}

// judgeAlone reports a single machine that nobody can reach: there is no other
// through which it could join.
func (d *decoder) judgeAlone() {
	for _, n := range d.fleet.Nodes {
		if p := d.places[n.Name]; !n.Reachable() && !p.has("ssh") {
			p.wrong(p.b.at, `ssh = "HOST" says how you reach it`, "nobody can reach it: it has no public address, and there is no other node to join by")
		}
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// line says over which families a node can call out.
type line struct{ v4, v6 bool }

func (d *decoder) line(n fleet.Node) line {
	s := d.sites[n.Site]
	_, v4 := n.PublicV4()
	_, v6 := n.PublicV6()
	return line{v4: v4 || s.NAT != fleet.NoNAT, v6: v6 || s.IPv6}
}

// judgeLines warns of nodes that seem to have been given too little.
func (d *decoder) judgeLines(roles map[fleet.NodeName]fleet.Roles) {
	for _, n := range d.fleet.Nodes {
		s, p := d.sites[n.Site], d.places[n.Name]
		if s.NAT == fleet.NoNAT && len(n.Public) == 0 && s.IPv6 && !roles[n.Name].Hub {
			d.Warn(p.b.at, `public = ["ADDRESS"] here, or nat = "nat" at the site`,
				"%s: without NAT at site %q and without a public address it has no IPv4", p.b, s.Name)
		}
	}
}

func (d *decoder) noHub(refused fleet.NodeName) {
	const why = "nodes could not reach each other: no node is a hub"
	if p := d.places[refused]; p != nil {
		p.wrong(p.at("hub"), "remove this line", why)
		return
	}
	d.Mistake(d.home.at, `give one node a public address: public = ["ADDRESS"]`, "%s: %s", d.home, why)
}

// judgeServers reports a control plane whose votes can be split.
func (d *decoder) judgeServers(roles map[fleet.NodeName]fleet.Roles) {
	servers := 0
	var named, refused *nodePlaces
	for _, n := range d.fleet.Nodes {
		servers += count(roles[n.Name].Server)
		switch {
		case n.Server == nil:
		case *n.Server:
			named = d.places[n.Name]
		default:
			refused = d.places[n.Name]
		}
	}
	switch {
	case servers == 0 && refused != nil:
		refused.wrong(refused.at("server"), "remove this line", "no node is left to be a server")
	case servers%2 == 0 && named != nil:
		named.wrong(named.at("server"), fmt.Sprintf("name one server more, or remove this line: %d survive as many failures", servers-1),
			"with this there are %d servers, and an even number can split its votes", servers)
	}
}
