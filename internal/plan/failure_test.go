package plan

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

func TestAnalyse(t *testing.T) {
	without := func(f *fleet.Fleet, names ...fleet.NodeName) *fleet.Fleet {
		var keep []fleet.Node
		for _, n := range f.Nodes {
			gone := false
			for _, name := range names {
				gone = gone || n.Name == name
			}
			if !gone {
				keep = append(keep, n)
			}
		}
		f.Nodes = keep
		return f
	}
	yes := true
	quorumAtHome := cats()
	quorumAtHome.Nodes[3].Server = &yes
	noV4Hub := without(cats(), "maco", "miki")
	noV4Hub.Nodes[0].Public = noV4Hub.Nodes[0].Public[1:]
	noV4Hub.Nodes[0].Hub = &yes
	tests := map[string]*fleet.Fleet{
		"cats":                            cats(),
		"the fix proposed for cats fixes": quorumAtHome,
		"one hub":                         without(cats(), "maco", "miki"),
		"two hubs":                        without(cats(), "maco"),
		"a hub that one home cannot call": noV4Hub,
		"one machine":                     without(cats(), "maco", "miki", "ari", "ziggy", "bianco"),
		"nothing public":                  without(cats(), "cosmo", "maco", "miki"),
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			p := &Plan{Failures: Analyse(f), Nodes: make([]NodePlan, len(f.Nodes))}
			tr := &tree{p: p, c: term.NewPalette(false)}
			tr.failures()
			golden(t, filepath.Join("testdata", "failure", strings.ReplaceAll(name, " ", "-")+".txt"), tr.b.String())
		})
	}
}
