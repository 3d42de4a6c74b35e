package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Rules are the fleet's, from which each node's are rendered. What many nodes
// have in common is written once.
//
// A packet that comes by the mesh takes this way through a node's table; the
// verdict of other tables, the user's or Docker's, stands beside ours:
//
//	hook input ───┐ by the mesh
//	hook forward ─┴─────────────▶ arrived ─▶ answers, errors: pass
//	                                 │
//	                                 ├─ for this node's own address ─▶ asked ─▶ ping, ssh from hubs, what is allowed: pass
//	                                 │ else                              │ else
//	                                 ▼                                   │
//	                              refused ◀──────────────────────────────┘
//	                                 ▲
//	hook input ───┐                                                  │
//	hook forward ─┴──────────────▶ outside: the port of a service ───┘
//	             by anything else
//
// A service is the mesh's: a program that listens on all addresses of a rented
// machine does not stand open to the internet for that.
//
// Refused is answered: all on the mesh are known to each other, and a wrong rule
// shows at once and does not look like a machine that is down.
//
// What was asked for is the address and port that the client dialled, before
// anything on this node translated them: so a port that Docker publishes is
// judged as itself, wherever its container is.
type Rules struct {
	hubs   set
	entry  set // the ingress nodes
	allows []allow
	locks  map[fleet.NodeName]fleet.NodeLock
	about  map[fleet.NodeName][]int  // the allows that lead to a node, in order
	doors  map[fleet.NodeName][]door // of services on a node
	// votes are the servers of Nomad, which every node must reach: by certificates
	// and a shared key Nomad judges itself who may what.
	votes map[fleet.NodeName]bool
}

// door is the TCP port of a service's instance.
type door struct {
	port    uint16
	exposed bool // the ingress nodes lead others to it
}

// allow is one allow block, ready to be written.
type allow struct {
	name  fleet.AllowName
	all   bool // from every node
	from  set
	ports []match
}

// set is a pair of nftables sets, one for each family.
type set struct{ name, text string }

// match is a protocol and what its ports are, as nft writes them.
type match struct {
	protocol fleet.Protocol
	ports    string
}

// rules are those of one node.
type rules struct {
	text []byte
	mark string // the chain that only these have
}

// New prepares the fleet's rules.
func New(f *fleet.Fleet, l *fleet.Lock) *Rules {
	r := &Rules{about: make(map[fleet.NodeName][]int), doors: make(map[fleet.NodeName][]door), votes: make(map[fleet.NodeName]bool)}
	for _, s := range f.Services {
		if s.Port == 0 {
			continue
		}
		for _, n := range f.Hosts(s) {
			r.doors[n] = append(r.doors[n], door{s.Port, len(s.Expose) > 0})
		}
	}
	if len(f.Allows) == 0 {
		return r
	}
	r.locks = make(map[fleet.NodeName]fleet.NodeLock, len(l.Nodes))
	for _, n := range l.Nodes {
		r.locks[n.Name] = n
	}
	roles := f.Roles()
	var hubs, entry []fleet.Node
	for _, n := range f.Nodes {
		if roles[n.Name].Hub {
			hubs = append(hubs, n)
		}
		if roles[n.Name].Ingress {
			entry = append(entry, n)
		}
		if f.Scheduler == fleet.Nomad && roles[n.Name].Server {
			r.votes[n.Name] = true
		}
	}
	r.hubs, r.entry = r.set("hubs", hubs), r.set("ingress", entry)
	for i, a := range f.Allows {
		// With a suffix no name is one of nft's own words, nor that of the hubs' set.
		out := allow{name: a.Name, all: len(a.From) == 0, from: r.set(string(a.Name)+"-from", f.Members(a.From)), ports: matches(a.Ports)}
		r.allows = append(r.allows, out)
		for _, n := range f.Members(a.To) {
			r.about[n.Name] = append(r.about[n.Name], i)
		}
	}
	return r
}

// set writes the mesh addresses of nodes as a set for each family.
func (r *Rules) set(name string, nodes []fleet.Node) set {
	var v4, v6 []netip.Addr
	for _, n := range nodes {
		have := r.locks[n.Name]
		if have.V4.IsValid() {
			v4 = append(v4, have.V4)
		}
		if have.V6.IsValid() {
			v6 = append(v6, have.V6)
		}
	}
	var b strings.Builder
	for _, family := range []struct {
		suffix, kind string
		addrs        []netip.Addr
	}{{"v4", "ipv4_addr", v4}, {"v6", "ipv6_addr", v6}} {
		slices.SortFunc(family.addrs, netip.Addr.Compare)
		fmt.Fprintf(&b, "\tset %s-%s {\n\t\ttype %s\n", name, family.suffix, family.kind)
		for i, a := range slices.Compact(family.addrs) {
			lead := ",\n\t\t\t"
			if i == 0 {
				lead = "\t\telements = {\n\t\t\t"
			}
			b.WriteString(lead + a.String())
		}
		if len(family.addrs) > 0 {
			b.WriteString("\n\t\t}\n")
		}
		b.WriteString("\t}\n")
	}
	return set{name, b.String()}
}

// matches writes ports as nft wants them: by protocol, in order, none in two
// ranges.
func matches(ports []fleet.Ports) []match {
	var out []match
	for _, protocol := range []fleet.Protocol{fleet.TCP, fleet.UDP} {
		var ranges []fleet.Ports
		for _, p := range ports {
			if p.Protocol == protocol {
				ranges = append(ranges, p)
			}
		}
		slices.SortFunc(ranges, func(a, b fleet.Ports) int { return int(a.First) - int(b.First) })
		var merged []fleet.Ports
		for _, p := range ranges {
			if last := len(merged) - 1; last >= 0 && int(p.First) <= int(merged[last].Last)+1 {
				merged[last].Last = max(merged[last].Last, p.Last)
				continue
			}
			merged = append(merged, p)
		}
		var words []string
		for _, p := range merged {
			word := fmt.Sprint(p.First)
			if p.Last > p.First {
				word = fmt.Sprintf("%d-%d", p.First, p.Last)
			}
			words = append(words, word)
		}
		if len(words) > 0 {
			out = append(out, match{protocol, "{ " + strings.Join(words, ", ") + " }"})
		}
	}
	return out
}

const head = `# Written by moggy; a change made here is shown as drift and taken back.
# Who may reach this node over the mesh. One transaction, that replaces our table
# and touches no other.
table inet ` + Table + ` {
}
delete table inet ` + Table + `
table inet ` + Table + ` {
`

// hooks judge what comes by the mesh, and nothing else. The policy accepts: what
// other tables refuse stays refused.
const hooks = `	chain input {
		type filter hook input priority filter; policy accept;
		iifname "` + fleet.MeshInterface + `" goto arrived
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "` + fleet.MeshInterface + `" goto arrived
	}
`

const refused = `	chain refused {
		counter
		meta l4proto tcp reject with tcp reset
		reject with icmpx type admin-prohibited
	}
`

// render writes the node's rules; false where none are needed.
func (r *Rules) render(n fleet.Node) (rules, bool) {
	about, doors := r.about[n.Name], r.doors[n.Name]
	if len(about) == 0 && len(doors) == 0 {
		return rules{}, false
	}
	var b strings.Builder
	b.WriteString(head)
	if len(about) > 0 {
		r.closed(&b, n, about, doors)
	}
	if len(doors) > 0 {
		outside(&b, doors)
	}
	b.WriteString(refused)

	// A chain whose name is these rules' digest: whoever sees it knows that just
	// these are in force.
	mark := "rules-" + string(fleet.DigestOf([]byte(b.String())))[:16]
	fmt.Fprintf(&b, "\tchain %s {\n\t}\n}\n", mark)
	return rules{[]byte(b.String()), mark}, true
}

// nomadPorts are where servers sign certificates (TCP 4645), Nomad's API, its RPC,
// and its gossip, of both protocols (Nomad's documentation, "Ports used").
func nomadPorts() []fleet.Ports {
	return []fleet.Ports{{Protocol: fleet.TCP, First: 4645, Last: 4648}, {Protocol: fleet.UDP, First: 4648, Last: 4648}}
}

// portsOf are the ports of doors, as nft writes them; those that are exposed, or
// all.
func portsOf(doors []door, exposed bool) []match {
	var ports []fleet.Ports
	for _, d := range doors {
		if d.exposed || !exposed {
			ports = append(ports, fleet.Ports{Protocol: fleet.TCP, First: d.port, Last: d.port})
		}
	}
	return matches(ports)
}

// outside keeps the ports of services from whatever is not the mesh, nor the
// machine itself, nor its containers; what Docker publishes as well.
func outside(b *strings.Builder, doors []door) {
	for _, hook := range []struct{ name, hook, only string }{{"outside", "input", ""}, {"outside-forward", "forward", "ct status dnat "}} {
		fmt.Fprintf(b, `	chain %s {
		type filter hook %s priority filter; policy accept;
		iifname != { "lo", "%s", "docker0" } %smeta l4proto tcp ct direction original ct original proto-dst %s goto refused
	}
`, hook.name, hook.hook, fleet.MeshInterface, hook.only, portsOf(doors, false)[0].ports)
	}
}

// closed writes who may reach the node by the mesh.
func (r *Rules) closed(b *strings.Builder, n fleet.Node, about []int, doors []door) {
	b.WriteString(r.hubs.text)
	exposed := portsOf(doors, true)
	if len(exposed) > 0 {
		b.WriteString(r.entry.text)
	}
	for _, i := range about {
		if a := r.allows[i]; !a.all {
			b.WriteString(a.from.text)
		}
	}
	b.WriteString(hooks)

	b.WriteString("\tchain arrived {\n")
	// Only answers pass without being judged: who may no more talk to this node is
	// cut off at once.
	b.WriteString("\t\tct state established ct direction reply accept comment \"answers\"\n")
	b.WriteString("\t\tct state related accept comment \"errors about what goes on\"\n")
	// To refuse what belongs to a connection, but not just now, would end it.
	b.WriteString("\t\tct state invalid counter drop\n")
	own := r.locks[n.Name]
	if own.V4.IsValid() {
		fmt.Fprintf(b, "\t\tct original ip daddr %s goto asked\n", own.V4)
	}
	if own.V6.IsValid() {
		fmt.Fprintf(b, "\t\tct original ip6 daddr %s goto asked\n", own.V6)
	}
	b.WriteString("\t\tgoto refused\n\t}\n")

	b.WriteString("\tchain asked {\n")
	b.WriteString("\t\ticmp type echo-request accept\n")
	b.WriteString("\t\ticmpv6 type echo-request accept\n")
	ssh := match{fleet.TCP, fmt.Sprint(n.SSH.Port)}
	permit(b, r.hubs, false, []match{ssh}, "ssh: the operators' way in")
	if len(exposed) > 0 {
		permit(b, r.entry, false, exposed, "services that are exposed: from the ingress")
	}
	if r.votes[n.Name] {
		permit(b, set{}, true, matches(nomadPorts()), "Nomad: its clients and servers")
	}
	for _, i := range about {
		a := r.allows[i]
		permit(b, a.from, a.all, a.ports, "allow "+string(a.name))
	}
	b.WriteString("\t\tgoto refused\n\t}\n")
}

// permit lets the members of a set, or all, reach the ports, or all.
func permit(b *strings.Builder, from set, all bool, ports []match, comment string) {
	sources := []string{"ip saddr @" + from.name + "-v4 ", "ip6 saddr @" + from.name + "-v6 "}
	if all {
		sources = []string{""}
	}
	what := []string{""}
	if len(ports) > 0 {
		what = nil
	}
	for _, m := range ports {
		what = append(what, fmt.Sprintf("meta l4proto %s ct original proto-dst %s ", m.protocol, m.ports))
	}
	for _, source := range sources {
		for _, w := range what {
			fmt.Fprintf(b, "\t\t%s%saccept comment \"%s\"\n", source, w, comment)
		}
	}
}
