package rollout

import "github.com/moggyfleet/moggy/internal/fleet"

// State is how far a node got.
type State string

// The states in which a rollout leaves its nodes.
const (
	NotBegun    State = "not begun"   // nothing on it was touched
	Staged      State = "staged"      // the new generation is on its disk, the old one in force
	Changed     State = "changed"     // and confirmed
	WentBack    State = "went back"   // by itself, to the generation before
	Unconfirmed State = "unconfirmed" // in force, or being activated: it goes back by itself
	Stopped     State = "stopped"     // nothing was put in force
	Forgotten   State = "forgotten"
)

// Stand is where a rollout left a node.
type Stand struct {
	Node       fleet.NodeName
	State      State
	Generation int   // in force, as far as is known
	Err        error // why it stopped there, for those that failed
}

// Standing says where each node stands, in the order they were given.
func (m *Machine) Standing() []Stand {
	out := make([]Stand, 0, len(m.names))
	for _, name := range m.names {
		s := m.nodes[name]
		st := Stand{Node: name, State: NotBegun, Generation: s.From, Err: s.err}
		switch s.at {
		case idle:
		case preparing, staged, before:
			st.State = Staged
		case activating, after, soaking, confirming, returning:
			st.State, st.Generation = Unconfirmed, s.To
		case done:
			st.State, st.Generation = Changed, s.To
			if s.Work == WorkForget {
				st.State, st.Generation = Forgotten, 0
			}
		case failed:
			switch {
			case s.back:
				st.State = WentBack
			case s.switched:
				st.State, st.Generation = Unconfirmed, s.To
			default:
				st.State = Stopped
			}
		}
		out = append(out, st)
	}
	return out
}
