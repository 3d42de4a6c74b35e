package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// world is a fleet in virtual time. Each action takes a second, a look none;
// what goes wrong is told by "ACTION NODE".
type world struct {
	opt   Options
	peers map[fleet.NodeName]map[fleet.NodeName]fleet.PeerStatus
	fails map[string]error
	// hook runs before each event is handed in.
	hook func(w *world, at time.Duration, e Event)

	now     time.Time
	m       *Machine
	log     []string
	pending []due
	mostAt  map[ActionKind]int
	inAt    map[ActionKind]int
}

type due struct {
	at time.Time
	e  Event
	of ActionKind
}

func start() time.Time { return time.Unix(1_000_000, 0) }

// cats: three hubs that are servers, three workers, everybody with everybody;
// ari and bianco relayed over cosmo.
func cats(unproven bool) *world {
	w := &world{
		peers: map[fleet.NodeName]map[fleet.NodeName]fleet.PeerStatus{}, fails: map[string]error{},
		mostAt: map[ActionKind]int{}, inAt: map[ActionKind]int{}, now: start(),
	}
	w.opt.Soak = DefaultSoak
	for _, n := range []fleet.NodeName{"cosmo", "maco", "miki", "ari", "ziggy", "bianco"} {
		hub := len(w.opt.Nodes) < 3
		w.opt.Nodes = append(w.opt.Nodes, Node{Name: n, Work: WorkChange, Hub: hub, Server: hub, From: 4, To: 5, Unproven: unproven})
		w.opt.Members = append(w.opt.Members, n)
		if hub {
			w.opt.Hubs = append(w.opt.Hubs, n)
			w.opt.Servers = append(w.opt.Servers, n)
		}
	}
	for _, a := range w.opt.Members {
		w.peers[a] = map[fleet.NodeName]fleet.PeerStatus{}
		for _, b := range w.opt.Members {
			if a != b {
				w.peers[a][b] = fleet.PeerStatus{Name: b, Path: fleet.PathDirectV4}
			}
		}
	}
	w.relay("ari", "bianco", "cosmo")
	return w
}

func (w *world) relay(a, b, via fleet.NodeName) {
	w.peers[a][b] = fleet.PeerStatus{Name: b, Path: fleet.PathRelayed, Via: via}
	w.peers[b][a] = fleet.PeerStatus{Name: a, Path: fleet.PathRelayed, Via: via}
}

// away takes a node off the mesh.
func (w *world) away(n fleet.NodeName) {
	for a := range w.peers {
		if a != n {
			w.peers[a][n] = fleet.PeerStatus{Name: n, Path: fleet.PathNone}
		}
	}
	delete(w.peers, n)
}

func (w *world) seen() map[fleet.NodeName]Seen {
	out := map[fleet.NodeName]Seen{}
	for a, peers := range w.peers {
		s := &fleet.MeshStatus{Self: a}
		for _, p := range peers {
			s.Peers = append(s.Peers, p)
		}
		out[a] = Seen{Mesh: s, Well: true}
	}
	return out
}

// run drives the machine to its end.
func (w *world) run(t *testing.T) {
	t.Helper()
	w.m = New(w.opt)
	w.do(w.m.Start(w.now))
	for range 100_000 {
		if w.m.Over() {
			return
		}
		slices.SortStableFunc(w.pending, func(a, b due) int { return a.at.Compare(b.at) })
		wake := w.m.Wake()
		var next due
		switch {
		case len(w.pending) > 0 && (wake.IsZero() || !wake.Before(w.pending[0].at)):
			next, w.pending = w.pending[0], w.pending[1:]
		case !wake.IsZero():
			next = due{at: wake, e: Event{Kind: Tick}}
		default:
			t.Fatalf("nothing is under way, and it is not over; so far:\n%s", strings.Join(w.log, "\n"))
		}
		w.now = next.at
		w.inAt[next.of]--
		if w.hook != nil {
			w.hook(w, w.now.Sub(start()), next.e)
		}
		if next.e.Kind == Looked {
			next.e.Seen = w.seen()
		}
		w.do(w.m.Handle(w.now, next.e))
	}
	t.Fatal("it does not end")
}

func (w *world) do(actions []Action) {
	answers := map[ActionKind]EventKind{Prepare: Prepared, Activate: Activated, Look: Looked, Watch: Watched, Confirm: Confirmed, Await: Settled}
	for _, a := range actions {
		if a.Kind != Look && a.Kind != Watch {
			w.log = append(w.log, strings.TrimSpace(fmt.Sprintf("%3.0f %s %s", w.now.Sub(start()).Seconds(), a.Kind, a.Node)))
		}
		kind, has := answers[a.Kind]
		if !has {
			continue
		}
		w.inAt[a.Kind]++
		w.mostAt[a.Kind] = max(w.mostAt[a.Kind], w.inAt[a.Kind])
		e := Event{Kind: kind, Node: a.Node, Err: w.fails[string(a.Kind)+" "+string(a.Node)]}
		e.WentBack = e.Err != nil && strings.Contains(e.Err.Error(), "went back")
		e.Unknown = e.Err != nil && strings.Contains(e.Err.Error(), "lost")
		if a.Kind == Await {
			e.WentBack = e.Err == nil
		}
		d := due{at: w.now.Add(time.Second), e: e, of: a.Kind}
		if a.Kind == Look {
			d.at = w.now
		}
		w.pending = append(w.pending, d)
	}
}

// stands is "NODE STATE GENERATION" for each node.
func (w *world) stands() []string {
	var out []string
	for _, s := range w.m.Standing() {
		out = append(out, fmt.Sprintf("%s %s %d", s.Node, s.State, s.Generation))
	}
	return out
}

func (w *world) first(action string) string {
	for _, l := range w.log {
		if at, ok := strings.CutSuffix(l, action); ok {
			return strings.TrimSpace(at)
		}
	}
	return "never"
}

func TestRollout(t *testing.T) {
	w := cats(false)
	w.opt.Nodes = append(w.opt.Nodes, Node{Name: "elvis", Work: WorkForget, From: 3})
	w.run(t)
	want := []string{
		"0 prepare cosmo", "0 prepare maco", "0 prepare miki", "0 prepare ari", "0 prepare ziggy", "0 prepare bianco",
		"1 activate ari", "2 confirm ari", "3 save",
		"3 activate ziggy", "3 activate bianco", "4 confirm ziggy", "4 confirm bianco", "5 save",
		"5 activate cosmo", "6 confirm cosmo", "7 activate maco", "8 confirm maco", "9 activate miki", "10 confirm miki", "11 save",
		"11 forget elvis", "11 save",
	}
	var got []string
	for _, l := range w.log {
		got = append(got, strings.TrimSpace(l))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("actions (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"cosmo changed 5", "maco changed 5", "miki changed 5", "ari changed 5", "ziggy changed 5", "bianco changed 5", "elvis forgotten 0"}, w.stands()); diff != "" {
		t.Errorf("stands (-want +got):\n%s", diff)
	}
}

// TestInstances restarts a service's instances one after the other, and what has
// none of them beside.
func TestInstances(t *testing.T) {
	w := cats(false)
	for i, n := range w.opt.Nodes {
		switch n.Name {
		case "ziggy", "bianco", "cosmo":
			w.opt.Nodes[i].Services = []fleet.ServiceName{"web", "api"}
		case "ari", "maco":
			w.opt.Nodes[i].Services = []fleet.ServiceName{"tool"}
		}
	}
	w.opt.Nodes = append(w.opt.Nodes, Node{Name: "elvis", Work: WorkChange, From: 4, To: 5, Services: []fleet.ServiceName{"tool"}})
	w.run(t)
	want := []string{
		"1 activate ari", "2 confirm ari", // the canary
		"3 activate ziggy", "3 activate elvis", "4 confirm ziggy", "4 confirm elvis",
		"5 activate bianco", "6 confirm bianco",
		"7 activate cosmo", "8 confirm cosmo", "9 activate maco", "10 confirm maco", "11 activate miki", "12 confirm miki",
	}
	var got []string
	for _, l := range w.log {
		if strings.Contains(l, "activate") || strings.Contains(l, "confirm") {
			got = append(got, strings.TrimSpace(l))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("actions (-want +got):\n%s", diff)
	}
}

// TestSoak watches the canary for as long as a crash may take to show, and
// nobody else.
func TestSoak(t *testing.T) {
	w := cats(true)
	w.run(t)
	if got := w.first("confirm ari"); got != "47" { // staged 1, activated 2, and 45 of soak
		t.Errorf("the canary is confirmed at %s s, want 47", got)
	}
	if got := w.first("confirm ziggy"); got != "49" {
		t.Errorf("the next worker is confirmed at %s s, want 49", got)
	}
	w = cats(true)
	w.opt.Nodes = w.opt.Nodes[:3]
	w.run(t)
	if got := w.first("confirm cosmo"); got != "47" {
		t.Errorf("without workers, the first hub is confirmed at %s s, want 47", got)
	}
	if got := w.first("confirm maco"); got != "49" {
		t.Errorf("without workers, the second hub is confirmed at %s s, want 49", got)
	}
	w = cats(true)
	w.opt.Soak = 0
	w.run(t)
	if got := w.first("confirm ari"); got != "2" {
		t.Errorf("with no soak the canary is confirmed at %s s, want 2", got)
	}
}

// TestFailures lets each step of the first node of each sort fail, and looks at
// what the others stand on.
func TestFailures(t *testing.T) {
	back := errors.New("went back to generation 4: units")
	broken := errors.New("broken")
	tests := map[string]struct {
		fail string
		err  error
		want []string
	}{
		"staging":               {"prepare miki", broken, []string{"cosmo staged 4", "maco staged 4", "miki stopped 4", "ari staged 4", "ziggy staged 4", "bianco staged 4"}},
		"the canary goes back":  {"activate ari", back, []string{"cosmo staged 4", "maco staged 4", "miki staged 4", "ari went back 4", "ziggy staged 4", "bianco staged 4"}},
		"the canary crashes":    {"watch ari", back, []string{"cosmo staged 4", "maco staged 4", "miki staged 4", "ari went back 4", "ziggy staged 4", "bianco staged 4"}},
		"confirming the canary": {"confirm ari", broken, []string{"cosmo staged 4", "maco staged 4", "miki staged 4", "ari went back 4", "ziggy staged 4", "bianco staged 4"}},
		"a worker":              {"activate ziggy", back, []string{"cosmo staged 4", "maco staged 4", "miki staged 4", "ari changed 5", "ziggy went back 4", "bianco changed 5"}},
		"the first hub":         {"activate cosmo", broken, []string{"cosmo stopped 4", "maco staged 4", "miki staged 4", "ari changed 5", "ziggy changed 5", "bianco changed 5"}},
		"the last hub":          {"confirm miki", back, []string{"cosmo changed 5", "maco changed 5", "miki went back 4", "ari changed 5", "ziggy changed 5", "bianco changed 5"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := cats(true)
			w.fails[tt.fail] = tt.err
			w.run(t)
			if diff := cmp.Diff(tt.want, w.stands()); diff != "" {
				t.Errorf("stands (-want +got):\n%s", diff)
			}
			i := slices.IndexFunc(w.m.Standing(), func(s Stand) bool { return s.Err != nil })
			if i < 0 || !errors.Is(w.m.Standing()[i].Err, tt.err) {
				t.Error("nobody says why")
			}
		})
	}
}

func TestInterrupt(t *testing.T) {
	tests := map[string]struct {
		at   time.Duration
		want []string
	}{
		"while staging":       {0, []string{"cosmo staged 4", "maco staged 4", "miki staged 4", "ari staged 4", "ziggy staged 4", "bianco staged 4"}},
		"with the canary":     {2 * time.Second, []string{"cosmo staged 4", "maco staged 4", "miki staged 4", "ari changed 5", "ziggy staged 4", "bianco staged 4"}},
		"with the workers":    {4 * time.Second, []string{"cosmo staged 4", "maco staged 4", "miki staged 4", "ari changed 5", "ziggy changed 5", "bianco changed 5"}},
		"with the second hub": {8 * time.Second, []string{"cosmo changed 5", "maco changed 5", "miki staged 4", "ari changed 5", "ziggy changed 5", "bianco changed 5"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := cats(false)
			told := false
			w.hook = func(w *world, at time.Duration, _ Event) {
				if at >= tt.at && !told {
					told = true
					w.do(w.m.Handle(w.now, Event{Kind: Interrupt}))
				}
			}
			w.run(t)
			if diff := cmp.Diff(tt.want, w.stands()); diff != "" {
				t.Errorf("stands (-want +got):\n%s", diff)
			}
		})
	}
}

// TestInterruptAtGate: a node whose turn has not come is not begun.
func TestInterruptAtGate(t *testing.T) {
	w := cats(false)
	w.away("maco")
	w.hook = func(w *world, at time.Duration, _ Event) {
		if at >= 10*time.Second && at < 12*time.Second {
			w.do(w.m.Handle(w.now, Event{Kind: Interrupt}))
		}
	}
	w.run(t)
	if got := w.first("activate cosmo"); got != "never" {
		t.Errorf("the hub was activated at %s s", got)
	}
	if s := w.m.Standing()[0]; s.State != Staged || s.Err != nil {
		t.Errorf("cosmo: %+v, want it staged, and nobody blamed", s)
	}
}

func TestGateBefore(t *testing.T) {
	tests := map[string]struct {
		change  func(*world)
		comes   func(*world) // back after 10 s at the gate
		wantErr string       // of cosmo
		hint    string
		at      string // when cosmo is activated
	}{
		"all well": {func(*world) {}, nil, "", "", "5"},
		"the only hub": {func(w *world) {
			w.opt.Hubs, w.opt.Servers = w.opt.Hubs[:1], w.opt.Servers[:1]
			for i := range w.opt.Nodes[1:3] {
				w.opt.Nodes[1+i].Hub, w.opt.Nodes[1+i].Server = false, false
			}
		}, nil, "", "", "5"},
		"the other hubs are down": {
			func(w *world) { w.away("maco"); w.away("miki"); w.opt.Servers = nil }, nil,
			"changing cosmo now would cut ari from bianco, ziggy from everybody: maco and miki are down", "moggy apply --node cosmo", "never",
		},
		"a relayed pair has no other hub": {func(w *world) {
			w.opt.Servers = nil
			for _, hub := range []fleet.NodeName{"maco", "miki"} {
				w.peers["bianco"][hub] = fleet.PeerStatus{Name: hub, Path: fleet.PathRelayed, Via: "cosmo"}
			}
		}, nil, "changing cosmo now would cut ari from bianco, bianco from maco, bianco from miki", "moggy status", "never"},
		"another hub comes back in time": {
			func(w *world) { w.away("maco"); w.away("miki"); w.opt.Servers = nil },
			func(w *world) { w.peers = cats(false).peers }, "", "", "15",
		},
		"no quorum without it": {
			func(w *world) { w.away("maco") }, nil,
			"changing cosmo now would leave 1 of 3 servers, and it takes 2: maco is down", "moggy doctor maco", "never",
		},
		"no quorum of two":           {func(w *world) { w.away("maco"); w.opt.Servers = w.opt.Servers[:2] }, nil, "", "", "5"},
		"the operator's word":        {func(w *world) { w.away("maco"); w.away("miki"); w.opt.Nodes[0].Named = true }, nil, "", "", "5"},
		"a worker that says nothing": {func(w *world) { delete(w.peers, "bianco") }, nil, "", "", "5"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := cats(false)
			tt.change(w)
			w.hook = func(w *world, at time.Duration, _ Event) {
				if tt.comes != nil && at >= 14*time.Second {
					tt.comes(w)
					w.hook = nil
				}
			}
			w.run(t)
			if got := w.first("activate cosmo"); got != tt.at {
				t.Errorf("cosmo is activated at %s s, want %s", got, tt.at)
			}
			err := w.m.Standing()[0].Err
			if (err == nil) != (tt.wantErr == "") || err != nil && err.Error() != tt.wantErr {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if hints := strings.Join(hint.All(err), "\n"); !strings.Contains(hints, tt.hint) {
				t.Errorf("hints %q, want %q", hints, tt.hint)
			}
		})
	}
}

func TestGateAfter(t *testing.T) {
	tests := map[string]struct {
		during  func(*world) // once cosmo is in force
		later   func(*world) // 20 s later
		wantErr string
		at      string // when cosmo is confirmed
	}{
		"all well": {func(*world) {}, func(*world) {}, "", "6"},
		"it comes back": {
			func(w *world) { w.peers["ari"]["cosmo"] = fleet.PeerStatus{Name: "cosmo", Path: fleet.PathNone} },
			func(w *world) { w.peers["ari"]["cosmo"] = fleet.PeerStatus{Name: "cosmo", Path: fleet.PathDirectV6} }, "", "26",
		},
		"a peer stays away": {
			func(w *world) { w.peers["ari"]["cosmo"] = fleet.PeerStatus{Name: "cosmo", Path: fleet.PathNone} }, func(*world) {},
			"since the change, for 30s, there is no path between ari and cosmo", "never",
		},
		"a pair it relayed": {
			func(w *world) { w.peers["ari"]["bianco"] = fleet.PeerStatus{Name: "bianco", Path: fleet.PathNone} }, func(*world) {},
			"since the change, for 30s, there is no path between ari and bianco", "never",
		},
		"relayed by another":               {func(w *world) { w.relay("ari", "bianco", "miki") }, func(*world) {}, "", "6"},
		"who left the file does not count": {func(w *world) { delete(w.peers["ari"], "elvis") }, func(*world) {}, "", "6"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := cats(false)
			w.peers["ari"]["elvis"] = fleet.PeerStatus{Name: "elvis", Path: fleet.PathDirectV4}
			w.hook = func(w *world, at time.Duration, e Event) {
				switch {
				case e.Kind == Activated && e.Node == "cosmo":
					tt.during(w)
				case at == 25*time.Second || at == 26*time.Second:
					tt.later(w)
				}
			}
			w.run(t)
			if got := w.first("confirm cosmo"); got != tt.at {
				t.Errorf("cosmo is confirmed at %s s, want %s", got, tt.at)
			}
			err := w.m.Standing()[0].Err
			if (err == nil) != (tt.wantErr == "") || err != nil && err.Error() != tt.wantErr {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if err != nil && w.first("activate maco") != "never" {
				t.Error("the next hub was begun")
			}
		})
	}
}

// TestUnknown: a node that was lost while it was activated is waited for, and
// nobody claims to know where it stands when it never answers again.
func TestUnknown(t *testing.T) {
	for away, want := range map[bool]string{false: "ari went back 4", true: "ari unconfirmed 5"} {
		w := cats(false)
		w.fails["activate ari"] = errors.New("connection lost")
		if away {
			w.fails["await ari"] = errors.New("no answer")
		}
		w.run(t)
		if got := w.stands()[3]; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestThousand takes a thousand nodes through, twenty of them hubs.
func TestThousand(t *testing.T) {
	w := cats(false)
	w.opt, w.peers = Options{}, map[fleet.NodeName]map[fleet.NodeName]fleet.PeerStatus{}
	for i := range 1000 {
		n := Node{Name: fleet.NodeName(fmt.Sprintf("n%03d", i)), Work: WorkChange, Hub: i%50 == 0, Server: i%200 == 0, From: 1, To: 2}
		w.opt.Nodes = append(w.opt.Nodes, n)
		w.opt.Members = append(w.opt.Members, n.Name)
		if n.Hub {
			w.opt.Hubs = append(w.opt.Hubs, n.Name)
		}
		if n.Server {
			w.opt.Servers = append(w.opt.Servers, n.Name)
		}
	}
	for i, n := range w.opt.Members {
		w.peers[n] = map[fleet.NodeName]fleet.PeerStatus{}
		for j := range 3 {
			if hub := w.opt.Hubs[(i+j)%20]; hub != n {
				w.peers[n][hub] = fleet.PeerStatus{Name: hub, Path: fleet.PathDirectV4}
			}
		}
	}
	w.run(t)
	if i := slices.IndexFunc(w.m.Standing(), func(s Stand) bool { return s.State != Changed }); i >= 0 {
		t.Errorf("%+v", w.m.Standing()[i])
	}
	if w.mostAt[Activate] != most || w.mostAt[Prepare] != most {
		t.Errorf("%d activated and %d staged at once, want %d", w.mostAt[Activate], w.mostAt[Prepare], most)
	}
	saves := len(slices.DeleteFunc(slices.Clone(w.log), func(l string) bool { return !strings.HasSuffix(l, "save") }))
	if saves != 3 { // canary, workers, hubs
		t.Errorf("the lock is saved %d times, want once per group", saves)
	}
}

func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		p    progress
		want time.Duration
	}{
		{progress{Node: Node{Work: WorkChange, From: 4}}, 30 * time.Second},
		{progress{Node: Node{Work: WorkChange, From: 4, Hub: true}}, 45 * time.Second},
		{progress{Node: Node{Work: WorkChange, From: 4}, soak: DefaultSoak}, 75 * time.Second},
		{progress{Node: Node{Work: WorkSwitch, From: 4, Hub: true}, soak: 10 * time.Second}, 60 * time.Second},
	} {
		if got := tt.p.within(); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.p.Node, got, tt.want)
		}
	}
}

func TestOrder(t *testing.T) {
	nodes := []Node{
		{Name: "new", Work: WorkContact},
		{Name: "gone", Work: WorkForget, From: 3},
		{Name: "hub", Work: WorkChange, Hub: true, From: 4, To: 5},
		{Name: "newhub", Work: WorkChange, Hub: true, To: 5},
		{Name: "a", Work: WorkChange, From: 4, To: 5},
		{Name: "b", Work: WorkChange, From: 4, To: 5, Unproven: true, Packages: true},
		{Name: "server", Work: WorkSwitch, Server: true, From: 4, To: 3},
	}
	want := []Group{
		{PhaseContact, []fleet.NodeName{"new"}, 1, 0},
		{PhaseStage, []fleet.NodeName{"hub", "newhub", "a", "b"}, 4, 0},
		{PhaseFirst, []fleet.NodeName{"newhub"}, 1, 0},
		{PhaseCanary, []fleet.NodeName{"b"}, 1, 45},
		{PhaseWorkers, []fleet.NodeName{"a"}, 1, 0},
		{PhaseHubs, []fleet.NodeName{"hub", "server"}, 1, 0},
		{PhaseForget, []fleet.NodeName{"gone"}, 1, 0},
	}
	got := Order(nodes, DefaultSoak)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	waves := Waves(got, nodes)
	if len(waves) != 8 {
		t.Errorf("%d waves, want 8: hubs take one each", len(waves))
	}
	for n, want := range map[int]int{1: 1, 5: 4, 39: 4, 40: 4, 100: 10, 1000: 50} {
		if got := atOnce(n); got != want {
			t.Errorf("of %d workers %d go at once, want %d", n, got, want)
		}
	}
}
