package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Report says what one failure stops: of any node, any site, any two nodes.
type Report struct {
	// Today is what does not work even with everything up.
	Today    []Stop    `json:"not_working_today,omitempty"`
	Failures []Failure `json:"failures"`
}

// LossKind says what is lost.
type LossKind string

// The kinds of loss that are looked at.
const (
	LossNode LossKind = "node"
	LossSite LossKind = "site"
	LossPair LossKind = "pair" // two nodes at once
)

// Failure is a loss and what it stops. Losses that stop the same are one
// entry; for LossPair, Lost lists the nodes of which any two are meant.
type Failure struct {
	Kind  LossKind `json:"kind"`
	Lost  []string `json:"lost"`  // names
	Stops []Stop   `json:"stops"` // empty: nothing
}

// Stop is one thing that stops, and the line of the file that would mend it.
type Stop struct {
	What string `json:"what"`
	Fix  string `json:"fix,omitempty"` // "" where the file cannot
}

// Analyse makes the report. It looks at how many of each kind there are, not
// at every pair, so that it stays near linear: a loss matters only where it
// takes the last of something, or the last that makes a majority.
func Analyse(f *fleet.Fleet) Report {
	if len(f.Nodes) == 0 {
		return Report{}
	}
	a := newAnalysis(f)
	r := Report{Today: a.stops(LossNode, nil)}
	groups := make(map[string]int)
	add := func(kind LossKind, lost []string, stops []Stop) {
		var key strings.Builder
		key.WriteString(string(kind))
		for _, s := range stops {
			key.WriteString("\x00" + s.What + "\x00" + s.Fix)
		}
		if i, ok := groups[key.String()]; ok {
			r.Failures[i].Lost = append(r.Failures[i].Lost, lost...)
			return
		}
		groups[key.String()] = len(r.Failures)
		r.Failures = append(r.Failures, Failure{kind, lost, stops})
	}
	for _, n := range a.members {
		add(LossNode, []string{string(n.node.Name)}, beyond(r.Today, a.stops(LossNode, set{n.node.Name: true})))
	}
	for _, s := range f.Sites {
		lost := a.atSite[s.Name]
		if len(lost) > 1 { // a site of one node is that node
			add(LossSite, []string{string(s.Name)}, beyond(r.Today, a.stops(LossSite, lost)))
		}
	}
	r.Failures = append(r.Failures, a.pairs(r.Today)...)
	return r
}

type set map[fleet.NodeName]bool

// member is a node with what it can do for the analysis.
type member struct {
	node  fleet.Node
	roles fleet.Roles
	reach reach
}

// reach is how a node meets the internet, per address family: whether it can
// call out, and whether it can be called.
type reach struct {
	out4, out6, in4, in6 bool
}

// calls says whether r can open a connection to s.
func (r reach) calls(s reach) bool { return r.out4 && s.in4 || r.out6 && s.in6 }

// links says whether either can call the other.
func (r reach) links(s reach) bool { return r.calls(s) || s.calls(r) }

type analysis struct {
	fleet    *fleet.Fleet
	members  []member
	byName   map[fleet.NodeName]member
	atSite   map[fleet.SiteName]set
	servers  []member
	ingress  []member
	hubs     map[reach][]fleet.NodeName // by how they are reached
	everyone map[reach][]member
	services map[fleet.NodeName][]placed // by the first node of those they are on
}

func newAnalysis(f *fleet.Fleet) *analysis {
	a := &analysis{
		fleet:    f,
		byName:   make(map[fleet.NodeName]member, len(f.Nodes)),
		atSite:   make(map[fleet.SiteName]set),
		hubs:     make(map[reach][]fleet.NodeName),
		everyone: make(map[reach][]member),
		services: placedServices(f),
	}
	sites := make(map[fleet.SiteName]fleet.Site, len(f.Sites))
	for _, s := range f.Sites {
		sites[s.Name] = s
	}
	roles := f.Roles()
	for _, n := range f.Nodes {
		m := member{n, roles[n.Name], reachOf(n, sites[n.Site])}
		a.members = append(a.members, m)
		a.byName[n.Name] = m
		if a.atSite[n.Site] == nil {
			a.atSite[n.Site] = set{}
		}
		a.atSite[n.Site][n.Name] = true
		a.everyone[m.reach] = append(a.everyone[m.reach], m)
		if m.roles.Server {
			a.servers = append(a.servers, m)
		}
		if m.roles.Ingress {
			a.ingress = append(a.ingress, m)
		}
		if m.roles.Hub {
			a.hubs[m.reach] = append(a.hubs[m.reach], n.Name)
		}
	}
	return a
}

func reachOf(n fleet.Node, s fleet.Site) reach {
	_, in4 := n.PublicV4()
	_, in6 := n.PublicV6()
	return reach{out4: in4 || s.NAT != fleet.NoNAT, out6: in6 || s.IPv6, in4: in4, in6: in6}
}

// stops is what does not work with those nodes lost.
func (a *analysis) stops(kind LossKind, lost set) []Stop {
	var out []Stop
	if len(lost) >= len(a.members) {
		return []Stop{{What: "everything: it is all there is", Fix: `another machine: node "..." { site = ... }`}}
	}
	for _, look := range []func(LossKind, set) (Stop, bool){a.stopMesh, a.stopQuorum, a.stopIngress, a.stopServices} {
		if s, ok := look(kind, lost); ok {
			out = append(out, s)
		}
	}
	return out
}

// beyond drops from stops what stops anyhow.
func beyond(anyhow, stops []Stop) []Stop {
	return slices.DeleteFunc(stops, func(s Stop) bool {
		return slices.ContainsFunc(anyhow, func(t Stop) bool { return t.What == s.What })
	})
}

// pairs looks at two nodes at once: only those that together are the last two
// of something, since one alone is reported as one.
func (a *analysis) pairs(today []Stop) []Failure {
	var out []Failure
	add := func(names []fleet.NodeName) {
		if len(names) < 2 || len(names) >= len(a.members) && len(names) == 2 {
			return
		}
		lost := set{names[0]: true, names[1]: true}
		single := slices.Concat(today, a.stops(LossNode, set{names[0]: true}), a.stops(LossNode, set{names[1]: true}))
		stops := beyond(single, a.stops(LossPair, lost))
		label := make([]string, len(names))
		for i, n := range names {
			label[i] = string(n)
		}
		same := func(f Failure) bool { return slices.Equal(f.Lost, label) }
		if len(stops) > 0 && !slices.ContainsFunc(out, same) {
			out = append(out, Failure{LossPair, label, stops})
		}
	}
	if n := len(a.servers); n == 3 || n == 4 { // two are more than a majority can spare
		add(nodeNames(a.servers))
	}
	if len(a.ingress) == 2 {
		add(nodeNames(a.ingress))
	}
	for _, can := range []func(reach) bool{
		func(r reach) bool { return r.in4 },
		func(r reach) bool { return r.in6 },
		func(r reach) bool { return r.in4 && r.in6 },
	} {
		var hubs []fleet.NodeName
		for _, m := range a.members {
			if m.roles.Hub && can(m.reach) {
				hubs = append(hubs, m.node.Name)
			}
		}
		if len(hubs) == 2 {
			add(hubs)
		}
	}
	return out
}

func nodeNames(ms []member) []fleet.NodeName {
	out := make([]fleet.NodeName, len(ms))
	for i, m := range ms {
		out[i] = m.node.Name
	}
	return out
}

// stopQuorum: a majority of the servers must be left (Raft). Without a scheduler
// that votes there is no control plane to lose.
func (a *analysis) stopQuorum(kind LossKind, lost set) (Stop, bool) {
	if a.fleet.Scheduler == fleet.Systemd {
		return Stop{}, false
	}
	left := 0
	for _, s := range a.servers {
		if !lost[s.node.Name] {
			left++
		}
	}
	total := len(a.servers)
	if total == 0 || left > total/2 {
		return Stop{}, false
	}
	what := fmt.Sprintf("the control plane (%d of %d servers left): what runs goes on, nothing can be rescheduled", left, total)
	return Stop{what, a.fixQuorum(kind)}, true
}

// fixQuorum looks for one node, else two, that made servers would keep the
// majority through every loss of that kind.
func (a *analysis) fixQuorum(kind LossKind) string {
	var candidates []int // one of each site
	tried := make(map[fleet.SiteName]bool)
	for i, m := range a.members {
		if !m.roles.Server && !tried[m.node.Site] && len(candidates) < maxFixes {
			tried[m.node.Site] = true
			candidates = append(candidates, i)
		}
	}
	line := func(i int) string { return fmt.Sprintf("node %q { server = true }", string(a.members[i].node.Name)) }
	for _, i := range candidates {
		if a.withServers(i).survives(kind) {
			return line(i)
		}
	}
	for x, i := range candidates {
		for _, j := range candidates[x+1:] {
			if a.withServers(i, j).survives(kind) {
				return line(i) + " and " + line(j)
			}
		}
	}
	return fmt.Sprintf("more machines in other places: %s, it takes %d servers", lossText(kind), 2*lossSize(kind)+1)
}

// maxFixes bounds how many nodes are tried in search of a fix.
const maxFixes = 8

func lossSize(kind LossKind) int {
	if kind == LossPair {
		return 2
	}
	return 1
}

func lossText(kind LossKind) string {
	return map[LossKind]string{LossNode: "to lose any node", LossSite: "to lose any site", LossPair: "to lose any two nodes"}[kind]
}

// withServers is the analysis of the fleet with those nodes named servers.
func (a *analysis) withServers(indexes ...int) *analysis {
	changed := *a.fleet
	changed.Nodes = slices.Clone(a.fleet.Nodes)
	yes := true
	for _, i := range indexes {
		changed.Nodes[i].Server = &yes
	}
	return newAnalysis(&changed)
}

// survives says whether a majority of servers is left after any loss of that
// kind.
func (a *analysis) survives(kind LossKind) bool {
	spare := (len(a.servers) - 1) / 2
	if kind != LossSite {
		return spare >= lossSize(kind)
	}
	at := make(map[fleet.SiteName]int)
	for _, s := range a.servers {
		at[s.node.Site]++
		if at[s.node.Site] > spare {
			return false
		}
	}
	return true
}

// stopIngress: one node that takes HTTPS must be left.
func (a *analysis) stopIngress(_ LossKind, lost set) (Stop, bool) {
	for _, m := range a.ingress {
		if !lost[m.node.Name] {
			return Stop{}, false
		}
	}
	if len(a.ingress) == 0 {
		return Stop{"nothing takes requests from the internet", `node "..." { public = ["..."] }`}, len(lost) == 0
	}
	return Stop{
		"every public website, and reaching the fleet from outside",
		`a public address elsewhere: node "..." { public = ["..."] }`,
	}, true
}

// stopMesh: every node left must find a way to every other. Nodes that are
// reached alike stand in for each other, so only the last hub of its sort
// matters.
func (a *analysis) stopMesh(_ LossKind, lost set) (Stop, bool) {
	if len(lost) > 0 && !a.lastHubs(lost) {
		return Stop{}, false
	}
	kinds := a.kindsLeft(lost)
	relays := a.relaysLeft(lost)
	var cut []string
	for i, k := range kinds {
		for _, o := range kinds[i:] {
			if k.reach.links(o.reach) || relayed(k.reach, o.reach, relays) {
				continue
			}
			if pair := apart(k.members, o.members); pair != "" {
				cut = append(cut, pair)
			}
		}
	}
	if len(cut) == 0 {
		return Stop{}, false
	}
	return Stop{
		"the mesh between " + strings.Join(cut, ", and between "),
		`another hub: node "..." { public = ["an IPv4", "an IPv6"] }`,
	}, true
}

// lastHubs says whether lost takes all hubs that are reached in some way.
func (a *analysis) lastHubs(lost set) bool {
	gone := make(map[reach]int)
	for name := range lost {
		if m := a.byName[name]; m.roles.Hub {
			gone[m.reach]++
			if gone[m.reach] == len(a.hubs[m.reach]) {
				return true
			}
		}
	}
	return false
}

type kind struct {
	reach   reach
	members []member
}

func (a *analysis) kindsLeft(lost set) []kind {
	var out []kind
	for r, ms := range a.everyone {
		left := ms
		if slices.ContainsFunc(ms, func(m member) bool { return lost[m.node.Name] }) {
			left = slices.DeleteFunc(slices.Clone(ms), func(m member) bool { return lost[m.node.Name] })
		}
		if len(left) > 0 {
			out = append(out, kind{r, left})
		}
	}
	slices.SortFunc(out, func(x, y kind) int { return cmp.Compare(x.members[0].node.Name, y.members[0].node.Name) })
	return out
}

func (a *analysis) relaysLeft(lost set) []reach {
	var out []reach
	for r, hubs := range a.hubs {
		if slices.ContainsFunc(hubs, func(n fleet.NodeName) bool { return !lost[n] }) {
			out = append(out, r)
		}
	}
	return out
}

// relayed says whether x and y meet at one hub, or at two that reach each
// other: a frame is forwarded twice at most (design, section 4).
func relayed(x, y reach, hubs []reach) bool {
	for _, h := range hubs {
		if !x.calls(h) {
			continue
		}
		for _, g := range hubs {
			if y.calls(g) && (h == g || h.links(g)) {
				return true
			}
		}
	}
	return false
}

// apart names nodes of xs and ys that are cut from each other, leaving out
// those of one site, which meet on their own network; "" if there are none.
func apart(xs, ys []member) string {
	for _, x := range xs {
		var others []string
		for _, y := range ys {
			if y.node.Site != x.node.Site {
				others = append(others, string(y.node.Name))
			}
		}
		if len(others) > 0 {
			return string(x.node.Name) + " and " + enumerate(others, 3, "and")
		}
	}
	return ""
}

// enumerate joins names, the last with the given word, at most limit of them.
func enumerate(names []string, limit int, word string) string {
	switch {
	case len(names) == 1:
		return names[0]
	case len(names) > limit:
		return fmt.Sprintf("%s %s %d more", strings.Join(names[:limit], ", "), word, len(names)-limit)
	}
	return strings.Join(names[:len(names)-1], ", ") + " " + word + " " + names[len(names)-1]
}
