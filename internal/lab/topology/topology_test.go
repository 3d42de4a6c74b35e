package topology_test

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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

func TestSymmetric(t *testing.T) {
	n, err := topology.Build(cats())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "symmetric.txt", n.Rules("site-london", map[fleet.NodeName]bool{"ari": true, "bianco": true}))
}

func TestFaults(t *testing.T) {
	f := cats()
	f.Nodes = append(f.Nodes, fleet.Node{Name: "nube", Site: "madrid"})
	n, err := topology.Build(f)
	if err != nil {
		t.Fatal(err)
	}
	for name, parties := range map[string][2]string{
		"node-rack": {"ari", "cosmo"}, "neighbours-home": {"ari", "ziggy"}, "neighbours-rack": {"cosmo", "maco"},
		"shared": {"ari", "bianco"}, "node-site": {"ari", "nuremberg"}, "site-site": {"london", "madrid"},
		"node-own-site": {"cosmo", "dusseldorf"}, "line-node": {"ari", ""}, "line-site": {"madrid", ""},
		"operator": {"operator", "miki"}, "operator-home": {"operator", "ari"}, "shared-site": {"bianco", "london"},
		"operator-line": {"operator", ""},
	} {
		t.Run(name, func(t *testing.T) {
			fault := topology.Fault{A: party(t, n, parties[0]), B: party(t, n, parties[1]), Loss: topology.Whole}
			turned := topology.Fault{A: fault.B, B: fault.A, Loss: 25}
			text := render(t, n, []topology.Fault{fault})
			if parties[1] != "" {
				text += "\n25 of 1000, seen from the other side\n" + render(t, n, []topology.Fault{turned})
			}
			golden(t, "fault-"+name+".txt", text)
		})
	}
}

func party(t *testing.T, n *topology.Network, name string) topology.Party {
	t.Helper()
	if name == "" {
		return topology.Everybody
	}
	p, err := n.Party(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// render is the rules of the routers that have any.
func render(t *testing.T, n *topology.Network, faults []topology.Fault) string {
	t.Helper()
	rules, err := n.FaultRules(faults)
	if err != nil {
		t.Fatal(err)
	}
	none, err := n.FaultRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, r := range slices.Sorted(maps.Keys(rules)) {
		if rules[r] != none[r] {
			text += r + "\n" + rules[r]
		}
	}
	return text
}

func TestFaultMistakes(t *testing.T) {
	n, err := topology.Build(cats())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := n.Party("lodon"); err == nil {
		t.Errorf("a party that is not there: %v", p)
	}
	if p := party(t, n, "operator"); !p.Operator || p.String() != "operator" {
		t.Errorf("the operator: %+v", p)
	}
	ari := party(t, n, "ari")
	if _, err := n.FaultRules([]topology.Fault{{A: ari, B: ari, Loss: 1}}); err == nil {
		t.Error("a fault between a node and itself was no error")
	}
}

func TestManyMarks(t *testing.T) {
	f := &fleet.Fleet{Sites: []fleet.Site{
		{Name: "a", Kind: fleet.Home, NAT: fleet.RouterNAT}, {Name: "b", Kind: fleet.Home, NAT: fleet.RouterNAT},
	}}
	for i := range 8 {
		f.Nodes = append(f.Nodes,
			fleet.Node{Name: fleet.NodeName(fmt.Sprint("a", i)), Site: "a"}, fleet.Node{Name: fleet.NodeName(fmt.Sprint("b", i)), Site: "b"})
	}
	n, err := topology.Build(f)
	if err != nil {
		t.Fatal(err)
	}
	var faults []topology.Fault
	for i := range 8 {
		for j := range 8 {
			faults = append(faults, topology.Fault{
				A: party(t, n, fmt.Sprint("a", i)), B: party(t, n, fmt.Sprint("b", j)), Loss: topology.Whole,
			})
		}
	}
	if _, err := n.FaultRules(faults[:63]); err != nil {
		t.Error(err)
	}
	if _, err := n.FaultRules(faults); err == nil {
		t.Error("64 marks fit in six bits, less the zero")
	}
}

func TestBuildMistakes(t *testing.T) {
	many := &fleet.Fleet{}
	for i := range 200 {
		many.Sites = append(many.Sites, fleet.Site{Name: fleet.SiteName(fmt.Sprint("s", i)), NAT: fleet.RouterNAT})
	}
	crowded := &fleet.Fleet{Sites: []fleet.Site{{Name: "home", NAT: fleet.RouterNAT}}}
	for i := range 241 {
		crowded.Nodes = append(crowded.Nodes, fleet.Node{Name: fleet.NodeName(fmt.Sprint("n", i)), Site: "home"})
	}
	for name, f := range map[string]*fleet.Fleet{
		"no such site": {Nodes: []fleet.Node{{Name: "a", Site: "nowhere"}}}, "too many sites": many, "too many nodes": crowded,
	} {
		if _, err := topology.Build(f); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestUnique checks, for the goldens' fleets, what a reader of them would
// miss: no device twice in a space, no long names, no address twice on the
// internet, every link's spaces there.
func TestUnique(t *testing.T) {
	for name, f := range map[string]*fleet.Fleet{"cats": cats(), "one": one(), "odd": odd()} {
		n, err := topology.Build(f)
		if err != nil {
			t.Fatal(err)
		}
		macs := map[[6]byte]bool{}
		spaces, devices, routes := map[string]bool{}, map[string]bool{}, map[netip.Prefix]bool{}
		for _, s := range n.Spaces {
			if spaces[s.Name] {
				t.Errorf("%s: two spaces %s", name, s.Name)
			}
			spaces[s.Name] = true
			if s.Name != topology.Internet {
				continue
			}
			for _, r := range s.Routes {
				if routes[r.Dst] {
					t.Errorf("%s: two ways to %s", name, r.Dst)
				}
				routes[r.Dst] = true
			}
		}
		for _, l := range n.Links {
			for _, e := range []topology.End{l.A, l.B} {
				if key := e.Space + "/" + e.Dev; devices[key] || len(e.Dev) > 15 || !spaces[e.Space] {
					t.Errorf("%s: device %s twice, too long, or nowhere", name, key)
				}
				devices[e.Space+"/"+e.Dev] = true
				mac := topology.MAC(e.Space, e.Dev)
				if macs[mac] || mac[0]&3 != 2 {
					t.Errorf("%s: %x is used twice, or no local unicast address", name, mac)
				}
				macs[mac] = true
			}
		}
	}
}

func TestExtends(t *testing.T) {
	build := func(change func(*fleet.Fleet)) *topology.Network {
		f := cats()
		change(f)
		n, err := topology.Build(f)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	old := build(func(*fleet.Fleet) {})
	for name, c := range map[string]struct {
		change func(*fleet.Fleet)
		want   bool
		links  int
	}{
		"the same": {func(*fleet.Fleet) {}, true, 0},
		"a node at home": {func(f *fleet.Fleet) {
			f.Nodes = append(f.Nodes, fleet.Node{Name: "nube", Site: "madrid"})
		}, true, 1},
		"a rented server": {func(f *fleet.Fleet) {
			f.Nodes = append(f.Nodes, fleet.Node{Name: "felix", Site: "nuremberg", Public: addrs("203.0.113.22")})
		}, true, 1},
		"a site": {func(f *fleet.Fleet) {
			f.Sites = append(f.Sites, fleet.Site{Name: "annex", NAT: fleet.CarrierNAT})
		}, true, 3},
		"a node less":      {func(f *fleet.Fleet) { f.Nodes = f.Nodes[1:] }, false, 0},
		"another NAT":      {func(f *fleet.Fleet) { f.Sites[2].NAT = fleet.RouterNAT }, false, 0},
		"another address":  {func(f *fleet.Fleet) { f.Nodes[0].Public = addrs("198.51.100.99") }, false, 0},
		"IPv6 switched on": {func(f *fleet.Fleet) { f.Sites[3].IPv6 = true }, false, 0},
	} {
		n := build(c.change)
		if got := n.Extends(old); got != c.want {
			t.Errorf("%s: extends %v, want %v", name, got, c.want)
		}
		if got := len(n.Beyond(old).Links); c.want && got != c.links {
			t.Errorf("%s: %d new links, want %d", name, got, c.links)
		}
	}
}
