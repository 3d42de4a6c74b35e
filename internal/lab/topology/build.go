package topology

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// site is a fleet.Site with what the lab gives it.
type site struct {
	fleet.Site
	wan      netip.Addr   // its public IPv4 address, at the router or the carrier
	inner    netip.Addr   // what its router has instead, behind a carrier
	lan      netip.Prefix // what the router gives out, where it translates
	prefix   netip.Prefix // IPv6, where it has any
	machines []Machine
	held     []netip.Addr // public addresses that its machines hold themselves
	forward  []forward    // public addresses that its router passes on
}

// forward is a public address of the router's that belongs to one machine, or
// with a port that TCP port of one.
type forward struct {
	public, inner netip.Addr
	port          uint16
}

func (s site) translates() bool { return s.NAT != fleet.NoNAT }
func (s site) carrier() bool    { return s.NAT == fleet.CarrierNAT }

// The numbers of machines in their LAN.
const (
	routerNumber    = 1
	deskNumber      = 10
	firstNodeNumber = 11
	maxPerSite      = 240
)

// builder gathers a network.
type builder struct {
	net      *Network
	book     *book
	mesh     netip.Prefix
	upstream netip.Addr // the internet's own address, everybody's way out
	internet Space
}

// Build draws the fleet's network. It fails on what cannot be wired: a node of
// no site, more machines than a LAN has numbers for, more sites than there are
// addresses.
func Build(f *fleet.Fleet) (*Network, error) {
	b := &builder{net: &Network{}, book: newBook(f), mesh: f.Mesh.V4}
	b.internet = Space{Name: Internet, Sysctl: routing()}
	b.upstream = b.book.wish("192.0.2.1")
	b.net.Operator = Host{Space: Operator, V4: b.book.wish("192.0.2.10"), V6: b.book.wish("2001:db8::10")}
	b.line(b.net.Operator)
	b.net.Servers = map[Server]Host{}
	var servers []Host
	for _, s := range Servers() {
		v4, v6 := s.wishes()
		h := Host{Space: Mirror, V4: b.book.wish(v4), V6: b.book.wish(v6)}
		b.net.Servers[s] = h
		servers = append(servers, h)
	}
	b.line(servers...)
	for i, s := range f.Sites {
		if err := b.site(f, i, s); err != nil {
			return nil, fmt.Errorf("site %s: %w", s.Name, err)
		}
	}
	for _, n := range f.Nodes {
		if _, ok := f.Site(n.Site); !ok {
			return nil, fmt.Errorf("node %s: no site %q", n.Name, n.Site)
		}
	}
	b.net.Spaces = append([]Space{b.internet}, b.net.Spaces...)
	b.net.order(f)
	b.net.markShared()
	return b.net, nil
}

// order puts the machines in the order of the file.
func (n *Network) order(f *fleet.Fleet) {
	for _, node := range f.Nodes {
		for _, s := range n.sites {
			for _, m := range s.machines {
				if m.Node == node.Name {
					n.Machines = append(n.Machines, m)
				}
			}
		}
	}
}

// markShared finds the machines that cannot be told from others by address.
func (n *Network) markShared() {
	users := map[netip.Addr]int{}
	for _, m := range n.Machines {
		for _, a := range m.Outer {
			users[a]++
		}
	}
	shared := func(m *Machine) {
		for _, a := range m.Outer {
			m.Shared = m.Shared || users[a] > 1
		}
	}
	for i := range n.Machines {
		shared(&n.Machines[i])
	}
	for _, s := range n.sites {
		for i := range s.machines {
			shared(&s.machines[i])
		}
	}
}

// routing is what a router's kernel is told. The rest of IPv4's settings is
// inherited from the host, whoever set them there.
func routing() []Setting {
	return []Setting{
		{"ipv4/ip_forward", "1"},
		{"ipv6/conf/all/forwarding", "1"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
	}
}

// line hangs a space directly on the internet, as a rented server is. The hosts
// are all the same machine by different addresses.
func (b *builder) line(hosts ...Host) {
	s := Space{Name: hosts[0].Space}
	up := device("s-", s.Name)
	b.link(End{Space: Internet, Dev: up}, End{Space: s.Name, Dev: "eth0"})
	b.internetSide(up)
	var addrs []netip.Addr
	for _, h := range hosts {
		b.internet.Routes = append(b.internet.Routes,
			Route{Dst: single(h.V4), Dev: up}, Route{Dst: single(h.V6), Dev: up})
		addrs = append(addrs, h.V4, h.V6)
	}
	s.routed(b.upstream, addrs...)
	b.net.Spaces = append(b.net.Spaces, s)
}

// internetSide gives the internet's end of a line its addresses.
func (b *builder) internetSide(dev string) {
	b.internet.Addrs = append(b.internet.Addrs,
		Addr{dev, single(b.upstream)}, Addr{dev, netip.PrefixFrom(gateway6, 64)})
	b.internet.Sysctl = append(b.internet.Sysctl, quiet(dev)...)
}

// quiet stops a device from doing on its own what the lab does for it.
func quiet(dev string) []Setting {
	return []Setting{
		{"ipv4/conf/" + dev + "/rp_filter", "0"},
		{"ipv4/conf/" + dev + "/send_redirects", "0"},
		{"ipv6/conf/" + dev + "/accept_ra", "0"},
	}
}

// routed gives eth0 addresses of its own and the way out over its router,
// whose IPv4 address there is gateway.
func (s *Space) routed(gateway netip.Addr, addrs ...netip.Addr) {
	var src4, src6 netip.Addr
	for _, a := range addrs {
		s.Addrs = append(s.Addrs, Addr{"eth0", single(a)})
		if a.Is4() && !src4.IsValid() {
			src4 = a
		}
		if a.Is6() && !src6.IsValid() {
			src6 = a
		}
	}
	if src4.IsValid() {
		s.Routes = append(s.Routes, Route{Dst: any4, Via: gateway, Src: src4, Dev: "eth0"})
	}
	if src6.IsValid() {
		s.Routes = append(s.Routes, Route{Dst: any6, Via: gateway6, Src: src6, Dev: "eth0"})
	}
}

func (b *builder) link(x, y End) { b.net.Links = append(b.net.Links, Link{x, y}) }

// site wires one site: its machines and a desk on a bridge, the router, and
// the carrier where there is one.
func (b *builder) site(f *fleet.Fleet, index int, fs fleet.Site) error {
	s := site{Site: fs}
	var err error
	if s.wan, err = b.siteAddress(f, s); err != nil {
		return err
	}
	if s.translates() {
		s.lan = homeNet(b.mesh)
	}
	if s.carrier() {
		s.inner = host(netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 16), index<<8+2)
	}
	if s.IPv6 {
		s.prefix = b.book.prefix()
	}
	number := firstNodeNumber
	for _, n := range f.Nodes {
		if n.Site != s.Name {
			continue
		}
		if number-firstNodeNumber >= maxPerSite {
			return fmt.Errorf("more than %d nodes", maxPerSite)
		}
		b.node(&s, n, number)
		number++
	}
	if err := b.desk(&s); err != nil {
		return err
	}
	b.router(&s)
	b.net.sites = append(b.net.sites, s)
	return nil
}

// siteAddress is the site's public IPv4 address: the first that its router
// holds for a node, else a fresh one.
func (b *builder) siteAddress(f *fleet.Fleet, s site) (netip.Addr, error) {
	for _, n := range f.Nodes {
		if n.Site != s.Name || s.NAT != fleet.RouterNAT {
			continue
		}
		if a, ok := n.PublicV4(); ok {
			return a, nil
		}
		if a, ok := forwarded(s.Site, n); ok {
			return a, nil
		}
	}
	return b.book.public()
}

// forwarded is the address of a node's router on which it passes ssh on to the
// node: one that the file names for ssh and not as the node's own.
func forwarded(s fleet.Site, n fleet.Node) (netip.Addr, bool) {
	a, err := netip.ParseAddr(n.SSH.Host)
	if err != nil || s.NAT != fleet.RouterNAT || !a.Is4() || a.IsPrivate() || slices.Contains(n.Public, a) {
		return netip.Addr{}, false
	}
	return a, true
}
