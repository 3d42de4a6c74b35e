package cli

import (
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Named are the nodes that the user named. The error is the first that the file
// has not.
func Named[S ~string](f *fleet.Fleet, names ...S) ([]fleet.NodeName, error) {
	out := make([]fleet.NodeName, 0, len(names))
	for _, name := range names {
		if _, ok := f.Node(fleet.NodeName(name)); !ok {
			return nil, hint.New("there is no node "+string(name)+" in the file", "moggy status lists them")
		}
		out = append(out, fleet.NodeName(name))
	}
	return out, nil
}
