package rollout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Seen is what a look at one node showed. The zero Seen is no answer.
type Seen struct {
	Mesh *fleet.MeshStatus // nil where its agent said nothing
	Well bool              // it has a generation in force, and its agent answers
}

// SeenOf takes from an observation what a rollout looks at.
func SeenOf(o *fleet.Observed) Seen {
	if o == nil {
		return Seen{}
	}
	return Seen{Mesh: o.Mesh, Well: o.Mesh != nil && o.Current.Number > 0}
}

// view is the mesh as its nodes see it.
type view map[fleet.NodeName]Seen

// house is what the file says, as far as the gates ask.
type house struct {
	members []fleet.NodeName // all of the file
	is      map[fleet.NodeName]bool
	hubs    map[fleet.NodeName]bool
	servers []fleet.NodeName
}

// pair is two nodes that would not, or do not, find each other.
type pair struct{ a, b fleet.NodeName }

// users are those whose packets go to the node or over it.
func (v view) users(node fleet.NodeName) []fleet.NodeName {
	var out []fleet.NodeName
	for name, s := range v {
		if s.Mesh == nil || name == node {
			continue
		}
		if slices.ContainsFunc(s.Mesh.Peers, func(p fleet.PeerStatus) bool {
			return p.Name == node && p.Path != fleet.PathNone || p.Via == node
		}) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// anchored says whether a node reaches a hub other than the given one, without
// its help. A hub is one itself.
func (v view) anchored(h house, name, without fleet.NodeName) bool {
	if h.hubs[name] && name != without {
		return true
	}
	s := v[name]
	return s.Mesh == nil || slices.ContainsFunc(s.Mesh.Peers, func(p fleet.PeerStatus) bool {
		return h.hubs[p.Name] && p.Name != without && p.Path != fleet.PathNone && p.Via != without
	})
}

// cut are the pairs that would lose each other without the hub: who relays
// over it, or has no other, and has nobody to turn to. A node that says
// nothing is not judged. A node alone is paired with the hub.
func (v view) cut(h house, hub fleet.NodeName) []pair {
	var out []pair
	for _, name := range v.users(hub) {
		if !h.is[name] {
			continue
		}
		mine, relays := v.anchored(h, name, hub), false
		for _, p := range v[name].Mesh.Peers {
			if p.Via != hub || p.Path != fleet.PathRelayed || !h.is[p.Name] {
				continue
			}
			relays = true
			if !mine || !v.anchored(h, p.Name, hub) {
				out = append(out, newPair(name, p.Name))
			}
		}
		if !mine && !relays {
			out = append(out, pair{name, hub})
		}
	}
	return tidy(out)
}

// lost are the pairs that had a path before the node's turn and have none now,
// by the word of everybody but the node itself: it has just begun to listen.
func lost(before, now view, h house, node fleet.NodeName) []pair {
	var out []pair
	for _, name := range before.users(node) {
		if !h.is[name] {
			continue
		}
		have := make(map[fleet.NodeName]bool)
		if s := now[name]; s.Mesh != nil {
			for _, p := range s.Mesh.Peers {
				have[p.Name] = p.Path != fleet.PathNone
			}
		}
		for _, p := range before[name].Mesh.Peers {
			if h.is[p.Name] && p.Path != fleet.PathNone && !have[p.Name] {
				out = append(out, newPair(name, p.Name))
			}
		}
	}
	return tidy(out)
}

func newPair(a, b fleet.NodeName) pair {
	if b < a {
		a, b = b, a
	}
	return pair{a, b}
}

func tidy(pairs []pair) []pair {
	slices.SortFunc(pairs, func(x, y pair) int { return strings.Compare(string(x.a+"\x00"+x.b), string(y.a+"\x00"+y.b)) })
	return slices.Compact(pairs)
}

// before says why the node's turn must wait; nil where nothing speaks against
// it.
func (v view) before(h house, n Node) error {
	if n.Hub && len(h.hubs) > 1 {
		if pairs := v.cut(h, n.Name); len(pairs) > 0 {
			down := v.down(h, n.Name)
			return allTheSame(fmt.Errorf("changing %s now would cut %s%s", n.Name, describe(pairs, n.Name), say(down, "is", "are", " down")), n.Name, down)
		}
	}
	if n.Server && len(h.servers) >= 3 {
		left, down := 0, []fleet.NodeName(nil)
		for _, s := range h.servers {
			switch {
			case s == n.Name:
			case v[s].Well:
				left++
			default:
				down = append(down, s)
			}
		}
		if need := len(h.servers)/2 + 1; left < need {
			return allTheSame(fmt.Errorf("changing %s now would leave %d of %d servers, and it takes %d%s",
				n.Name, left, len(h.servers), need, say(down, "is", "are", " down")), n.Name, down)
		}
	}
	return nil
}

// down are the other hubs that no node reaches.
func (v view) down(h house, but fleet.NodeName) []fleet.NodeName {
	var out []fleet.NodeName
	for _, hub := range h.members {
		if h.hubs[hub] && hub != but && !v[hub].Well {
			out = append(out, hub)
		}
	}
	return out
}

func allTheSame(err error, node fleet.NodeName, down []fleet.NodeName) error {
	err = hint.Wrap(err, "moggy apply --node %s changes it all the same", node)
	if len(down) > 0 {
		return hint.Wrap(err, "moggy doctor %s says what is wrong with it", down[0])
	}
	return hint.Wrap(err, "moggy status shows the paths; apply again when each node reaches two hubs")
}

// after says what the node's turn broke; nil where nothing.
func (v view) after(before view, h house, n Node) error {
	pairs := lost(before, v, h, n.Name)
	if len(pairs) == 0 {
		return nil
	}
	return hint.Wrap(fmt.Errorf("since the change, for %s, there is no path between %s", Patience, describe(pairs, "")),
		"it is not confirmed, so %s goes back by itself; moggy status shows the paths", n.Name)
}

// maxPairs bounds how many pairs an error names.
const maxPairs = 3

func describe(pairs []pair, hub fleet.NodeName) string {
	var out []string
	for i, p := range pairs {
		if i == maxPairs {
			out = append(out, fmt.Sprintf("%d more pairs", len(pairs)-i))
			break
		}
		switch {
		case hub == "":
			out = append(out, fmt.Sprintf("%s and %s", p.a, p.b))
		case p.b == hub:
			out = append(out, fmt.Sprintf("%s from everybody", p.a))
		default:
			out = append(out, fmt.Sprintf("%s from %s", p.a, p.b))
		}
	}
	return strings.Join(out, ", ")
}

func say(names []fleet.NodeName, one, several, what string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf(": %s %s%s", names[0], one, what)
	}
	s := make([]string, len(names))
	for i, n := range names {
		s[i] = string(n)
	}
	return fmt.Sprintf(": %s and %s %s%s", strings.Join(s[:len(s)-1], ", "), s[len(s)-1], several, what)
}
