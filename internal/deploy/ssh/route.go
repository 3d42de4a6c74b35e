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
	Hub   fleet.NodeName // the hub in between; "" for none
	Jump  string         // alias of the way to the hub
}

// Routes lists the ways to every node, best first: straight, to what the file
// says or to each public address; then over the mesh through each hub in turn.
func Routes(f *fleet.Fleet, l *fleet.Lock) map[fleet.NodeName][]Route {
	hubs := hubsOf(f, l)
	locks := make(map[fleet.NodeName]fleet.NodeLock, len(l.Nodes))
	for _, n := range l.Nodes {
		locks[n.Name] = n
	}
	out := make(map[fleet.NodeName][]Route, len(f.Nodes))
	for _, n := range f.Nodes {
		rs := straight(n)
		if mesh := locks[n.Name]; !mesh.MeshKey.IsZero() {
			for _, h := range hubs {
				if h != n.Name {
					rs = append(rs, over(n, mesh.V4, h))
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
func over(n fleet.Node, mesh netip.Addr, hub fleet.NodeName) Route {
	return Route{
		Alias: string(n.Name) + "+" + string(hub), Node: n.Name,
		User: n.SSH.User, Host: mesh.String(), Port: n.SSH.Port, Hub: hub, Jump: string(hub),
	}
}

// maxHubs bounds how many hubs are tried as a way to one node.
const maxHubs = 5

// hubsOf are the hubs that the operator reaches without help and that are on
// the mesh.
func hubsOf(f *fleet.Fleet, l *fleet.Lock) []fleet.NodeName {
	roles := f.Roles()
	var out []fleet.NodeName
	for _, n := range f.Nodes {
		if roles[n.Name].Hub && n.Reachable() && len(out) < maxHubs && !l.Node(n.Name).MeshKey.IsZero() {
			out = append(out, n.Name)
		}
	}
	return out
}
