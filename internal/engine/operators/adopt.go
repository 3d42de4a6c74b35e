package operators

import (
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Adoption is what a hand did to a node's list of operators.
type Adoption struct {
	Added   []string // keys as they stand there, that the fleet's file does not have
	Removed []string // names of operators whose key is gone
}

// Adopt reads back what Part wrote, where somebody changed it; false where the
// path is none of ours. Lines that are no key alone, such as those with options,
// are passed over: the file cannot say them.
func Adopt(f *fleet.Fleet, d fleet.Drift) (Adoption, bool) {
	if !strings.HasPrefix(d.Path, keysDir) || d.Kind != fleet.DriftChanged {
		return Adoption{}, false
	}
	known := make(map[string]bool, len(f.Operators))
	for _, o := range f.Operators {
		known[bare(o.Key)] = true
	}
	var a Adoption
	there := make(map[string]bool)
	for line := range strings.Lines(d.Content) {
		line = strings.TrimSpace(line)
		key := bare(line)
		if key == "" || there[key] {
			continue
		}
		there[key] = true
		if !known[key] {
			a.Added = append(a.Added, line)
		}
	}
	for _, o := range f.Operators {
		if !there[bare(o.Key)] {
			a.Removed = append(a.Removed, o.Name)
		}
	}
	slices.Sort(a.Removed)
	return a, true
}

// bare is a key's type and blob, without what is said about it; "" where the
// line does not begin with a key.
func bare(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "ssh-") && !strings.HasPrefix(fields[0], "ecdsa-") && !strings.HasPrefix(fields[0], "sk-") {
		return ""
	}
	return fields[0] + " " + fields[1]
}
