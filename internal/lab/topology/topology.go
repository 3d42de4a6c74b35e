// Package topology draws a fleet as a network of namespaces: sites with their
// routers and NATs, carriers, an internet between them, and the rules that cut
// or thin a path. It decides names, addresses, routes and nftables rules; it
// makes none of them.
package topology

import (
	"net/netip"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// The spaces that every lab has, whatever its fleet.
const (
	Internet = "internet" // routes between everybody's public addresses
	Operator = "operator" // where the owner's commands run
	Mirror   = "mirror"   // where everything stands that the internet serves
)

// Server is something that the internet serves to everybody.
type Server string

// The servers of the lab's internet.
const (
	Packages Server = "packages" // the distribution's mirror
	DNS      Server = "dns"      // the resolver that everybody is told of
	Registry Server = "registry" // of container images, under all their names
	ACME     Server = "acme"     // the certificate authority
)

// Servers are all of them, in the order that they are shown in.
func Servers() []Server { return []Server{Packages, DNS, Registry, ACME} }

// wishes are its addresses, where nobody else has those.
func (s Server) wishes() (v4, v6 string) {
	switch s {
	case Packages:
	case DNS:
		return "192.0.2.53", "2001:db8::53"
	case Registry:
		return "192.0.2.81", "2001:db8::81"
	case ACME:
		return "192.0.2.82", "2001:db8::82"
	}
	return "192.0.2.80", "2001:db8::80"
}

// Network is the whole of a lab's network. The same fleet gives the same
// Network.
//
//	node-a  node-b      node-c  node-d           operator   mirror
//	   |eth0   |eth0       |eth0   |eth0             |eth0     |eth0
//	  lan (bridge)        lan (bridge)               |         |
//	site-berlin         site-london                  |         |
//	   |wan                |wan 100.64.x.2           |         |
//	   |                carrier-london               |         |
//	   |s-berlin           |wan, s-london            |         |
//	   +---------------- internet -------------------+---------+
type Network struct {
	Spaces   []Space
	Links    []Link
	Machines []Machine

	Operator Host
	Servers  map[Server]Host // all of them in one space, each with its own addresses

	sites []site
}

// Space is one network namespace, by its name inside the lab.
type Space struct {
	Name   string
	Bridge string    // a bridge to make in it, or ""
	Sysctl []Setting // applied once its devices are there
	Addrs  []Addr
	Routes []Route
}

// Setting is a sysctl below /proc/sys/net.
type Setting struct{ Key, Value string }

// Addr is an address on a device.
type Addr struct {
	Dev    string
	Prefix netip.Prefix
}

// Route leads to Dst over Dev: through Via, which is taken to be on the link
// whatever the addresses say, or directly where Via is the zero Addr.
type Route struct {
	Dst      netip.Prefix
	Via, Src netip.Addr
	Dev      string
}

// Link is a pair of virtual Ethernet devices, MTU 1500.
type Link struct{ A, B End }

// End is one device of a Link: its namespace, its name there and the bridge it
// is a port of, if any.
type End struct{ Space, Dev, Bridge string }

// Host is what is reached at the end of a line.
type Host struct {
	Space  string
	V4, V6 netip.Addr // its own addresses, the zero Addr where it has none
}

// Machine is a node's place in the network.
type Machine struct {
	Host
	Node fleet.NodeName
	Site fleet.SiteName
	// Outer are the addresses others see it come from, and Shared whether
	// that IPv4 is also another's.
	Outer  []netip.Addr
	Shared bool

	port string // its router's device towards it
}

// Machine returns the node's place.
func (n *Network) Machine(name fleet.NodeName) (Machine, bool) {
	for _, m := range n.Machines {
		if m.Node == name {
			return m, true
		}
	}
	return Machine{}, false
}

// Server finds a server of the internet by its name, where no node or site has
// that name.
func (n *Network) Server(name string) (Server, bool) {
	if _, err := n.Party(name); err == nil {
		return "", false
	}
	_, ok := n.Servers[Server(name)]
	return Server(name), ok
}

// Desk is the space of a machine of the operator's that stands in the site.
func Desk(s fleet.SiteName) string { return "desk-" + string(s) }

// Router is the space of the site's router.
func Router(s fleet.SiteName) string { return "site-" + string(s) }

func nodeSpace(n fleet.NodeName) string    { return "node-" + string(n) }
func carrierSpace(s fleet.SiteName) string { return "carrier-" + string(s) }

// Only returns the part of the network that must be made anew when the given
// space was lost: the space and its links.
func (n *Network) Only(space string) *Network {
	part := &Network{sites: n.sites}
	for _, s := range n.Spaces {
		if s.Name == space {
			part.Spaces = append(part.Spaces, s)
		}
	}
	for _, l := range n.Links {
		if l.A.Space == space || l.B.Space == space {
			part.Links = append(part.Links, l)
		}
	}
	return part
}

// Routers are the spaces that have rules, see [Network.Rules].
func (n *Network) Routers() []string {
	routers := []string{Internet}
	for _, s := range n.sites {
		routers = append(routers, Router(s.Name))
		if s.carrier() {
			routers = append(routers, carrierSpace(s.Name))
		}
	}
	return routers
}
