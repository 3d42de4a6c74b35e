package plan

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// cats is the reference fleet.
func cats() *fleet.Fleet {
	public := func(v4, v6 string) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
	}
	root := fleet.SSH{User: "root"}
	return &fleet.Fleet{
		Name: "cats", Domain: "cats.example", Port: fleet.DefaultPort,
		Sites: []fleet.Site{
			{Name: "dusseldorf", Kind: fleet.Datacenter, NAT: fleet.NoNAT, IPv6: true},
			{Name: "nuremberg", Kind: fleet.Datacenter, NAT: fleet.NoNAT, IPv6: true},
			{Name: "london", Kind: fleet.Home, NAT: fleet.CarrierNAT, IPv6: true},
			{Name: "madrid", Kind: fleet.Home, NAT: fleet.CarrierNAT},
		},
		Nodes: []fleet.Node{
			{Name: "cosmo", Site: "dusseldorf", Public: public("198.51.100.11", "2001:db8:c0::11"), SSH: root},
			{Name: "maco", Site: "dusseldorf", Public: public("198.51.100.12", "2001:db8:c0::12"), SSH: root},
			{Name: "miki", Site: "nuremberg", Public: public("203.0.113.21", "2001:db8:e1::21"), SSH: root},
			{Name: "ari", Site: "london", SSH: root},
			{Name: "ziggy", Site: "london", SSH: root},
			{Name: "bianco", Site: "madrid", SSH: root},
		},
	}
}

// crowd is a fleet of n nodes: one in fifty public in one of ten datacenters,
// the others at homes of ten, every third without IPv6.
func crowd(n int) *fleet.Fleet {
	f := &fleet.Fleet{Name: "crowd", Port: fleet.DefaultPort}
	f.Mesh.V4 = netip.MustParsePrefix("10.64.0.0/10")
	for i := range 10 {
		f.Sites = append(f.Sites, fleet.Site{Name: fleet.SiteName(fmt.Sprintf("dc%d", i)), Kind: fleet.Datacenter, NAT: fleet.NoNAT, IPv6: true})
	}
	for i := range n/10 + 1 {
		f.Sites = append(f.Sites, fleet.Site{Name: fleet.SiteName(fmt.Sprintf("home%d", i)), Kind: fleet.Home, NAT: fleet.CarrierNAT, IPv6: i%3 > 0})
	}
	for i := range n {
		node := fleet.Node{Name: fleet.NodeName(fmt.Sprintf("n%05d", i)), Site: fleet.SiteName(fmt.Sprintf("home%d", i/10)), SSH: fleet.SSH{User: "root"}}
		if i%50 == 0 {
			node.Site = fleet.SiteName(fmt.Sprintf("dc%d", i/50%10))
			node.Public = []netip.Addr{netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})}
		}
		f.Nodes = append(f.Nodes, node)
	}
	return f
}

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with the file, or rewrites it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}
