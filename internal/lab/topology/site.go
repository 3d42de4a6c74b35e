package topology

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// node wires a node to its site. Public addresses of the file are held by the
// machine itself, as a rented server holds them; only where the site's own
// router translates does the router hold the IPv4 ones, and pass on what
// arrives there. At a site without IPv6 there is none, whatever the file says.
func (b *builder) node(s *site, n fleet.Node, number int) {
	m := Machine{Node: n.Name, Site: s.Name, port: device("n-", string(n.Name))}
	m.Space = nodeSpace(n.Name)
	space := Space{Name: m.Space}
	var own []netip.Addr
	for _, a := range n.Public {
		switch {
		case a.Is6() && !s.IPv6:
			continue
		case a.Is4() && s.NAT == fleet.RouterNAT:
			s.forward = append(s.forward, forward{public: a, inner: host(s.lan, number)})
		default:
			own = append(own, a)
			s.held = append(s.held, a)
		}
		m.Outer = append(m.Outer, a)
	}
	if a, ok := forwarded(s.Site, n); ok {
		s.forward = append(s.forward, forward{public: a, inner: host(s.lan, number), port: n.SSH.Port})
	}
	b.attach(s, &space, &m.Host, own, number)
	m.Outer = outer(s, m)
	b.link(End{Space: Router(s.Name), Dev: m.port, Bridge: "lan"}, End{Space: m.Space, Dev: "eth0"})
	b.net.Spaces = append(b.net.Spaces, space)
	s.machines = append(s.machines, m)
}

// attach gives a machine on the site's LAN its addresses and routes: those of
// its own first, then what the router gives out to everybody.
func (b *builder) attach(s *site, space *Space, h *Host, own []netip.Addr, number int) {
	space.routed(gateway4, own...)
	for _, a := range own {
		if a.Is4() && !h.V4.IsValid() {
			h.V4 = a
		}
		if a.Is6() && !h.V6.IsValid() {
			h.V6 = a
		}
	}
	if s.translates() {
		a := host(s.lan, number)
		space.Addrs = append(space.Addrs, Addr{"eth0", netip.PrefixFrom(a, s.lan.Bits())})
		if !h.V4.IsValid() {
			h.V4 = a
			space.Routes = append(space.Routes, Route{Dst: any4, Via: host(s.lan, routerNumber), Dev: "eth0"})
		}
	}
	if !s.IPv6 {
		space.Sysctl = append(space.Sysctl, Setting{"ipv6/conf/eth0/disable_ipv6", "1"})
		return
	}
	space.Sysctl = append(space.Sysctl, Setting{"ipv6/conf/eth0/accept_ra", "0"})
	if !h.V6.IsValid() {
		h.V6 = host6(s.prefix, number)
		space.Addrs = append(space.Addrs, Addr{"eth0", netip.PrefixFrom(h.V6, 64)})
		space.Routes = append(space.Routes, Route{Dst: any6, Via: gateway6, Dev: "eth0"})
	}
}

// host6 is the number-th address of the prefix, written with the same digits
// as its IPv4 fellow: 192.168.1.11 is also 2001:db8:f000::11.
func host6(p netip.Prefix, number int) netip.Addr {
	digits, _ := strconv.ParseInt(strconv.Itoa(number), 16, 32) // decimal digits are hexadecimal ones
	return host(p, int(digits))
}

// outer lists what others see the machine come from: its public addresses, or
// those it is hidden behind.
func outer(s *site, m Machine) []netip.Addr {
	all := m.Outer
	var v4, v6 bool
	for _, a := range all {
		v4, v6 = v4 || a.Is4(), v6 || a.Is6()
	}
	if !v4 && s.translates() {
		all = append(all, s.wan)
	}
	if !v6 && m.V6.IsValid() {
		all = append(all, m.V6)
	}
	return all
}

// desk puts a machine of the operator's into the site, for --from.
func (b *builder) desk(s *site) error {
	var own []netip.Addr
	if !s.translates() {
		a, err := b.book.public()
		if err != nil {
			return err
		}
		own = append(own, a)
		s.held = append(s.held, a)
	}
	space := Space{Name: Desk(s.Name)}
	var h Host
	b.attach(s, &space, &h, own, deskNumber)
	b.link(End{Space: Router(s.Name), Dev: "desk", Bridge: "lan"}, End{Space: space.Name, Dev: "eth0"})
	b.net.Spaces = append(b.net.Spaces, space)
	return nil
}

// router makes the site's router, the line to the internet and the carrier in
// it, and tells the internet what is reached over that line.
func (b *builder) router(s *site) {
	r := Space{Name: Router(s.Name), Bridge: "lan", Sysctl: append(routing(), quiet("lan")...)}
	r.Sysctl = append(r.Sysctl, quiet("wan")...)
	up := device("s-", string(s.Name))
	b.internetSide(up)
	outside := End{Space: r.Name, Dev: "wan"}
	if s.carrier() {
		b.carrierSpace(s)
		b.link(End{Space: carrierSpace(s.Name), Dev: "home"}, outside)
		outside = End{Space: carrierSpace(s.Name), Dev: "wan"}
		r.Addrs = append(r.Addrs, Addr{"wan", netip.PrefixFrom(s.inner, 24)})
		r.Routes = append(r.Routes, Route{Dst: any4, Via: host(netip.PrefixFrom(s.inner, 24), 1), Dev: "wan"})
	} else {
		r.Addrs = append(r.Addrs, Addr{"wan", single(s.wan)})
		for _, a := range s.others() {
			r.Addrs = append(r.Addrs, Addr{"wan", single(a)})
		}
		r.Routes = append(r.Routes, Route{Dst: any4, Via: b.upstream, Src: s.wan, Dev: "wan"})
	}
	b.link(End{Space: Internet, Dev: up}, outside)
	if s.translates() {
		r.Addrs = append(r.Addrs, Addr{"lan", netip.PrefixFrom(host(s.lan, routerNumber), s.lan.Bits())})
	}
	r.Addrs = append(r.Addrs, Addr{"lan", single(gateway4)})
	if s.IPv6 {
		r.Addrs = append(r.Addrs,
			Addr{"lan", netip.PrefixFrom(gateway6, 64)},
			Addr{"lan", netip.PrefixFrom(host6(s.prefix, routerNumber), 64)},
			Addr{"wan", netip.PrefixFrom(customer6, 64)})
		r.Routes = append(r.Routes, Route{Dst: any6, Via: gateway6, Dev: "wan"})
	}
	for _, a := range s.held {
		r.Routes = append(r.Routes, Route{Dst: single(a), Dev: "lan"})
	}
	b.net.Spaces = append(b.net.Spaces, r)
	b.internet.Routes = append(b.internet.Routes, s.ways(up, false)...)
}

// carrierSpace makes the provider's own translation, one more router between
// the home's and the internet (RFC 6598).
func (b *builder) carrierSpace(s *site) {
	c := Space{Name: carrierSpace(s.Name), Sysctl: append(routing(), quiet("home")...)}
	c.Sysctl = append(c.Sysctl, quiet("wan")...)
	home := netip.PrefixFrom(host(netip.PrefixFrom(s.inner, 24), 1), 24)
	c.Addrs = []Addr{{"wan", single(s.wan)}, {"home", home}}
	c.Routes = []Route{{Dst: any4, Via: b.upstream, Src: s.wan, Dev: "wan"}}
	if s.IPv6 {
		c.Addrs = append(c.Addrs,
			Addr{"wan", netip.PrefixFrom(customer6, 64)},
			Addr{"home", netip.PrefixFrom(gateway6, 64)})
		c.Routes = append(c.Routes, Route{Dst: any6, Via: gateway6, Dev: "wan"})
	}
	c.Routes = append(c.Routes, s.ways("home", true)...)
	b.net.Spaces = append(b.net.Spaces, c)
}

// others are the public addresses of the site's router besides its first.
func (s *site) others() []netip.Addr {
	var out []netip.Addr
	for _, f := range s.forward {
		if f.public != s.wan && !slices.Contains(out, f.public) {
			out = append(out, f.public)
		}
	}
	return out
}

// ways are the routes that lead to the site over a device of the one before
// it: its IPv6 prefix and every public address.
func (s *site) ways(dev string, fromCarrier bool) []Route {
	var out []Route
	via4 := s.wan
	if fromCarrier {
		via4 = s.inner
	} else {
		out = append(out, Route{Dst: single(s.wan), Dev: dev})
	}
	if s.IPv6 {
		out = append(out, Route{Dst: s.prefix, Via: customer6, Dev: dev})
	}
	for _, a := range s.others() {
		out = append(out, Route{Dst: single(a), Via: via4, Dev: dev})
	}
	for _, a := range s.held {
		via := via4
		if a.Is6() {
			via = customer6
		}
		out = append(out, Route{Dst: single(a), Via: via, Dev: dev})
	}
	return out
}
