package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func allowKind() kind {
	return kind{
		name:       "allow",
		attributes: []string{"from", "to", "ports"},
		aliases: map[string]string{
			"source": "from", "sources": "from", "src": "from", "who": "from", "node": "to", "nodes": "to", "site": "to", "sites": "to",
			"destination": "to", "destinations": "to", "dst": "to", "port": "ports", "service": "ports", "services": "ports",
		},
		decode: (*decoder).allow,
	}
}

const (
	examplePorts = `ports = ["tcp/443", "udp/53"]`
	// maxPorts is how many ports and ranges one allow may list: who needs more
	// means a range.
	maxPorts = 100
)

// party is one of those that an allow names, with its place.
type party struct {
	fleet.Party
	at hcl.Range
}

// allow decodes who may reach whom.
func (d *decoder) allow(b *block) {
	f := d.fields(b, allowKind())
	from, sound := f.parties("from", "leave it out: every node")
	to, ok := f.parties("to", "to = [node.NAME]")
	sound = sound && ok
	if f.missing("to") {
		f.wrong(b.at, "to = [node.NAME]", "to is missing")
	}
	ports, ok := f.ports()
	sound = sound && ok
	if d.names["allow"][b.name] != b {
		return
	}
	a := fleet.Allow{Name: fleet.AllowName(b.name), From: bare(from), To: bare(to), Ports: ports}
	d.fleet.Allows = append(d.fleet.Allows, a)
	if sound && !b.broken && !d.partial {
		f.judgeAllow(a, from, to)
	}
}

func bare(parties []party) []fleet.Party {
	var out []fleet.Party
	for _, p := range parties {
		out = append(out, p.Party)
	}
	return out
}

// parties reads a list of references to sites and nodes; false where something
// is wrong with it. nobody says what to write where the list is empty.
func (f fields) parties(name, nobody string) ([]party, bool) {
	before := f.d.Len()
	var out []party
	seen := make(map[fleet.Party]bool)
	elements := f.list(name, name+" = [site.NAME, node.NAME]")
	for _, e := range elements {
		kind, to, ok := f.referenceTo(name, e, "site.NAME or node.NAME", "site", "node")
		if !ok {
			continue
		}
		p := fleet.Party{Node: fleet.NodeName(to)}
		if kind == "site" {
			p = fleet.Party{Site: fleet.SiteName(to)}
		}
		if seen[p] {
			f.wrong(e.Range(), "remove it", "%s %s is listed twice", name, refer(kind, to))
			continue
		}
		seen[p] = true
		out = append(out, party{p, e.Range()})
	}
	f.empty(name, nobody, elements)
	return out, f.d.Len() == before
}

// empty reports a list without elements.
func (f fields) empty(name, suggestion string, elements []hclsyntax.Expression) {
	a := f.b.body.Attributes[name]
	if a == nil || len(elements) > 0 {
		return
	}
	if _, is := source.Literal(a.Expr); is == source.IsList {
		f.wrong(a.Expr.Range(), suggestion, "%s is empty", name)
	}
}

// ports reads a list like ["tcp/443", "udp/5000-5010"]; false where something is
// wrong with it.
func (f fields) ports() ([]fleet.Ports, bool) {
	before := f.d.Len()
	var out []fleet.Ports
	elements := f.list("ports", examplePorts)
	for i, e := range elements {
		if i == maxPorts {
			f.wrong(e.Range(), `name ranges, as in "tcp/8000-8100"`, "more than %d ports", maxPorts)
			break
		}
		v, is := source.Literal(e)
		if is == source.IsNumber {
			f.wrong(e.Range(), fmt.Sprintf("did you mean %q?", "tcp/"+v.AsBigFloat().Text('f', -1)), "a port stands with its protocol, as a text")
			continue
		}
		it, ok := f.textOf("ports is a list of texts", e)
		if !ok {
			continue
		}
		p, why := portsOf(it.Value)
		if why != "" {
			f.wrong(it.At, betterPorts(it.Value), "%s: %s", source.Quoted(it.Value), why)
			continue
		}
		for _, other := range out {
			if p.Protocol == other.Protocol && p.First <= other.Last && other.First <= p.Last {
				f.wrong(it.At, "remove one of them", "%s overlaps %s", source.Quoted(it.Value), source.Quoted(written(other)))
				break
			}
		}
		out = append(out, p)
	}
	f.empty("ports", "leave it out: every port", elements)
	return out, f.d.Len() == before
}

// written is how fleet.hcl says these ports.
func written(p fleet.Ports) string {
	if p.First == p.Last {
		return fmt.Sprintf("%s/%d", p.Protocol, p.First)
	}
	return fmt.Sprintf("%s/%d-%d", p.Protocol, p.First, p.Last)
}

// portsOf reads protocol/port or protocol/first-last. why says what is wrong.
func portsOf(s string) (p fleet.Ports, why string) {
	protocol, numbers, ok := strings.Cut(s, "/")
	if !ok {
		return p, "no protocol/port"
	}
	p.Protocol = fleet.Protocol(protocol)
	if p.Protocol != fleet.TCP && p.Protocol != fleet.UDP {
		return p, "the protocol is tcp or udp"
	}
	first, last, span := strings.Cut(numbers, "-")
	if !span {
		last = first
	}
	if p.First, ok = port(first); ok {
		p.Last, ok = port(last)
	}
	switch {
	case !ok:
		return p, "a port is a number from 1 to 65535"
	case p.First > p.Last:
		return p, "the first port is after the last"
	}
	return p, ""
}

func port(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0 && s[0] != '0' && s[0] != '+'
}

// betterPorts is what was probably meant by wrong ports, as a suggestion.
func betterPorts(s string) string {
	s = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), ":", "/")
	head, tail, cut := strings.Cut(s, "/")
	first, last, _ := strings.Cut(tail, "-")
	for _, guess := range []string{
		s,
		"tcp/" + s,        // "443"
		tail + "/" + head, // "443/tcp"
		s + "/1-65535",    // "udp"
		head + "/" + last + "-" + first,
	} {
		p, why := portsOf(guess)
		if why == "" && (cut || guess != s) {
			return fmt.Sprintf("did you mean %q?", written(p))
		}
	}
	return fmt.Sprintf("as in %q, %q or %q", "tcp/443", "udp/53", "tcp/8000-8010")
}

// judgeAllow reports what an allow does not need or does not do.
func (f fields) judgeAllow(a fleet.Allow, from, to []party) {
	f.covered("from", from)
	f.covered("to", to)
	sources, receivers := f.d.fleet.Members(a.From), f.d.fleet.Members(a.To)
	switch {
	case len(sources) == 1 && len(receivers) == 1 && sources[0].Name == receivers[0].Name:
		f.wrong(f.at("from"), "", "it allows node %q to reach itself, which it always may", sources[0].Name)
	case len(a.Ports) > 0 || len(receivers) == 0:
	case len(a.From) == 0 || len(sources) == len(f.d.fleet.Nodes):
		f.d.Warn(f.b.at, "say which ports, or from whom", "%s: it allows every node every port: no other allow for the same nodes has an effect", f.b)
	}
}

// covered warns of a node whose site is in the list already.
func (f fields) covered(name string, list []party) {
	sites := make(map[fleet.SiteName]bool)
	nodes := make(map[fleet.NodeName]party)
	for _, p := range list {
		if p.Node == "" {
			sites[p.Site] = true
		} else {
			nodes[p.Node] = p
		}
	}
	if len(sites) == 0 || len(nodes) == 0 {
		return
	}
	for _, n := range f.d.fleet.Nodes {
		if p, named := nodes[n.Name]; named && sites[n.Site] {
			f.d.Warn(p.at, "remove it", "%s: %s has node %q already: it is at site %q", f.b, name, p.Node, n.Site)
		}
	}
}
