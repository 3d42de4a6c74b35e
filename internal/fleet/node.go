package fleet

import "net/netip"

// NodeName is a node's name, a DNS label, unique in the fleet.
type NodeName string

// Node is one machine.
type Node struct {
	Name   NodeName
	Site   SiteName
	Public []netip.Addr // addresses the whole internet reaches
	OS     string       // "linux" (any with systemd), or the distribution it must be
	SSH    SSH
	// Overrides of what is derived; nil where the file is silent.
	Hub, Server, Ingress *bool
}

// SSH is how the operator's ssh addresses a node from outside the mesh.
type SSH struct {
	User string // "root" where the file is silent
	Host string // "" where the first public address is meant
	Port uint16 // 22 where the file is silent
}

// PublicV4 returns the node's first public IPv4 address, if it has one.
func (n Node) PublicV4() (netip.Addr, bool) { return n.public(netip.Addr.Is4) }

// PublicV6 returns the node's first public IPv6 address, if it has one.
func (n Node) PublicV6() (netip.Addr, bool) { return n.public(netip.Addr.Is6) }

func (n Node) public(is func(netip.Addr) bool) (netip.Addr, bool) {
	for _, a := range n.Public {
		if is(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Reachable says whether an operator outside the mesh has an address to try.
func (n Node) Reachable() bool { return n.SSH.Host != "" || len(n.Public) > 0 }

// DialHost is the host the operator's ssh dials from outside the mesh, or ""
// where there is none.
func (n Node) DialHost() string {
	if n.SSH.Host != "" {
		return n.SSH.Host
	}
	if len(n.Public) > 0 {
		return n.Public[0].String()
	}
	return ""
}
