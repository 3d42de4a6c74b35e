package sim

import (
	"net/netip"
	"slices"
	"time"
)

// device is what has an address in a network: a machine, or a router.
type device interface {
	receive(p Packet)
}

// Network is a broadcast domain: whoever has an address in it reaches all
// others in it, and the rest of the world through its gateway.
type Network struct {
	w       *World
	delay   time.Duration // one way, from a device to any other or to the gateway
	devices map[netip.Addr]device
	routed  map[netip.Prefix]device // prefixes behind a router
	lengths []int                   // of these prefixes, in bits, each once
	gateway *Router
}

// Network adds an unconnected network. Delay is one way.
func (w *World) Network(delay time.Duration) *Network {
	return &Network{w: w, delay: delay, devices: make(map[netip.Addr]device), routed: make(map[netip.Prefix]device)}
}

// route makes prefix lie behind d; behind nothing if d is nil.
func (n *Network) route(prefix netip.Prefix, d device) {
	if d == nil {
		delete(n.routed, prefix)
		return
	}
	n.routed[prefix] = d
	if !slices.Contains(n.lengths, prefix.Bits()) {
		n.lengths = append(n.lengths, prefix.Bits())
	}
}

// behind is the router before a, nil if there is none.
func (n *Network) behind(a netip.Addr) device {
	for _, bits := range n.lengths {
		if prefix, err := a.Prefix(bits); err == nil { // else a is IPv4
			if d := n.routed[prefix]; d != nil {
				return d
			}
		}
	}
	return nil
}

// carry takes a packet that a device of the network sent.
func (n *Network) carry(p Packet) {
	to := n.devices[p.Dst.Addr()]
	if to == nil {
		to = n.behind(p.Dst.Addr())
	}
	if to == nil && n.gateway != nil {
		n.w.After(n.delay, func() { n.gateway.outbound(p) })
		return
	}
	if to == nil || n.w.Drop != nil && n.w.Drop(p) {
		return
	}
	n.w.After(n.delay, func() { to.receive(p) })
}

// Dependence is what a NAT's mapping or filtering depends on (RFC 4787,
// sections 4.1 and 5).
type Dependence int

// The kinds of dependence.
const (
	Endpoint       Dependence = iota // on nothing: endpoint-independent
	Address                          // on the other side's address
	AddressAndPort                   // on its address and port
)

// NAT is the kind of a router's IPv4 translation.
type NAT struct {
	Mapping, Filtering Dependence
	Hairpin            bool
	Timeout            time.Duration // of a mapping without traffic; 0: two minutes
}

// Router joins a network to an outer one. IPv4 is translated; IPv6 is routed,
// and only answers are let in.
type Router struct {
	w            *World
	inner, outer *Network
	v4           netip.Addr // its outer address; invalid: no IPv4
	nat          NAT

	mappings []*mapping
	nextPort uint16
	flows    map[[2]netip.AddrPort]time.Time // IPv6, inside and outside end
}

type mapping struct {
	inside netip.AddrPort
	to     netip.AddrPort // what it depends on; zero fields: on nothing
	port   uint16         // outside
	peers  map[netip.AddrPort]bool
	used   time.Time
}

// Router puts a network behind a NAT with the outer address v4, and routes the
// prefix v6 to it if that is valid.
func (w *World) Router(inner, outer *Network, v4 netip.Addr, nat NAT, v6 netip.Prefix) *Router {
	if nat.Timeout == 0 {
		nat.Timeout = 2 * time.Minute
	}
	r := &Router{
		w: w, inner: inner, outer: outer, v4: v4, nat: nat, nextPort: 20000,
		flows: make(map[[2]netip.AddrPort]time.Time),
	}
	inner.gateway = r
	if v4.IsValid() {
		outer.devices[v4] = r
	}
	if v6.IsValid() {
		outer.route(v6, r)
	}
	return r
}

// Reboot forgets every mapping and flow.
func (r *Router) Reboot() {
	r.mappings = nil
	r.nextPort += 1000
	clear(r.flows)
}

func (r *Router) outbound(p Packet) {
	if p.Dst.Addr().Is6() {
		r.flows[[2]netip.AddrPort{p.Src, p.Dst}] = r.w.now
		r.outer.carry(p)
		return
	}
	if !r.v4.IsValid() {
		return
	}
	m := r.mappingFor(p)
	m.used, m.peers[p.Dst] = r.w.now, true
	p.Src = netip.AddrPortFrom(r.v4, m.port)
	if p.Dst.Addr() == r.v4 {
		if r.nat.Hairpin {
			r.receive(p)
		}
		return
	}
	r.outer.carry(p)
}

func (r *Router) mappingFor(p Packet) *mapping {
	var to netip.AddrPort
	switch r.nat.Mapping {
	case Endpoint:
	case Address:
		to = netip.AddrPortFrom(p.Dst.Addr(), 0)
	case AddressAndPort:
		to = p.Dst
	}
	for _, m := range r.mappings {
		// An answer to what was let in leaves by the mapping that it came by.
		if m.inside == p.Src && (m.to == to || m.peers[p.Dst]) && r.w.now.Sub(m.used) < r.nat.Timeout {
			return m
		}
	}
	r.nextPort++
	m := &mapping{inside: p.Src, to: to, port: r.nextPort, peers: make(map[netip.AddrPort]bool)}
	r.mappings = append(r.mappings, m)
	return m
}

// receive takes a packet from outside.
func (r *Router) receive(p Packet) {
	if p.Dst.Addr().Is6() {
		if at, ok := r.flows[[2]netip.AddrPort{p.Dst, p.Src}]; ok && r.w.now.Sub(at) < r.nat.Timeout {
			r.inner.carry(p)
		}
		return
	}
	for _, m := range r.mappings {
		if m.port != p.Dst.Port() || r.w.now.Sub(m.used) >= r.nat.Timeout || !r.lets(m, p.Src) {
			continue
		}
		m.used, m.peers[p.Src] = r.w.now, true
		p.Dst = m.inside
		r.inner.carry(p)
		return
	}
}

func (r *Router) lets(m *mapping, from netip.AddrPort) bool {
	switch r.nat.Filtering {
	case Endpoint:
		return true
	case Address:
		for p := range m.peers {
			if p.Addr() == from.Addr() {
				return true
			}
		}
		return false
	default:
		return m.peers[from]
	}
}
