package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// agentUnit is the systemd unit of the mesh's agent.
const agentUnit = "moggy-agent.service"

// freshEcho is how long ago a peer that was just probed may have answered last.
// The agent probes for a second, several times.
const freshEcho = 2 * time.Second

func (f *Fleet) ports(a Answer) Result {
	if a.MeshPort != 0 && a.MeshPort != f.Fleet.Port {
		return fail("moggy apply", fmt.Sprintf("its agent uses UDP port %d, the file says %d", a.MeshPort, f.Fleet.Port))
	}
	ours := false
	for _, p := range a.Ports {
		if p.Protocol != "udp" || p.Number != f.Fleet.Port {
			continue
		}
		if p.Owner != agentUnit {
			owner := cmp.Or(p.Owner, "another program")
			return fail(fmt.Sprintf("stop %s there, or name another port in the file: port = ...", owner),
				fmt.Sprintf("UDP port %d, the mesh's, is held by %s", p.Number, owner))
		}
		ours = true
	}
	switch {
	case a.Unknown["ports"] != "":
		return warn("", "not known: "+a.Unknown["ports"])
	case !ours:
		return pass(fmt.Sprintf("UDP port %d is free", f.Fleet.Port))
	}
	return pass(fmt.Sprintf("UDP port %d is its agent's%s", f.Fleet.Port, sshPorts(a.Ports)))
}

func sshPorts(ports []fleet.Port) string {
	var out strings.Builder
	for _, p := range ports {
		if p.Protocol == "tcp" {
			fmt.Fprintf(&out, ", TCP %d is sshd's", p.Number)
		}
	}
	return out.String()
}

func unitOf(a Answer, name string) (fleet.UnitState, bool) {
	i := slices.IndexFunc(a.Observed.Units, func(u fleet.UnitState) bool { return u.Name == name })
	if i < 0 {
		return fleet.UnitState{}, false
	}
	return a.Observed.Units[i], true
}

func logOf(a Answer, unit string) []string {
	for _, l := range a.Logs {
		if l.Unit == unit {
			return l.Lines
		}
	}
	return nil
}

func agent(name fleet.NodeName, a Answer) Result {
	u, known := unitOf(a, agentUnit)
	look := sshTo(name, "journalctl", "-u", "moggy-agent", "-n", "50")
	var res Result
	switch {
	case known && u.Active == "inactive":
		res = fail(sshTo(name, "systemctl", "restart", "moggy-agent"), agentUnit+" is stopped")
	case known && u.Active != "active" && u.Active != "reloading":
		res = fail(look, fmt.Sprintf("%s is %s (%s), after %d restarts", agentUnit, u.Active, u.Sub, u.Restarts))
	case a.Observed.Mesh == nil:
		res = fail(look, "does not answer, though its unit runs")
	case u.Restarts >= restartsMany:
		res = warn(look, fmt.Sprintf("answers, but was restarted %d times", u.Restarts))
	default:
		return pass("moggy " + a.Observed.Mesh.Agent + " answers")
	}
	res.Details = logOf(a, agentUnit)
	return res
}

func units(name fleet.NodeName, a Answer) Result {
	if len(a.Observed.Units) == 0 {
		return pass("it has none of ours")
	}
	var restless Result
	for _, u := range a.Observed.Units {
		if u.Name == agentUnit {
			continue
		}
		look := sshTo(name, "journalctl", "-u", u.Name, "-n", "50")
		if u.Active != "active" && u.Active != "reloading" && u.Sub != "exited" && (u.Active != "inactive" || !u.Since.IsZero()) {
			res := fail(look, fmt.Sprintf("%s is %s (%s)", u.Name, u.Active, u.Sub))
			res.Details = logOf(a, u.Name)
			return res
		}
		if u.Restarts >= restartsMany && restless.Status == "" {
			restless = warn(look, fmt.Sprintf("%s was restarted %d times", u.Name, u.Restarts))
		}
	}
	if restless.Status != "" {
		return restless
	}
	return pass(fmt.Sprintf("all %d run", len(a.Observed.Units)))
}

// members are the nodes that every agent must know.
func (f *Fleet) members() []fleet.NodeLock {
	if f.roster != nil {
		return f.roster
	}
	listed := make(map[fleet.NodeName]bool, len(f.Fleet.Nodes))
	for _, n := range f.Fleet.Nodes {
		listed[n.Name] = true
	}
	f.roster = []fleet.NodeLock{}
	for _, l := range f.Lock.Nodes {
		if listed[l.Name] && !l.MeshKey.IsZero() {
			f.roster = append(f.roster, l)
		}
	}
	return f.roster
}

func (f *Fleet) mesh(name fleet.NodeName, m *fleet.MeshStatus) Result {
	knows := make(map[fleet.NodeName]bool)
	for _, p := range m.Peers {
		knows[p.Name] = true
	}
	var missing []fleet.NodeName
	for _, l := range f.members() {
		switch {
		case l.Name == name && m.Key != l.MeshKey && (m.Key.IsZero() || m.Key != l.OldKey):
			return fail(fmt.Sprintf("if it was reinstalled: moggy token %s --replace; then moggy apply", name),
				"its key is not the one in fleet.lock.hcl: the others do not know it")
		case l.Name != name && !knows[l.Name]:
			missing = append(missing, l.Name)
		}
		delete(knows, l.Name)
	}
	switch {
	case len(missing) > 0:
		return fail("moggy apply", "its agent does not know "+list(missing))
	case len(knows) > 0:
		return warn("moggy apply", "its agent still knows "+list(slices.Sorted(maps.Keys(knows))))
	}
	return pass(fmt.Sprintf("its agent knows all %d others", len(m.Peers)))
}

// views are the paths that work now, as both ends tell it.
type views struct {
	of    int                                    // answers that it was made from
	from  map[fleet.NodeName]bool                // those that told
	paths map[[2]fleet.NodeName]fleet.PeerStatus // from the first to the second
	ends  map[fleet.NodeName]int                 // paths from or to a node
}

func (f *Fleet) views() *views {
	if f.known != nil && f.known.of == len(f.Answers) {
		return f.known
	}
	v := &views{
		of: len(f.Answers), from: make(map[fleet.NodeName]bool),
		paths: make(map[[2]fleet.NodeName]fleet.PeerStatus), ends: make(map[fleet.NodeName]int),
	}
	for name, a := range f.Answers {
		if a.Observed == nil || a.Observed.Mesh == nil {
			continue
		}
		v.from[name] = true
		stale := make(map[fleet.NodeName]bool)
		for _, e := range a.Echoes {
			stale[e.Peer] = e.Ms < 0 || time.Duration(e.Ms)*time.Millisecond > freshEcho
		}
		for _, p := range a.Observed.Mesh.Peers {
			if p.Path != fleet.PathNone && !stale[p.Name] {
				v.paths[[2]fleet.NodeName{name, p.Name}] = p
				v.ends[name]++
				v.ends[p.Name]++
			}
		}
	}
	f.known = v
	return v
}

// reaches says whether a has a path to b that works now, and which.
func (f *Fleet) reaches(a, b fleet.NodeName) (fleet.PeerStatus, bool) {
	p, ok := f.views().paths[[2]fleet.NodeName{a, b}]
	return p, ok
}

// reachedBy are the nodes that have a path to this one, sorted.
func (f *Fleet) reachedBy(name fleet.NodeName) []fleet.NodeName {
	var out []fleet.NodeName
	for from := range f.views().from {
		if _, ok := f.reaches(from, name); ok {
			out = append(out, from)
		}
	}
	slices.Sort(out)
	return out
}

// hubNames are the hubs that are on the mesh.
func (f *Fleet) hubNames() []fleet.NodeName {
	if f.relays != nil {
		return f.relays
	}
	roles := f.Fleet.Roles()
	f.relays = []fleet.NodeName{}
	for _, n := range f.Fleet.Nodes {
		if roles[n.Name].Hub && !f.Lock.Node(n.Name).MeshKey.IsZero() {
			f.relays = append(f.relays, n.Name)
		}
	}
	return f.relays
}

func (f *Fleet) hubs(name fleet.NodeName) Result {
	var seen []string
	var lost, down []fleet.NodeName
	for _, h := range f.hubNames() {
		if h == name {
			continue
		}
		switch p, ok := f.reaches(name, h); {
		case ok:
			seen = append(seen, pathText(p))
		case f.down(h):
			down = append(down, h)
		default:
			lost = append(lost, h)
		}
	}
	next := fmt.Sprintf("is UDP port %d open? %s, and the firewalls in front of both", f.Fleet.Port, sshTo(name, "nft", "list", "ruleset"))
	switch {
	case len(lost) > 0 && len(seen) == 0:
		return fail(next, "none answers it on the mesh: "+list(lost))
	case len(lost) > 0:
		return warn(next, "no answer from "+list(lost)+"; reached: "+list(seen))
	case len(seen) == 0 && len(down) > 0:
		return warn("", "every other hub is down")
	case len(seen) == 0:
		return pass("there is no other hub")
	}
	return pass(list(seen))
}

func pathText(p fleet.PeerStatus) string {
	how := map[fleet.PathKind]string{fleet.PathDirectV6: "IPv6", fleet.PathDirectV4: "IPv4"}[p.Path]
	if p.Path == fleet.PathRelayed {
		how = "relayed by " + string(p.Via)
	}
	return fmt.Sprintf("%s %.1f ms (%s)", p.Name, float64(p.RTTMicro)/1000, how)
}

// down says whether a hub cannot be expected to answer: what it needs for that
// failed, or nobody reaches it.
func (f *Fleet) down(hub fleet.NodeName) bool {
	s := f.Results(ID{hub, Agent}).Status
	return s == Failed || s == Skipped || f.island(hub)
}

// island says whether of several nodes that reach each other none reaches this
// one, nor it any of them.
func (f *Fleet) island(name fleet.NodeName) bool {
	v := f.views()
	others := len(v.from)
	if v.from[name] {
		others--
	}
	return others >= 2 && len(v.paths) > 0 && v.ends[name] == 0
}
