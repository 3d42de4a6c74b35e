package plan

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func addresses(l *fleet.Lock) map[fleet.NodeName]string {
	out := make(map[fleet.NodeName]string)
	for _, n := range l.Nodes {
		out[n.Name] = n.V4.String()
	}
	return out
}

func TestAllocateIsStable(t *testing.T) {
	f := cats()
	first, err := Allocate(f, &fleet.Lock{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[fleet.NodeName]string{
		"cosmo": "10.77.0.1", "maco": "10.77.0.2", "miki": "10.77.0.3", "ari": "10.77.0.4", "ziggy": "10.77.0.5", "bianco": "10.77.0.6",
	}
	if diff := cmp.Diff(want, addresses(first)); diff != "" {
		t.Errorf("first allocation (-want +got):\n%s", diff)
	}
	f.Nodes = append([]fleet.Node{{Name: "aaa", Site: "madrid"}}, f.Nodes[1:]...) // cosmo leaves, aaa comes to the front
	second, err := Allocate(f, first)
	if err != nil {
		t.Fatal(err)
	}
	want["aaa"] = "10.77.0.7"
	if diff := cmp.Diff(want, addresses(second)); diff != "" {
		t.Errorf("after coming and going (-want +got):\n%s", diff)
	}
	second.Remove("ziggy") // left the file, and an apply has removed it
	f.Nodes = slices.DeleteFunc(f.Nodes, func(n fleet.Node) bool { return n.Name == "ziggy" })
	f.Nodes = append(f.Nodes, fleet.Node{Name: "zzz", Site: "madrid"})
	third, err := Allocate(f, second)
	if err != nil {
		t.Fatal(err)
	}
	if got := addresses(third)["zzz"]; got != "10.77.0.8" {
		t.Errorf("a new node got %s, want the number after the highest, 10.77.0.8", got)
	}
}

func TestAllocateRanges(t *testing.T) {
	f := cats()
	f.Mesh.V4 = netip.MustParsePrefix("192.168.9.0/29") // six hosts
	l, err := Allocate(f, &fleet.Lock{})
	if err != nil {
		t.Fatal(err)
	}
	bianco := l.Node("bianco")
	if got, want := bianco.V4.String(), "192.168.9.6"; got != want {
		t.Errorf("last address %s, want %s", got, want)
	}
	if !l.Mesh.V6.Contains(bianco.V6) || l.Mesh.V6.Addr().As16()[0] != 0xfd || l.Mesh.V6.Bits() != 48 {
		t.Errorf("IPv6 %s in %s, want one in a unique local /48", bianco.V6, l.Mesh.V6)
	}
	f.Nodes = append(f.Nodes, fleet.Node{Name: "one-more"})
	if _, err := Allocate(f, l); err == nil || !strings.Contains(err.Error(), "one-more") || !strings.Contains(err.Error(), "full") {
		t.Errorf("a seventh node in a range of six: %v, want an error naming it", err)
	}
	f.Nodes = f.Nodes[1:] // cosmo, number 1, made room
	l.Remove("cosmo")
	l, err = Allocate(f, l)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := l.Node("one-more").V4.String(), "192.168.9.1"; got != want {
		t.Errorf("at the range's end a new node got %s, want the lowest free, %s", got, want)
	}
	f.Mesh.V4 = netip.MustParsePrefix("10.1.0.0/24")
	moved, err := Allocate(f, l)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range moved.Nodes {
		if !f.Mesh.V4.Contains(n.V4) {
			t.Errorf("%s kept %s, outside the file's new range", n.Name, n.V4)
		}
	}
}
