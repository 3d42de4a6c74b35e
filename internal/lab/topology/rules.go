package topology

import (
	"fmt"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// ServerRules returns the nftables script that takes these servers, and no
// others, off the internet: whoever tries is told at once that there is no such
// host, as by the router in front of one that is switched off.
func (n *Network) ServerRules(off []Server) string {
	var b strings.Builder
	b.WriteString("table inet faults\ndelete table inet faults\ntable inet faults {\n" +
		"\tchain off {\n\t\ttype filter hook input priority filter; policy accept;\n")
	for _, s := range off {
		h := n.Servers[s]
		fmt.Fprintf(&b, "\t\tip daddr %s reject with icmp host-unreachable\n", h.V4)
		fmt.Fprintf(&b, "\t\tip6 daddr %s reject with icmpv6 addr-unreachable\n", h.V6)
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

// Rules returns the nftables script of a space, or "" where it needs none. It
// replaces the tables that it names as a whole, so it can be given again. The
// nodes in symmetric get a fresh port for every peer from their site's router.
func (n *Network) Rules(space string, symmetric map[fleet.NodeName]bool) string {
	if space == Internet {
		return internetRules
	}
	for _, s := range n.sites {
		switch space {
		case Router(s.Name):
			return s.routerRules(symmetric)
		case carrierSpace(s.Name):
			return carrierRules
		}
	}
	return ""
}

// internetRules drop what no provider would carry (RFC 2827): packets from
// private addresses. Those to private addresses find no route.
const internetRules = `table inet lab
delete table inet lab
table inet lab {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ip saddr { 10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16 } drop
		ip6 saddr { fc00::/7, fe80::/10 } drop
	}
}
`

// unasked drops what comes from outside without having been asked for. It
// must be dropped and not answered: a tuple that the router itself has seen is
// one that masquerade can no longer give to a machine, and hole punching would
// fail in the lab where it works in life. ICMP and ICMPv6 go by their numbers:
// a box without /etc/protocols does not know the latter's name.
const unasked = `	chain input {
		type filter hook input priority filter; policy accept;
		iifname "wan" ct state new meta l4proto != { 1, 58 } drop
	}
`

const carrierRules = `table inet lab
delete table inet lab
table inet lab {
` + unasked + `	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		meta nfproto ipv4 ip saddr 100.64.0.0/10 oifname "wan" masquerade
	}
}
`

// routerRules are those of a site's router: translation where the site has
// it, and the firewall that every home router brings for IPv6.
func (s site) routerRules(symmetric map[fleet.NodeName]bool) string {
	if !s.translates() && s.Kind != fleet.Home {
		return ""
	}
	var b strings.Builder
	b.WriteString("table inet lab\ndelete table inet lab\ntable inet lab {\n")
	if s.translates() {
		b.WriteString(unasked)
	}
	if s.Kind == fleet.Home {
		s.firewall(&b)
	}
	if s.translates() {
		s.nat(&b, symmetric)
	}
	b.WriteString("}\n")
	return b.String()
}

func (s site) firewall(b *strings.Builder) {
	b.WriteString("\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n" +
		"\t\tct state established,related accept\n")
	if s.translates() {
		b.WriteString("\t\tiifname \"wan\" ct status dnat accept\n")
	}
	for _, a := range s.held {
		family := "ip"
		if a.Is6() {
			family = "ip6"
		}
		fmt.Fprintf(b, "\t\tiifname \"wan\" %s daddr %s accept\n", family, a)
	}
	b.WriteString("\t\tiifname \"wan\" drop\n\t}\n")
}

// nat translates what leaves. Linux' masquerade keeps the source port where
// it can, as most routers do; "random,fully-random" makes it a symmetric NAT
// (RFC 4787, address and port dependent mapping).
func (s site) nat(b *strings.Builder, symmetric map[fleet.NodeName]bool) {
	if len(s.forward) > 0 {
		b.WriteString("\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n")
		for _, f := range s.forward { // single ports first: the rest of the address may be another's
			if f.port != 0 {
				fmt.Fprintf(b, "\t\tip daddr %s tcp dport %d dnat ip to %s\n", f.public, f.port, f.inner)
			}
		}
		for _, f := range s.forward {
			if f.port == 0 {
				fmt.Fprintf(b, "\t\tip daddr %s dnat ip to %s\n", f.public, f.inner)
			}
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n")
	for _, m := range s.machines {
		if symmetric[m.Node] && s.lan.Contains(m.V4) {
			fmt.Fprintf(b, "\t\tip saddr %s oifname \"wan\" masquerade random,fully-random\n", m.V4)
		}
	}
	for _, f := range s.forward {
		if f.port != 0 {
			continue
		}
		fmt.Fprintf(b, "\t\tip saddr %s oifname \"wan\" snat ip to %s\n", f.inner, f.public)
	}
	fmt.Fprintf(b, "\t\tip saddr %s oifname \"wan\" masquerade\n", s.lan)
	if len(s.forward) > 0 {
		b.WriteString("\t\tiifname \"lan\" oifname \"lan\" ct status dnat masquerade\n")
	}
	b.WriteString("\t}\n")
}
