package fleet

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Record is what the public DNS must say of one name: A records for its IPv4
// addresses, AAAA records for its IPv6 ones.
type Record struct {
	Name  string // lower case, without the final dot
	Addrs []netip.Addr
}

// Type is the record's type for one of its addresses.
func (Record) Type(a netip.Addr) string {
	if a.Is4() {
		return "A"
	}
	return "AAAA"
}

// Records are those that the fleet's public routes need, sorted by name: every
// public host leads to all addresses of all ingress nodes, in the order of the
// file. A fleet without ingress nodes has names that lead nowhere.
func (f *Fleet) Records() []Record {
	hosts := map[string]bool{}
	for _, s := range f.Services {
		for _, r := range s.Expose {
			if r.To == Public {
				hosts[strings.ToLower(r.Host)] = true
			}
		}
	}
	var addrs []netip.Addr
	roles := f.Roles()
	for _, n := range f.Nodes {
		if roles[n.Name].Ingress {
			addrs = append(addrs, n.Public...)
		}
	}
	var out []Record
	for _, h := range slices.Sorted(maps.Keys(hosts)) {
		out = append(out, Record{Name: h, Addrs: slices.Clone(addrs)})
	}
	return out
}
