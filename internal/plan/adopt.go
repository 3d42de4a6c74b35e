package plan

import (
	"fmt"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Adopt takes into the lock the nodes that joined by token, as the hubs report
// them. It returns their names, sorted as the lock is. Hubs that disagree
// about a node's key are an error: two machines used one token.
func Adopt(f *fleet.Fleet, l *fleet.Lock, reports map[fleet.NodeName][]fleet.Joined) ([]fleet.NodeName, error) {
	first := make(map[fleet.NodeName]fleet.Joined)
	var names []fleet.NodeName
	for _, hub := range sortedNames(reports) {
		for _, j := range reports[hub] {
			have, known := first[j.Node]
			if known && (have.Key != j.Key || have.HostKey != j.HostKey) {
				return nil, hint.Wrap(
					fmt.Errorf("node %s: two machines joined with its token, one with key %s, one with %s", j.Node, have.Key, j.Key),
					"one of them is not yours: moggy token %s, and join again from the right one", j.Node)
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
		entry.MeshKey, entry.Generation = j.Key, 0
		entry.HostKeys = nil
		if j.HostKey != "" {
			entry.HostKeys = []string{j.HostKey}
		}
		l.Put(entry)
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names, nil
}

func sortedNames[V any](m map[fleet.NodeName]V) []fleet.NodeName {
	names := make([]fleet.NodeName, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
