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
	serving, fixed := cats(), []fleet.Party{{Node: "bianco"}}
	serving.Scheduler = fleet.Systemd
	serving.Services = []fleet.Service{
		{Name: "web", Count: 2},
		{Name: "tool", Count: 1},
		{Name: "api", Count: 1},
		{Name: "all", Count: 6},
		{Name: "pinned", Count: 1, On: fixed},
		{Name: "db", Count: 1, On: fixed, Volumes: []fleet.Volume{{Name: "data", Path: "/data"}}},
		{Name: "london", Count: 2, On: []fleet.Party{{Site: "london"}}},
		{Name: "blog", Static: "./blog"},
	}
	voting := cats()
	voting.Scheduler, voting.Services = fleet.Nomad, serving.Services
	tests := map[string]*fleet.Fleet{
		"services":                        serving,
		"services on Nomad":               voting,
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
