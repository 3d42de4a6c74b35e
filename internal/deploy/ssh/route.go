package ssh

import (
	"fmt"
	"net/netip"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Route is one way to a node: an entry of the configuration that ssh is given.
type Route struct {
	Alias string // what ssh is told to connect to
	Node  fleet.NodeName
	User  string
	Host  string
	Port  uint16         // 0: the user's own choice, else 22
	Jump  string         // alias of the route to the hub in between; "" for none
	Hub   fleet.NodeName // that hub
}

// Routes lists the ways to every node, best first: straight, to what the file
// says or to each public address; then over the mesh through each hub in turn.
func Routes(f *fleet.Fleet, l *fleet.Lock) map[fleet.NodeName][]Route {
	jumps := jumpsOf(f, l)
	locks := make(map[fleet.NodeName]fleet.NodeLock, len(l.Nodes))
	for _, n := range l.Nodes {
		locks[n.Name] = n
	}
	out := make(map[fleet.NodeName][]Route, len(f.Nodes))
	for _, n := range f.Nodes {
		rs := straight(n)
		if mesh := locks[n.Name]; !mesh.MeshKey.IsZero() {
			for _, j := range jumps {
				if j.Node != n.Name {
					rs = append(rs, over(n, mesh.V4, j))
				}
			}
		}
		out[n.Name] = rs
	}
	return out
}

// straight are the ways without a hub. Aliases have no colon, which would
// begin a port where they are jumped through.
func straight(n fleet.Node) []Route {
	var out []Route
	add := func(host string) {
		alias := string(n.Name)
		if len(out) > 0 {
			alias += fmt.Sprintf("+%d", len(out)+1)
		}
		out = append(out, Route{Alias: alias, Node: n.Name, User: n.SSH.User, Host: host, Port: n.SSH.Port})
	}
	if n.SSH.Host != "" {
		add(n.SSH.Host)
	}
	for _, a := range n.Public {
		if a.String() != n.SSH.Host {
			add(a.String())
		}
	}
	return out
}

// over is the route through a hub. sshd listens on the mesh as on any address,
// at the port the file names.
func over(n fleet.Node, mesh netip.Addr, jump Route) Route {
	return Route{
		Alias: string(n.Name) + "+" + jump.Alias, Node: n.Name,
		User: n.SSH.User, Host: mesh.String(), Port: n.SSH.Port, Jump: jump.Alias, Hub: jump.Node,
	}
}

// maxHubs bounds how many hubs are tried as a way to one node.
const maxHubs = 5

// jumpsOf are the ways to the hubs that the operator reaches without help and
// that are on the mesh: the first way to each, then the second to each, so
// that another hub is tried before another address of the same.
func jumpsOf(f *fleet.Fleet, l *fleet.Lock) []Route {
	roles := f.Roles()
	var ways [][]Route
	for _, n := range f.Nodes {
		if roles[n.Name].Hub && n.Reachable() && len(ways) < maxHubs && !l.Node(n.Name).MeshKey.IsZero() {
			ways = append(ways, straight(n))
		}
	}
	var out []Route
	for round := 0; ; round++ {
		some := false
		for _, w := range ways {
			if round < len(w) {
				out = append(out, w[round])
				some = true
			}
		}
		if !some {
			return out
		}
	}
}
