package fleet

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func herd(nodes int) *Fleet {
	f := &Fleet{}
	for i := range nodes {
		f.Nodes = append(f.Nodes, Node{Name: NodeName(fmt.Sprintf("n%03d", i)), Site: SiteName(fmt.Sprintf("s%d", i%3))})
	}
	return f
}

func TestPlaces(t *testing.T) {
	f := herd(6)
	sites := func(names []NodeName) int {
		seen := make(map[SiteName]bool)
		for _, name := range names {
			n, _ := f.Node(name)
			seen[n.Site] = true
		}
		return len(seen)
	}
	for count, want := range map[int]int{1: 1, 2: 2, 3: 3, 6: 3} {
		got := f.Places(Service{Name: "web", Count: count})
		if len(got) != count || sites(got) != want {
			t.Errorf("%d instances are on %v, of %d sites; want %d sites", count, got, sites(got), want)
		}
	}
	on := []Party{{Node: "n004"}, {Site: "s0"}}
	if diff := cmp.Diff([]NodeName{"n000", "n003", "n004"}, f.Places(Service{Name: "web", Count: 9, On: on})); diff != "" {
		t.Errorf("bound to a node and a site (-want +got):\n%s", diff)
	}
	if got := f.Places(Service{Name: "web", Count: 1, On: []Party{{Site: "nowhere"}}}); len(got) > 0 {
		t.Errorf("on a site without nodes: %v", got)
	}
}

func BenchmarkPlaces(b *testing.B) {
	f := herd(1000)
	for i := range f.Nodes {
		f.Nodes[i].Site = SiteName(fmt.Sprintf("s%d", i%100))
	}
	for b.Loop() {
		f.Places(Service{Name: "web", Count: 3})
	}
}

// TestPlacesStay takes nodes away, one at a time: only what was there moves, and
// the services are spread over all nodes.
func TestPlacesStay(t *testing.T) {
	const nodes, services = 30, 300
	f := herd(nodes)
	had := make(map[NodeName]int)
	for i := range services {
		s := Service{Name: ServiceName(fmt.Sprintf("svc%d", i)), Count: 1}
		was := f.Places(s)[0]
		had[was]++
		for gone := range nodes {
			if f.Nodes[gone].Name == was {
				continue
			}
			less := &Fleet{Nodes: slices.Delete(slices.Clone(f.Nodes), gone, gone+1)}
			if now := less.Places(s)[0]; now != was {
				t.Fatalf("%s moves from %s to %s when %s goes", s.Name, was, now, f.Nodes[gone].Name)
			}
		}
	}
	for _, n := range f.Nodes {
		if got := had[n.Name]; got < services/nodes/5 || got > 4*services/nodes {
			t.Errorf("%s has %d of %d services", n.Name, got, services)
		}
	}
}
