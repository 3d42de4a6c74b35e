package topology

import "slices"

// Extends says whether the network is the old one with more in it: whoever has
// the old one comes to this by only adding.
func (n *Network) Extends(old *Network) bool {
	for _, o := range old.Spaces {
		i := slices.IndexFunc(n.Spaces, func(s Space) bool { return s.Name == o.Name })
		if i < 0 || !n.Spaces[i].extends(o) {
			return false
		}
	}
	return within(old.Links, n.Links)
}

func (s Space) extends(o Space) bool {
	return s.Bridge == o.Bridge && within(o.Sysctl, s.Sysctl) && within(o.Addrs, s.Addrs) && within(o.Routes, s.Routes)
}

// within says whether all of few are among many.
func within[T comparable](few, many []T) bool {
	for _, x := range few {
		if !slices.Contains(many, x) {
			return false
		}
	}
	return true
}

// Beyond returns what must be added to the old network to make it this one:
// every space, since making one twice does no harm, but only the new links.
func (n *Network) Beyond(old *Network) *Network {
	more := &Network{Spaces: n.Spaces, sites: n.sites}
	for _, l := range n.Links {
		if !slices.Contains(old.Links, l) {
			more.Links = append(more.Links, l)
		}
	}
	return more
}
