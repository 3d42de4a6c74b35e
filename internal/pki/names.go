package pki

import (
	"net/netip"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// NomadRegion is the name of the one region a fleet is; Nomad's servers and
// clients have names in it.
const NomadRegion = "global"

// Names that Nomad's agents know each other by (its tls block,
// verify_server_hostname).
const (
	NomadServer = "server." + NomadRegion + ".nomad"
	NomadClient = "client." + NomadRegion + ".nomad"
)

// NodeDomain is a node's own name in certificates. What ends in "internal" is no
// public name (ICANN resolution 2024.07.29.06).
func NodeDomain(f fleet.Name, n fleet.NodeName) string { return string(n) + "." + FleetDomain(f) }

// FleetDomain is what all nodes' names are under.
func FleetDomain(f fleet.Name) string { return string(f) + ".internal" }

// Expected are the constraints of a node's authority: its own name and
// addresses; of a server in a fleet on Nomad, all names that Nomad's agents have
// and the addresses they are at, since servers sign for those who are none; of an
// ingress node, where some hosts are the mesh's alone, the fleet's domain (not
// those hosts: who trusts it in his browser shall not have to again with each).
//
// A node that is no server must not be able to sign for Nomad at all: Nomad takes
// a certificate's common name for its name (nomad/rpc.go), which no constraint
// binds. So no other authority is in Nomad's bundle.
func Expected(f *fleet.Fleet, l *fleet.Lock, name fleet.NodeName) Constraints {
	have, role := l.Node(name), f.Roles()[name]
	c := Constraints{Name: NodeDomain(f.Name, name), Domains: []string{NodeDomain(f.Name, name)}}
	for _, a := range []netip.Addr{have.V4, have.V6} {
		if a.IsValid() {
			c.Prefixes = append(c.Prefixes, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if f.Scheduler == fleet.Nomad && role.Server {
		c.Domains = append(c.Domains, FleetDomain(f.Name), NomadRegion+".nomad")
		c.Prefixes = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}
		for _, p := range []netip.Prefix{l.Mesh.V4, l.Mesh.V6} {
			if p.IsValid() {
				c.Prefixes = append(c.Prefixes, p.Masked())
			}
		}
	}
	if role.Ingress && f.Domain != "" && slices.ContainsFunc(f.Services, onMesh) {
		c.Domains = append(c.Domains, f.Domain)
	}
	return c
}

// Needed says whether anything of the fleet needs a node's authority.
func Needed(f *fleet.Fleet, name fleet.NodeName) bool {
	return f.Scheduler == fleet.Nomad || f.Domain != "" && f.Roles()[name].Ingress && slices.ContainsFunc(f.Services, onMesh)
}

func onMesh(s fleet.Service) bool {
	return slices.ContainsFunc(s.Expose, func(r fleet.Route) bool { return r.To == fleet.Mesh })
}
