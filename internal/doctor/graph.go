package doctor

import (
	"cmp"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Graph lists the probes of the named nodes, or of all where none is named, in
// the order in which a failure counts as the cause: what is nearer to the
// operator first. Hubs that lead to a named node are probed as far as that
// takes.
func Graph(f *fleet.Fleet, l *fleet.Lock, names []fleet.NodeName) []Probe {
	g := grapher{hubs: waysThrough(f, l), have: make(map[ID]bool)}
	g.operator()
	all := len(names) == 0
	named := func(n fleet.NodeName) bool { return all || slices.Contains(names, n) }
	for _, n := range f.Nodes {
		if named(n.Name) {
			g.reach(n, ID{})
			g.inside(n.Name)
		}
	}
	var instead ID // of one node alone, the others are asked only if it cannot be reached without
	if n, _ := f.Node(slices.Concat(names, []fleet.NodeName{""})[0]); len(names) == 1 && n.Reachable() {
		instead = ID{n.Name, TCP}
	}
	for _, n := range f.Nodes {
		if !named(n.Name) && slices.Contains(g.hubs, n.Name) {
			g.reach(n, instead)
		}
	}
	if all {
		g.fleetWide(f)
	} else {
		answers := each(names, Moggy)
		g.add(Probe{ID: ID{"", YourClock}, Any: answers, After: answers})
	}
	g.sort(f)
	return g.probes
}

// sort orders by what is looked at, then by the file.
func (g *grapher) sort(f *fleet.Fleet) {
	place := make(map[fleet.NodeName]int, len(f.Nodes))
	for i, n := range f.Nodes {
		place[n.Name] = i
	}
	slices.SortStableFunc(g.probes, func(a, b Probe) int {
		return cmp.Or(rank(a.ID.Name)-rank(b.ID.Name), place[a.ID.Node]-place[b.ID.Node])
	})
}

// chain are the names in the order of the graph; ways through hubs stand where
// TCP does, after it.
func chain() []Name {
	return []Name{
		Client, Files, Config, Keys, Network, YourClock, Member, Resolve, TCP, viaPrefix, HostKey, Login, Root, Systemd, Moggy,
		Clock, Kernel, Disk, Memory, Generation, Drift, Ports, Agent, Mesh, AllHubs, Hubs, Units, Quorum, Pairs, Versions,
	}
}

func rank(n Name) int {
	if strings.HasPrefix(string(n), viaPrefix) {
		n = viaPrefix
	}
	return slices.Index(chain(), n)
}

// waysThrough are the hubs that an operator goes through to a node: reachable without
// help, and on the mesh.
func waysThrough(f *fleet.Fleet, l *fleet.Lock) []fleet.NodeName {
	roles := f.Roles()
	var out []fleet.NodeName
	for _, n := range f.Nodes {
		if roles[n.Name].Hub && n.Reachable() && !l.Node(n.Name).MeshKey.IsZero() && len(out) < maxWays {
			out = append(out, n.Name)
		}
	}
	return out
}

// maxWays is as many hubs as ssh tries on the way to one node.
const maxWays = 5

type grapher struct {
	hubs   []fleet.NodeName
	probes []Probe
	have   map[ID]bool
}

func (g *grapher) add(p Probe) {
	if !g.have[p.ID] {
		g.have[p.ID] = true
		g.probes = append(g.probes, p)
	}
}

func (g *grapher) operator() {
	own := func(n Name, needs ...ID) { g.add(Probe{ID: ID{"", n}, Needs: needs}) }
	own(Client)
	own(Files)
	own(Config, ID{"", Files})
	own(Keys, ID{"", Client}, ID{"", Config})
	own(Network, ID{"", Files})
}

// reach are the probes from here to a shell on the node; unneeded where the
// one named instead passes.
func (g *grapher) reach(n fleet.Node, instead ID) {
	at := func(name Name) ID { return ID{n.Name, name} }
	g.add(Probe{ID: at(Member), Needs: []ID{{"", Files}}, Instead: instead})
	var ways []ID
	if n.Reachable() {
		g.add(Probe{ID: at(Resolve), Needs: []ID{{"", Client}, {"", Config}, {"", Network}}, Instead: instead})
		g.add(Probe{ID: at(TCP), Needs: []ID{at(Resolve)}})
		ways = append(ways, at(TCP))
	}
	for _, h := range g.hubs {
		if h == n.Name {
			continue
		}
		p := Probe{ID: at(Via(h)), Needs: []ID{at(Member), {h, Login}}, Hub: h}
		if n.Reachable() {
			p.Instead = at(TCP)
		}
		g.add(p)
		ways = append(ways, p.ID)
	}
	if len(ways) == 0 {
		g.add(Probe{ID: at(TCP), Needs: []ID{at(Member)}})
		ways = append(ways, at(TCP))
	}
	g.add(Probe{ID: at(HostKey), Needs: []ID{{"", Client}, {"", Config}, at(Member)}, Any: ways})
	g.add(Probe{ID: at(Login), Needs: []ID{at(HostKey)}, After: []ID{{"", Keys}}})
	g.add(Probe{ID: at(Root), Needs: []ID{at(Login)}})
	g.add(Probe{ID: at(Systemd), Needs: []ID{at(Root)}})
	g.add(Probe{ID: at(Moggy), Needs: []ID{at(Systemd)}})
}

// inside are the probes of what the node says of itself.
func (g *grapher) inside(n fleet.NodeName) {
	at := func(name Name) ID { return ID{n, name} }
	add := func(name Name, needs ...Name) {
		p := Probe{ID: at(name)}
		for _, need := range needs {
			p.Needs = append(p.Needs, at(need))
		}
		if name == Clock {
			p.After = []ID{{"", YourClock}}
		}
		g.add(p)
	}
	add(Clock, Moggy)
	add(Kernel, Moggy)
	add(Disk, Moggy)
	add(Memory, Moggy)
	add(Generation, Moggy)
	add(Drift, Generation)
	add(Ports, Moggy)
	add(Units, Generation)
	add(Agent, Kernel, Ports, Generation)
	add(Mesh, Agent)
	g.add(Probe{ID: at(Hubs), Needs: []ID{at(Mesh)}, After: []ID{{"", AllHubs}}})
}

// fleetWide are the probes of what only all answers together say.
func (g *grapher) fleetWide(f *fleet.Fleet) {
	if len(f.Nodes) == 0 {
		return
	}
	names := make([]fleet.NodeName, 0, len(f.Nodes))
	for _, n := range f.Nodes {
		names = append(names, n.Name)
	}
	answers, meshes := each(names, Moggy), each(names, Mesh)
	g.add(Probe{ID: ID{"", YourClock}, Any: answers, After: answers})
	for _, name := range []Name{AllHubs, Quorum, Pairs, Versions} {
		g.add(Probe{ID: ID{"", name}, Any: answers, After: meshes})
	}
}

func each(names []fleet.NodeName, name Name) []ID {
	out := make([]ID, len(names))
	for i, n := range names {
		out[i] = ID{n, name}
	}
	return out
}
