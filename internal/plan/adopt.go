package plan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Adopt takes into the lock the nodes that joined by token, as the hubs report
// them, also those that took the place of a machine it knows. It returns their
// names, sorted as the lock is. Hubs that disagree about a node's key are an
// error, two machines used one token; unless it was with two tokens, when the
// later is the node.
func Adopt(f *fleet.Fleet, l *fleet.Lock, reports map[fleet.NodeName][]fleet.Joined) ([]fleet.NodeName, error) {
	first := make(map[fleet.NodeName]fleet.Joined)
	var names []fleet.NodeName
	for _, hub := range slices.Sorted(maps.Keys(reports)) {
		for _, j := range reports[hub] {
			have, known := first[j.Node]
			switch {
			case !known:
			case have.Key == j.Key && have.HostKey == j.HostKey:
				continue
			case have.Invitation == j.Invitation:
				return nil, hint.Wrap(
					fmt.Errorf("node %s: two machines joined with its token, one with key %s, one with %s", j.Node, have.Key, j.Key),
					"one of them is not yours: moggy token %s --replace, and join again from the right one", j.Node)
			case have.At > j.At:
				continue
			}
			first[j.Node] = j
		}
	}
	for _, n := range f.Nodes {
		j, joined := first[n.Name]
		entry := l.Node(n.Name)
		if !joined || entry.MeshKey == j.Key {
			continue
		}
		entry.MeshKey, entry.Generation, entry.Arch = j.Key, 0, "" // of a machine that nobody has looked at
		entry.HostKeys, entry.NextKey, entry.OldKey, entry.GoneKey = nil, fleet.Key{}, fleet.Key{}, fleet.Key{}
		if j.HostKey != "" {
			entry.HostKeys = []string{j.HostKey}
		}
		l.Put(entry)
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names, nil
}
