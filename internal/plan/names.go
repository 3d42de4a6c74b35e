package plan

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Lookup is what the public DNS says of a name.
type Lookup struct {
	Addrs   []netip.Addr // none: there is no such name
	Problem string       // nobody could be asked
}

// NameChange is a name that does not lead where it should: its owner sets it, at
// whoever serves the domain.
type NameChange struct {
	Name string       `json:"name"`
	Want []netip.Addr `json:"want"`
	Have []netip.Addr `json:"have,omitempty"`
	// Problem says why it is not known what the name leads to.
	Problem string `json:"problem,omitempty"`
}

// Names are those records that the public DNS does not have as they should be, as
// far as is known, in their order.
func Names(records []fleet.Record, seen map[string]Lookup) []NameChange {
	var out []NameChange
	for _, r := range records {
		l := seen[r.Name]
		if l.Problem == "" && same(r.Addrs, l.Addrs) {
			continue
		}
		out = append(out, NameChange{Name: r.Name, Want: r.Addrs, Have: l.Addrs, Problem: l.Problem})
	}
	return out
}

func same(a, b []netip.Addr) bool {
	sorted := func(addrs []netip.Addr) []netip.Addr {
		return slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
	}
	return slices.Equal(sorted(a), slices.Compact(sorted(b)))
}

// names draws what is to be set at the DNS provider.
func (t *tree) names() {
	if len(t.p.Names) == 0 {
		return
	}
	t.line("")
	t.line(t.c.Strong("Public DNS, to be set where your domain is served:"))
	for _, n := range t.p.Names {
		now := "leads nowhere yet"
		switch {
		case n.Problem != "":
			now = "not known: " + n.Problem
		case len(n.Have) > 0:
			now = "now " + listed(n.Have)
		}
		var v4, v6 []netip.Addr
		for _, a := range n.Want {
			if a.Is4() {
				v4 = append(v4, a)
			} else {
				v6 = append(v6, a)
			}
		}
		for i, rr := range []struct {
			kind  string
			addrs []netip.Addr
		}{{"A", v4}, {"AAAA", v6}} {
			if len(rr.addrs) == 0 {
				continue
			}
			line := "  " + n.Name + "  " + rr.kind + " " + listed(rr.addrs)
			if i == 0 || len(v4) == 0 {
				line += "  " + t.c.Dim("("+now+")")
			}
			t.line(line)
		}
	}
}

func listed(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, " ")
}
