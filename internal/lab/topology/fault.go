package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Party is one side of a fault: a node, a site with all that is in it, or the
// operator. Exactly one field is set; none of them stands for everybody.
type Party struct {
	Node     fleet.NodeName `json:"node,omitempty"`
	Site     fleet.SiteName `json:"site,omitempty"`
	Operator bool           `json:"operator,omitempty"`
}

// String is the party's name as the user writes it.
func (p Party) String() string {
	switch {
	case p.Operator:
		return Operator
	case p.Site != "":
		return string(p.Site)
	}
	return string(p.Node)
}

// Everybody is the party of a fault that concerns all of A's traffic.
var Everybody Party //nolint:gochecknoglobals // a constant, had Go constants of struct type

// Whole is the loss of a cut, in thousandths.
const Whole = 1000

// Fault drops Loss of every thousand packets between A and B, both ways.
type Fault struct {
	A    Party `json:"a"`
	B    Party `json:"b"`
	Loss int   `json:"loss"`
}

// Same says whether two faults concern the same parties.
func (f Fault) Same(g Fault) bool {
	return f.A == g.A && f.B == g.B || f.A == g.B && f.B == g.A
}

// Touches says whether the fault has the party on one of its sides.
func (f Fault) Touches(p Party) bool { return f.A == p || f.B == p }

var (
	errWhom       = errors.New("neither a node nor a site")
	errSameParty  = errors.New("is both sides of it")
	errManyFaults = errors.New("too many faults between machines that share an address (63)")
)

// Party finds who is meant by a name: a node, else a site, else the operator.
func (n *Network) Party(name string) (Party, error) {
	for _, m := range n.Machines {
		if string(m.Node) == name {
			return Party{Node: m.Node}, nil
		}
	}
	for _, s := range n.sites {
		if string(s.Name) == name {
			return Party{Site: s.Name}, nil
		}
	}
	if name == Operator {
		return Party{Operator: true}, nil
	}
	return Party{}, fmt.Errorf("%q: %w", name, errWhom)
}

// FaultRules returns, for every router, the nftables script that makes exactly
// these faults, as [Network.Rules] does for the rest. Each fault is made where
// addresses tell its parties from everybody else: at the router of the one
// whose peer has addresses of its own. Two machines that both share an
// address, behind two NATs, are told apart by neither router; there the
// sender's router marks their packets (DSCP) and the receiver's looks for it.
func (n *Network) FaultRules(faults []Fault) (map[string]string, error) {
	w := &faultWriter{net: n, port: map[string][]string{}, bridge: map[string][]string{}, inet: map[string][]string{}, line: map[string]int{}}
	for _, f := range faults {
		if f.A == f.B {
			return nil, fmt.Errorf("%s %w", f.A, errSameParty)
		}
		if err := w.fault(f); err != nil {
			return nil, err
		}
	}
	out := map[string]string{}
	for _, s := range n.sites {
		out[Router(s.Name)] = w.script(Router(s.Name))
	}
	return out, nil
}

// faultWriter gathers rules by router.
type faultWriter struct {
	net    *Network
	port   map[string][]string // on the bridge, and between it and the router
	bridge map[string][]string // on the bridge, from port to port
	inet   map[string][]string // on what the router passes on
	line   map[string]int      // the loss of its line to the internet
	marks  int
}

func (w *faultWriter) script(router string) string {
	var b strings.Builder
	b.WriteString("table bridge faults\ndelete table bridge faults\ntable inet faults\ndelete table inet faults\n")
	chain := func(name, hook string, rules []string) {
		if len(rules) == 0 {
			return
		}
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype filter hook %s; policy accept;\n", name, hook)
		for _, r := range rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	if port, bridge := w.port[router], w.bridge[router]; len(port)+len(bridge) > 0 {
		b.WriteString("table bridge faults {\n")
		chain("up", "input priority 0", port)
		chain("across", "forward priority 0", slices.Concat(port, bridge))
		chain("down", "output priority 0", port)
		b.WriteString("}\n")
	}
	if loss := w.line[router]; len(w.inet[router]) > 0 || loss > 0 {
		b.WriteString("table inet faults {\n")
		if loss > 0 {
			chain("arriving", "prerouting priority raw", []string{"iifname \"wan\" " + drop(loss)})
			chain("leaving", "postrouting priority -100", []string{"oifname \"wan\" " + drop(loss)})
		}
		chain("between", "forward priority -10", w.inet[router])
		b.WriteString("}\n")
	}
	return b.String()
}

// drop is the statement that loses so many of a thousand packets.
func drop(loss int) string {
	if loss >= Whole {
		return "drop"
	}
	return fmt.Sprintf("numgen random mod %d < %d drop", Whole, loss)
}

func (w *faultWriter) fault(f Fault) error {
	if f.B == Everybody {
		return w.all(f)
	}
	as, bs := w.spread(f)
	for _, a := range as {
		for _, b := range bs {
			if a.router != "" && a.router == b.router {
				w.neighbours(a, b, f.Loss)
				continue
			}
			if err := w.pair(a, b, f.Loss); err != nil {
				return err
			}
		}
	}
	return nil
}

// all is a fault on everything that one party sends or is sent.
func (w *faultWriter) all(f Fault) error {
	switch {
	case f.A.Node != "":
		m, _ := w.net.Machine(f.A.Node)
		r := Router(m.Site)
		w.port[r] = append(w.port[r],
			fmt.Sprintf("iifname %q %s", m.port, drop(f.Loss)), fmt.Sprintf("oifname %q %s", m.port, drop(f.Loss)))
	case f.A.Site != "":
		w.line[Router(f.A.Site)] = f.Loss
	default:
		for _, s := range w.net.sites {
			if err := w.fault(Fault{A: f.A, B: Party{Site: s.Name}, Loss: f.Loss}); err != nil {
				return err
			}
		}
	}
	return nil
}

// side is a party as the rules see it.
type side struct {
	router string
	port   string
	inner  []netip.Addr // behind its router; nil: everybody on the LAN
	outer  []netip.Addr // as others see it
	shared bool
}

// spread makes sides of the parties. A site against a node of its own means
// that node against each of its neighbours.
func (w *faultWriter) spread(f Fault) (as, bs []side) {
	siteOf := func(p Party) fleet.SiteName {
		if m, ok := w.net.Machine(p.Node); ok {
			return m.Site
		}
		return p.Site
	}
	inside := siteOf(f.A) == siteOf(f.B)
	return w.sides(f.A, f.B, inside), w.sides(f.B, f.A, inside)
}

func (w *faultWriter) sides(p, other Party, inside bool) []side {
	switch {
	case p.Operator:
		return []side{{outer: []netip.Addr{w.net.Operator.V4, w.net.Operator.V6}}}
	case p.Node != "":
		m, _ := w.net.Machine(p.Node)
		return []side{machineSide(m)}
	}
	for _, s := range w.net.sites {
		if s.Name != p.Site {
			continue
		}
		if !inside {
			return []side{s.side()}
		}
		var each []side
		for _, m := range s.machines {
			if m.Node != other.Node {
				each = append(each, machineSide(m))
			}
		}
		return each
	}
	return nil
}

func machineSide(m Machine) side {
	s := side{router: Router(m.Site), port: m.port, outer: m.Outer, shared: m.Shared}
	for _, a := range []netip.Addr{m.V4, m.V6} {
		if a.IsValid() {
			s.inner = append(s.inner, a)
		}
	}
	return s
}

func (s site) side() side {
	out := side{router: Router(s.Name)}
	seen := map[netip.Addr]bool{}
	for _, m := range s.machines {
		for _, a := range m.Outer {
			if !seen[a] {
				seen[a] = true
				out.outer = append(out.outer, a)
			}
		}
	}
	return out
}

// neighbours is a fault between two machines of one site: on the bridge, and
// where the router passes packets from one to the other.
func (w *faultWriter) neighbours(a, b side, loss int) {
	w.bridge[a.router] = append(w.bridge[a.router],
		fmt.Sprintf("iifname %q oifname %q %s", a.port, b.port, drop(loss)),
		fmt.Sprintf("iifname %q oifname %q %s", b.port, a.port, drop(loss)))
	for _, x := range a.inner {
		for _, y := range b.inner {
			w.both(a.router, x, y, drop(loss))
		}
	}
}

// both adds the rule for packets between two addresses, either way.
func (w *faultWriter) both(router string, x, y netip.Addr, verdict string) {
	if x.Is4() != y.Is4() {
		return
	}
	w.inet[router] = append(w.inet[router],
		fmt.Sprintf("%s saddr %s %s daddr %s %s", family(x), x, family(x), y, verdict),
		fmt.Sprintf("%s saddr %s %s daddr %s %s", family(x), y, family(x), x, verdict))
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}

// pair is a fault between parties at different sites.
func (w *faultWriter) pair(a, b side, loss int) error {
	if a.router == "" || b.shared && !a.shared && b.router != "" {
		a, b = b, a
	}
	// IPv6 and unshared addresses: a's router sees a as it is and b's own.
	for _, y := range b.outer {
		if b.shared && y.Is4() {
			continue
		}
		if a.inner == nil {
			w.inet[a.router] = append(w.inet[a.router],
				fmt.Sprintf("%s daddr %s %s", family(y), y, drop(loss)),
				fmt.Sprintf("%s saddr %s %s", family(y), y, drop(loss)))
			continue
		}
		for _, x := range a.inner {
			w.both(a.router, x, y, drop(loss))
		}
	}
	if b.shared && a.shared {
		return w.marked(a, b, loss)
	}
	return nil
}

// maxMark is the largest DSCP (RFC 2474: six bits).
const maxMark = 63

// marked is a fault between two machines that are both hidden behind an
// address others use too, IPv4 only.
func (w *faultWriter) marked(a, b side, loss int) error {
	w.marks++
	if w.marks > maxMark {
		return errManyFaults
	}
	way := func(from, to side) {
		for _, x := range from.inner {
			for _, y := range to.outer {
				if x.Is4() && y.Is4() {
					w.inet[from.router] = append(w.inet[from.router],
						fmt.Sprintf("ip saddr %s ip daddr %s ip dscp set %d", x, y, w.marks))
				}
			}
		}
		for _, x := range from.outer {
			for _, y := range to.inner {
				if x.Is4() && y.Is4() {
					w.inet[to.router] = append(w.inet[to.router],
						fmt.Sprintf("ip saddr %s ip daddr %s ip dscp %d %s", x, y, w.marks, drop(loss)))
				}
			}
		}
	}
	way(a, b)
	way(b, a)
	return nil
}
