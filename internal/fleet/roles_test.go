package fleet

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func yes() *bool { v := true; return &v }
func no() *bool  { v := false; return &v }

func dc(name NodeName, site SiteName) Node {
	return Node{Name: name, Site: site, Public: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
}

func TestRolesServers(t *testing.T) {
	sites := []Site{{Name: "a", Kind: Datacenter}, {Name: "b", Kind: Datacenter}, {Name: "home", Kind: Home}}
	home := Node{Name: "h", Site: "home"}
	with := func(n Node, server *bool) Node { n.Server = server; return n }
	tests := map[string]struct {
		nodes []Node
		want  []NodeName
	}{
		"the reference fleet":             {[]Node{dc("1", "a"), dc("2", "a"), dc("3", "b"), home}, []NodeName{"1", "2", "3"}},
		"two give one":                    {[]Node{dc("1", "a"), dc("2", "b")}, []NodeName{"1"}},
		"four give three, spread":         {[]Node{dc("1", "a"), dc("2", "a"), dc("3", "a"), dc("4", "b")}, []NodeName{"1", "2", "4"}},
		"at most five":                    {[]Node{dc("1", "a"), dc("2", "a"), dc("3", "a"), dc("4", "a"), dc("5", "a"), dc("6", "a"), dc("7", "b")}, []NodeName{"1", "2", "3", "4", "7"}},
		"one at home":                     {[]Node{home}, []NodeName{"h"}},
		"one named elsewhere takes place": {[]Node{dc("1", "a"), dc("2", "a"), dc("3", "b"), with(home, yes())}, []NodeName{"1", "3", "h"}},
		"one refused":                     {[]Node{with(dc("1", "a"), no()), dc("2", "a"), dc("3", "b")}, []NodeName{"2"}},
		"two named stay two":              {[]Node{with(dc("1", "a"), yes()), with(home, yes())}, []NodeName{"1", "h"}},
		"none":                            {nil, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := Fleet{Sites: sites, Nodes: tt.nodes}
			var got []NodeName
			for n, r := range f.Roles() {
				if r.Server {
					got = append(got, n)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("servers (-want +got):\n%s", diff)
			}
		})
	}
}
