package ingress

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moggyfleet/moggy/internal/fleet"
)

type noSites struct{}

func (noSites) Digest(static string) fleet.Digest { return fleet.DigestOf([]byte(static)) }

func cats() (*fleet.Fleet, *fleet.Lock) {
	f := &fleet.Fleet{
		Name: "cats", Port: 51877, Sites: []fleet.Site{{Name: "rack"}},
		Services: []fleet.Service{
			{Name: "web", Exec: "/bin/web", Port: 8080, Count: 3, Expose: []fleet.Route{{Host: "cats.example", Path: "/", To: fleet.Public}}},
			{Name: "blog", Static: "./blog", Expose: []fleet.Route{{Host: "blog.cats.example", Path: "/", To: fleet.Public}}},
			{Name: "worker", Exec: "/bin/worker", Count: 1},
		},
	}
	l := &fleet.Lock{Mesh: fleet.Ranges{V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd00::/48")}}
	for i, name := range []fleet.NodeName{"ari", "cosmo", "maco"} {
		n := fleet.Node{Name: name, Site: "rack"}
		if i > 0 {
			n.Public = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})}
		}
		f.Nodes = append(f.Nodes, n)
		l.Put(fleet.NodeLock{Name: name, MeshKey: fleet.Key{byte(i + 1)}, V4: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)})})
	}
	return f, l
}

func TestPart(t *testing.T) {
	f, l := cats()
	in := New(f, l, noSites{})
	if _, some := in.Part("ari", "/m"); some {
		t.Error("a node that is no ingress has one")
	}
	a, _ := in.Part("cosmo", "/m")
	b, some := in.Part("maco", "/m")
	if diff := cmp.Diff(a, b); diff != "" || !some {
		t.Errorf("two ingress nodes differ:\n%s", diff)
	}
	var read fleet.IngressConfig
	if err := json.Unmarshal(a.Files[0].Content, &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Config(f, l, noSites{}), read, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" {
		t.Errorf("the file says something else:\n%s", diff)
	}
	if len(read.Nodes) != 2 || len(read.Services) != 2 || len(read.Services[1].Backends) != 3 || read.ACME.Directory != LetsEncrypt || read.Port != 51878 {
		t.Errorf("%+v", read)
	}
	if len(a.Files) != 3 || a.Files[2].Path != "/usr/local/lib/moggy/sites/blog.zip" || len(a.Units[0].ReloadOn) != 2 {
		t.Errorf("%+v", a)
	}
	f.Ingress = fleet.Traefik
	if _, some := New(f, l, noSites{}).Part("cosmo", "/m"); some {
		t.Error("beside another engine")
	}
	f.Ingress, f.Services = fleet.Caddy, f.Services[2:]
	if _, some := New(f, l, noSites{}).Part("cosmo", "/m"); some {
		t.Error("without a route")
	}
}
