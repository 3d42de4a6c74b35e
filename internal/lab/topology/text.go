package topology

import (
	"fmt"
	"strings"
)

// String draws the network as text, a line per thing, for reading and for
// comparing.
func (n *Network) String() string {
	var b strings.Builder
	for _, l := range n.Links {
		fmt.Fprintf(&b, "link %s -- %s\n", l.A, l.B)
	}
	for _, s := range n.Spaces {
		fmt.Fprintf(&b, "\n%s\n", s.Name)
		if s.Bridge != "" {
			fmt.Fprintf(&b, "  bridge %s\n", s.Bridge)
		}
		for _, v := range s.Sysctl {
			fmt.Fprintf(&b, "  sysctl %s = %s\n", v.Key, v.Value)
		}
		for _, a := range s.Addrs {
			fmt.Fprintf(&b, "  addr   %s dev %s\n", a.Prefix, a.Dev)
		}
		for _, r := range s.Routes {
			fmt.Fprintf(&b, "  route  %s\n", r)
		}
	}
	b.WriteString("\n")
	for _, m := range n.Machines {
		fmt.Fprintf(&b, "machine %s site %s inside %s outside %v shared %v\n", m.Node, m.Site, m.Host, m.Outer, m.Shared)
	}
	return b.String()
}

// String is the end as space/device, with the bridge it is a port of.
func (e End) String() string {
	if e.Bridge != "" {
		return fmt.Sprintf("%s/%s(%s)", e.Space, e.Dev, e.Bridge)
	}
	return e.Space + "/" + e.Dev
}

// String is the route as ip(8) writes it.
func (r Route) String() string {
	s := r.Dst.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	s += " dev " + r.Dev
	if r.Src.IsValid() {
		s += " src " + r.Src.String()
	}
	return s
}

// String is the host's addresses.
func (h Host) String() string {
	var out []string
	if h.V4.IsValid() {
		out = append(out, h.V4.String())
	}
	if h.V6.IsValid() {
		out = append(out, h.V6.String())
	}
	return strings.Join(out, " ")
}
