// Package fleet is the vocabulary every other room speaks: what a fleet is
// (Fleet, Site, Node), what was derived once and must stay (Lock), what a node
// shall hold (Desired) and what was seen on it (Observed). Plain types and the
// facts that follow from them; no reading, no writing, no network.
package fleet

import (
	"net/netip"
	"slices"
)

// Name is the fleet's name, a DNS label.
type Name string

// DefaultPort is the UDP port of the mesh where the file names none. It is not
// WireGuard's customary 51820, which an owner's older tunnel may hold.
const DefaultPort = 51877

// Fleet is what fleet.hcl says, with defaults filled in. Sites, Nodes, Allows,
// Services and Operators are in the order of the file.
type Fleet struct {
	Name   Name
	Domain string // public names live under it; "" if there is none
	// Mesh ranges. An invalid prefix means: the file leaves it to us, and the
	// lock holds what was chosen.
	Mesh      Ranges
	Port      uint16 // UDP port of the mesh, the same on every node
	Operators []Operator
	Sites     []Site
	Nodes     []Node
	Allows    []Allow
	Services  []Service
	Scheduler Scheduler
	Ingress   IngressEngine
	ACME      ACME
}

// Scheduler is what runs the services' instances.
type Scheduler string

// The schedulers.
const (
	Systemd Scheduler = "systemd" // each node what Places says
	Nomad   Scheduler = "nomad"   // wherever it fits, anew when a node dies
)

// IngressEngine is what answers HTTPS on the ingress nodes.
type IngressEngine string

// The ingress engines.
const (
	Caddy   IngressEngine = "caddy" // in our own binary
	Traefik IngressEngine = "traefik"
)

// ACME is where certificates for public names come from.
type ACME struct {
	Directory string // URL; "": Let's Encrypt's
	Email     string // who is told of trouble; "": nobody
}

// Ranges are the mesh's own addresses: a private IPv4 range and a ULA /48.
type Ranges struct {
	V4, V6 netip.Prefix
}

// Operator is a person who may change the fleet.
type Operator struct {
	Name string
	Key  string // one line in the format of authorized_keys
}

// Site returns the site of that name.
func (f *Fleet) Site(name SiteName) (Site, bool) {
	i := slices.IndexFunc(f.Sites, func(s Site) bool { return s.Name == name })
	if i < 0 {
		return Site{}, false
	}
	return f.Sites[i], true
}

// Node returns the node of that name.
func (f *Fleet) Node(name NodeName) (Node, bool) {
	i := slices.IndexFunc(f.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return f.Nodes[i], true
}
