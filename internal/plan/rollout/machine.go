package rollout

import (
	"maps"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// ActionKind is what whoever drives the machine is asked for.
type ActionKind string

// The actions. Those that end in an event run side by side; Forget and Save are
// done at once and have none.
const (
	Prepare  ActionKind = "prepare"  // packages, then stage; ends in Prepared
	Activate ActionKind = "activate" // ends in Activated
	Look     ActionKind = "look"     // ask Nodes, nil for all, for their mesh; ends in Looked
	Watch    ActionKind = "watch"    // ask the node how it is; ends in Watched
	Confirm  ActionKind = "confirm"  // ends in Confirmed
	Await    ActionKind = "await"    // wait until the node went back; ends in Settled
	Forget   ActionKind = "forget"   // drop the node from the lock
	Save     ActionKind = "save"     // keep what was learned
)

// Action is one thing to do.
type Action struct {
	Kind       ActionKind
	Node       fleet.NodeName
	Generation int
	// Within is how long the node waits for its confirmation (Activate), or how
	// much is left of that (Confirm, Await).
	Within time.Duration
	Nodes  []fleet.NodeName
}

// EventKind is what happened.
type EventKind string

// The events.
const (
	Prepared  EventKind = "prepared"
	Activated EventKind = "activated"
	Looked    EventKind = "looked"
	Watched   EventKind = "watched"
	Confirmed EventKind = "confirmed"
	Settled   EventKind = "settled"
	Tick      EventKind = "tick"      // Wake's time has come
	Interrupt EventKind = "interrupt" // begin nothing more
)

// Event is something that happened, to Node where it is about one.
type Event struct {
	Kind EventKind
	Node fleet.NodeName
	Err  error // nil: it went well
	// WentBack is set where the node says that it returned to the generation
	// before, Unknown with Err where nobody knows what is in force there.
	WentBack, Unknown bool
	Seen              map[fleet.NodeName]Seen // of those asked, for Looked
}

// Options are what a rollout is made from.
type Options struct {
	Nodes []Node
	Soak  time.Duration // 0 for none
	// Members are all nodes of the file, Hubs and Servers those of them that are.
	Members, Hubs, Servers []fleet.NodeName
}

// Machine is a rollout under way. It belongs to one goroutine.
type Machine struct {
	house   house
	groups  []Group
	nodes   map[fleet.NodeName]*progress
	names   []fleet.NodeName
	at      int // group
	under   int // how many have begun and not ended
	view    view
	all     bool           // everybody was asked once
	looking fleet.NodeName // whose gate the look under way is for
	stopped bool           // nothing begins any more
	unsaved bool
	over    bool
}

// position is where a node is on its way; the package doc draws it.
type position int

const (
	idle position = iota
	preparing
	staged
	before
	activating
	after
	soaking
	confirming
	returning
	done
	failed
)

type progress struct {
	Node
	at        position
	soak      time.Duration
	since     time.Time // begin of before
	activated time.Time
	seen      view      // the mesh as it was before its turn
	wake      time.Time // zero: it waits for no time
	switched  bool      // it was put in force
	back      bool      // and it went back
	err       error
}

// New returns a rollout that has not begun. First contact is not its own: a
// plan is made anew after it, since it brings keys that nobody knew.
func New(o Options) *Machine {
	m := &Machine{nodes: make(map[fleet.NodeName]*progress, len(o.Nodes)), view: view{}}
	m.house = house{members: o.Members, servers: o.Servers, is: set(o.Members), hubs: set(o.Hubs)}
	m.groups = slices.DeleteFunc(Order(o.Nodes, o.Soak), func(g Group) bool { return g.Phase == PhaseContact })
	for _, n := range o.Nodes {
		if n.Work == WorkContact {
			continue
		}
		m.nodes[n.Name] = &progress{Node: n}
		m.names = append(m.names, n.Name)
	}
	for _, g := range m.groups {
		if g.Soak > 0 {
			m.nodes[g.Nodes[0]].soak = time.Duration(g.Soak) * time.Second
		}
	}
	return m
}

func set(names []fleet.NodeName) map[fleet.NodeName]bool {
	out := make(map[fleet.NodeName]bool, len(names))
	for _, n := range names {
		out[n] = true
	}
	return out
}

// Start begins.
func (m *Machine) Start(now time.Time) []Action { return m.advance(now) }

// Over says whether there is nothing left to wait for.
func (m *Machine) Over() bool { return m.over }

// Wake is when the machine wants a Tick; zero if it waits for none.
func (m *Machine) Wake() time.Time {
	var first time.Time
	for _, s := range m.nodes {
		if !s.wake.IsZero() && (first.IsZero() || s.wake.Before(first)) {
			first = s.wake
		}
	}
	return first
}

// Handle takes in what happened, and says what is to be done now.
func (m *Machine) Handle(now time.Time, e Event) []Action {
	if m.over {
		return nil
	}
	var out []Action
	s := m.nodes[e.Node]
	switch e.Kind {
	case Interrupt:
		m.stop()
	case Tick:
		out = m.tick(now)
	case Looked:
		maps.Copy(m.view, e.Seen)
		if w := m.nodes[m.looking]; w != nil {
			m.looking = ""
			out = m.judge(now, w)
		}
	case Prepared, Activated, Watched, Confirmed, Settled:
		if s != nil && s.waitsFor() == e.Kind {
			out = m.ended(now, s, e)
		}
	}
	return append(out, m.advance(now)...)
}

// waitsFor is the event that ends what the node is at.
func (s *progress) waitsFor() EventKind {
	return map[position]EventKind{
		preparing: Prepared, activating: Activated, soaking: Watched, confirming: Confirmed, returning: Settled,
	}[s.at]
}

// ended moves a node on when what it was at has ended.
func (m *Machine) ended(now time.Time, s *progress, e Event) []Action {
	s.back = e.WentBack
	switch {
	case e.Kind == Settled:
		s.at = failed
		m.under--
	case e.Err != nil:
		if e.Kind == Activated && e.Unknown {
			s.activated, s.switched = now, true
		}
		return m.fail(now, s, e.Err)
	case e.Kind == Prepared:
		s.at = staged
		m.under--
	case e.Kind == Activated:
		s.at, s.activated, s.switched = after, now, true
		if s.guarded() {
			return m.look(s)
		}
		return m.settled(now, s)
	case e.Kind == Watched:
		return m.soak(now, s)
	case e.Kind == Confirmed:
		s.at, m.unsaved = done, true
		m.under--
	}
	return nil
}

// fail stops the rollout because of a node. One that has something to go back
// to, and has not said that it did, is waited for.
func (m *Machine) fail(now time.Time, s *progress, err error) []Action {
	s.err, s.wake = err, time.Time{}
	m.stop()
	if s.switched && !s.back && s.From != s.To && s.From > 0 {
		s.at = returning
		return []Action{{Kind: Await, Node: s.Name, Generation: s.To, Within: s.within() - now.Sub(s.activated)}}
	}
	s.at = failed
	m.under--
	return nil
}

// stop lets nothing begin any more. A node whose gate is still being looked at
// has not begun.
func (m *Machine) stop() {
	m.stopped = true
	for _, s := range m.nodes {
		if s.at == before {
			s.at, s.wake = staged, time.Time{}
			m.looking = ""
			m.under--
		}
	}
}

// advance begins what may begin.
func (m *Machine) advance(now time.Time) []Action {
	var out []Action
	for m.at < len(m.groups) {
		g := m.groups[m.at]
		for !m.stopped && m.under < g.AtOnce {
			s := m.free(g)
			if s == nil {
				break
			}
			out = append(out, m.begin(now, g.Phase, s)...)
		}
		if m.under > 0 {
			return out
		}
		if m.unsaved {
			out = append(out, Action{Kind: Save})
			m.unsaved = false
		}
		if m.stopped {
			break
		}
		m.at++
	}
	m.over = true
	return out
}

// free is the group's first node that has not begun and may: no instance is
// restarted while another of its service is.
func (m *Machine) free(g Group) *progress {
	for _, name := range g.Nodes {
		s := m.nodes[name]
		switch {
		case g.Phase == PhaseStage && s.at == idle:
			return s
		case g.Phase != PhaseStage && (s.at == idle || s.at == staged) && !m.shares(s):
			return s
		}
	}
	return nil
}

// shares says whether a node under way restarts an instance of a service that s
// has one of too.
func (m *Machine) shares(s *progress) bool {
	if len(s.Services) == 0 {
		return false
	}
	for _, other := range m.nodes {
		if other.at < before || other.at >= done {
			continue
		}
		if slices.ContainsFunc(other.Services, func(x fleet.ServiceName) bool { return slices.Contains(s.Services, x) }) {
			return true
		}
	}
	return false
}

func (m *Machine) begin(now time.Time, p Phase, s *progress) []Action {
	switch {
	case p == PhaseForget:
		s.at, m.unsaved = done, true
		return []Action{{Kind: Forget, Node: s.Name}}
	case p == PhaseStage:
		s.at = preparing
		m.under++
		return []Action{{Kind: Prepare, Node: s.Name, Generation: s.To}}
	case s.guarded():
		s.at, s.since = before, now
		m.under++
		return m.look(s)
	}
	m.under++
	return m.activate(s)
}

func (m *Machine) activate(s *progress) []Action {
	s.at = activating
	return []Action{{Kind: Activate, Node: s.Name, Generation: s.To, Within: s.within()}}
}

// within is how long the node waits for its confirmation: as long as it is
// looked at, and some.
func (s *progress) within() time.Duration {
	switch {
	case s.soak > 0:
		return max(s.soak, Patience) + ConfirmWithin
	case s.guarded():
		return Patience + ConfirmWithin/2
	}
	return ConfirmWithin
}

// look asks for the mesh as it is now. The first look is at everybody; then only
// at those whom the node's turn can touch, and at those who would stand in.
func (m *Machine) look(s *progress) []Action {
	m.looking = s.Name
	a := Action{Kind: Look, Node: s.Name}
	if m.all {
		a.Nodes = append(m.view.users(s.Name), m.house.servers...)
		for hub := range m.house.hubs {
			a.Nodes = append(a.Nodes, hub)
		}
		slices.Sort(a.Nodes)
		a.Nodes = slices.Compact(a.Nodes)
	}
	m.all = true
	return []Action{a}
}

// judge looks at what must hold before the node's turn, or after it.
func (m *Machine) judge(now time.Time, s *progress) []Action {
	var err error
	begun := s.since
	if s.at == before {
		if !s.Named {
			err = m.view.before(m.house, s.Node)
		}
	} else {
		begun = s.activated
		err = m.view.after(s.seen, m.house, s.Node)
	}
	switch {
	case err == nil && s.at == before:
		s.seen = maps.Clone(m.view)
		return m.activate(s)
	case err == nil:
		return m.settled(now, s)
	case now.Sub(begun) >= Patience:
		return m.fail(now, s, err)
	default:
		s.wake = now.Add(again)
	}
	return nil
}

// settled goes on with a node that has cut nobody off.
func (m *Machine) settled(now time.Time, s *progress) []Action {
	if s.soak > 0 {
		s.at = soaking
		return m.soak(now, s)
	}
	return m.confirm(now, s)
}

func (m *Machine) soak(now time.Time, s *progress) []Action {
	if now.Sub(s.activated) >= s.soak {
		return m.confirm(now, s)
	}
	s.wake = now.Add(min(again, s.soak-now.Sub(s.activated)))
	return nil
}

func (m *Machine) confirm(now time.Time, s *progress) []Action {
	s.at = confirming
	return []Action{{Kind: Confirm, Node: s.Name, Generation: s.To, Within: s.within() - now.Sub(s.activated)}}
}

// tick goes on with those whose pause is over.
func (m *Machine) tick(now time.Time) []Action {
	var out []Action
	for _, name := range m.names {
		s := m.nodes[name]
		if s.wake.IsZero() || s.wake.After(now) {
			continue
		}
		s.wake = time.Time{}
		if s.at == soaking {
			out = append(out, Action{Kind: Watch, Node: s.Name, Generation: s.To})
		} else {
			out = append(out, m.look(s)...)
		}
	}
	return out
}
