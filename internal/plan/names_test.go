package plan

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestNames(t *testing.T) {
	want := addrs("198.51.100.11", "2001:db8::11", "198.51.100.12")
	records := []fleet.Record{
		{Name: "asleep.example", Addrs: want},
		{Name: "new.example", Addrs: want},
		{Name: "old.example", Addrs: want},
		{Name: "right.example", Addrs: want},
		{Name: "six.example", Addrs: addrs("2001:db8::11")},
	}
	p := &Plan{Names: Names(records, map[string]Lookup{
		"asleep.example": {Problem: "no name server answers"},
		"old.example":    {Addrs: addrs("192.0.2.1")},
		"right.example":  {Addrs: addrs("2001:db8::11", "198.51.100.12", "198.51.100.11", "198.51.100.11")},
		"six.example":    {Addrs: addrs("2001:db8::11", "192.0.2.1")},
	})}
	var got []string
	for _, n := range p.Names {
		got = append(got, n.Name)
	}
	if diff := cmp.Diff([]string{"asleep.example", "new.example", "old.example", "six.example"}, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	tr := &tree{p: p, c: term.NewPalette(false)}
	tr.names()
	golden(t, filepath.Join("testdata", "names.txt"), tr.b.String())
}
