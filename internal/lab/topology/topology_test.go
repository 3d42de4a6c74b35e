package topology_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

var update = flag.Bool("update", false, "write the golden files")

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// cats is the reference fleet of examples/cats.
func cats() *fleet.Fleet {
	return &fleet.Fleet{
		Name: "cats",
		Mesh: fleet.Ranges{V4: netip.MustParsePrefix("10.77.0.0/16")},
		Sites: []fleet.Site{
			{Name: "dusseldorf", Kind: fleet.Datacenter, NAT: fleet.NoNAT, IPv6: true},
			{Name: "nuremberg", Kind: fleet.Datacenter, NAT: fleet.NoNAT, IPv6: true},
			{Name: "london", Kind: fleet.Home, NAT: fleet.CarrierNAT, IPv6: true},
			{Name: "madrid", Kind: fleet.Home, NAT: fleet.CarrierNAT},
		},
		Nodes: []fleet.Node{
			{Name: "cosmo", Site: "dusseldorf", Public: addrs("198.51.100.11", "2001:db8:c0::11")},
			{Name: "maco", Site: "dusseldorf", Public: addrs("198.51.100.12", "2001:db8:c0::12")},
			{Name: "miki", Site: "nuremberg", Public: addrs("203.0.113.21", "2001:db8:e1::21")},
			{Name: "ari", Site: "london"},
			{Name: "ziggy", Site: "london"},
			{Name: "bianco", Site: "madrid"},
		},
	}
}

func one() *fleet.Fleet {
	return &fleet.Fleet{
		Name:  "one",
		Sites: []fleet.Site{{Name: "rack", Kind: fleet.Datacenter, NAT: fleet.NoNAT, IPv6: true}},
		Nodes: []fleet.Node{{Name: "solo", Site: "rack", Public: addrs("5.9.1.2")}},
	}
}

// odd has what the reference fleet has not: a home whose router holds public
// addresses and passes them on, a datacenter behind a NAT, one with a machine
// that has no address at all, a home without any NAT, names too long for a
// device, addresses the lab would have chosen itself.
func odd() *fleet.Fleet {
	return &fleet.Fleet{
		Name: "odd",
		Mesh: fleet.Ranges{V4: netip.MustParsePrefix("192.168.0.0/16")},
		Sites: []fleet.Site{
			{Name: "flat", Kind: fleet.Home, NAT: fleet.RouterNAT, IPv6: true},
			{Name: "a-cloud-with-a-very-long-name", Kind: fleet.Datacenter, NAT: fleet.RouterNAT},
			{Name: "rack", Kind: fleet.Datacenter, NAT: fleet.NoNAT},
			{Name: "six", Kind: fleet.Home, NAT: fleet.NoNAT, IPv6: true},
		},
		Nodes: []fleet.Node{
			{Name: "door", Site: "flat", Public: addrs("192.0.2.80", "2001:db8:f000::7")},
			{Name: "window", Site: "flat", Public: addrs("192.0.2.100")},
			{Name: "sofa", Site: "flat", SSH: fleet.SSH{Host: "192.0.2.101", Port: 2201}},
			{Name: "chair", Site: "flat", SSH: fleet.SSH{Host: "192.0.2.101", Port: 2202}},
			{Name: "instance-with-a-very-long-name-1", Site: "a-cloud-with-a-very-long-name"},
			{Name: "instance-with-a-very-long-name-2", Site: "a-cloud-with-a-very-long-name"},
			{Name: "hermit", Site: "rack"},
			{Name: "big", Site: "rack", Public: addrs("8.8.4.4", "8.8.4.5", "2001:db8::1")},
			{Name: "pi", Site: "six"},
			{Name: "nas", Site: "six", Public: addrs("2001:db8:aa::1")},
		},
	}
}

func TestGolden(t *testing.T) {
	for name, f := range map[string]*fleet.Fleet{"cats": cats(), "one": one(), "odd": odd()} {
		t.Run(name, func(t *testing.T) {
			n, err := topology.Build(f)
			if err != nil {
				t.Fatal(err)
			}
			text := n.String()
			for _, r := range n.Routers() {
				if rules := n.Rules(r, nil); rules != "" {
					text += "\nrules of " + r + "\n" + rules
				}
			}
			golden(t, name+".txt", text)
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
