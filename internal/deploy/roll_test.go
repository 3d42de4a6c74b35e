package deploy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/cargo"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
)

// box is a machine as `moggy node` on it answers: the protocol, without disk
// or systemd.
type box struct {
	name     fleet.NodeName
	protocol int // that its own moggy speaks

	current, previous int
	confirmed         bool
	until             time.Time // of its probation
	manifests         map[int]fleet.Manifest
	holder            string
	cut               context.CancelFunc // the connection that holds it
	turns             []fleet.Turn
	brought           bool // our moggy is at firstDir

	sick    bool          // what is activated next goes back at once
	crashes time.Duration // so long after the activation it goes back
	denies  bool          // fresh connections are refused
	newKeys bool          // so they are while what is activated next is in force
	gone    bool          // cannot be reached
	drops   bool          // loses the connection of what is activated, and goes on
	log     *[]string
}

// boxes are a fleet of them; they are a Runner.
type boxes struct {
	mu  sync.Mutex
	by  map[fleet.NodeName]*box
	log []string
	all []fleet.NodeName

	// Of rotations; nil elsewhere.
	meshes map[fleet.Digest]fleet.AgentConfig // what a mesh.json of that digest says
	keys   map[fleet.NodeName][]fleet.Key     // that a node has
	made   byte                               // so many keys were
	change func()                             // is told when a node has another generation
	left   int                                // so many commands until the operator is killed; < 0: never
}

type refusal struct{}

func (refusal) Error() string { return "ssh: Permission denied (publickey)" }
func (refusal) Denied() bool  { return true }

func (b *boxes) Run(ctx context.Context, name fleet.NodeName, c ssh.Command) error {
	i := slices.Index(c.Args, "node")
	if b.meshes != nil && b.killed() {
		return errKilledHere
	}
	if i < 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.by[name].brought = true
		_, err := io.WriteString(c.Stdout, "have\n")
		return err
	}
	speaks, err := strconv.Atoi(c.Args[i+2])
	if err != nil {
		return err
	}
	by, cmd, args := c.Args[i+4], c.Args[i+5], c.Args[i+6:]
	b.mu.Lock()
	x := b.by[name]
	x.settle()
	answers := x.protocol
	if x.brought && c.Args[2] == ownMoggy {
		answers = protocol.Version
	}
	b.mu.Unlock()
	if speaks > answers {
		return &ssh.ExitError{Code: protocol.ExitProtocol, Stderr: fmt.Sprintf("moggy: error: %s speaks protocol %d only, not %d", name, answers, speaks)}
	}
	switch {
	case cmd == "hold":
		return b.hold(ctx, x, by, c)
	case x.gone:
		return errors.New("no route to host")
	case c.Fresh && (x.denies || x.newKeys && !x.confirmed):
		return refusal{}
	}
	time.Sleep(100 * time.Millisecond) // in the bubble's time
	b.mu.Lock()
	defer b.mu.Unlock()
	x.settle()
	return b.answer(x, c, cmd, args)
}

// settle lets the node do what it does by itself.
func (x *box) settle() {
	if !x.until.IsZero() && !time.Now().Before(x.until) {
		x.turns = append(x.turns, fleet.Turn{Kind: fleet.TurnWentBack, Generation: x.previous, From: x.current, Why: "moggy-agent.service crashed"})
		x.current, x.confirmed, x.until = x.previous, true, time.Time{}
	}
}

func (b *boxes) hold(ctx context.Context, x *box, by string, c ssh.Command) error {
	b.mu.Lock()
	if x.holder != "" {
		defer b.mu.Unlock()
		return &ssh.ExitError{Code: protocol.ExitLocked, Stderr: "moggy: error: held by " + x.holder}
	}
	x.holder = by + " since 2026-11-22T15:04:05Z"
	ctx, x.cut = context.WithCancel(ctx)
	b.mu.Unlock()
	defer x.cut()
	if err := json.NewEncoder(c.Stdout).Encode(protocol.Done{Hello: protocol.Hello{Protocol: 2}}); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, c.Stdin)
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if strings.HasPrefix(x.holder, by) {
		x.holder = ""
	}
	if ctx.Err() != nil {
		return errors.New("connection lost")
	}
	return nil
}

func (b *boxes) answer(x *box, c ssh.Command, cmd string, args []string) error {
	enc := json.NewEncoder(c.Stdout)
	hello := protocol.Hello{Protocol: protocol.Version}
	switch cmd {
	case "observe":
		return enc.Encode(b.observed(x))
	case "missing":
		return enc.Encode(protocol.Missing{Hello: hello})
	case "stage":
		h, err := protocol.ReadHeader(bufio.NewReader(c.Stdin))
		if err != nil {
			return err
		}
		x.manifests[h.Manifest.Generation] = h.Manifest
		return enc.Encode(protocol.Staged{Hello: hello, Generation: h.Manifest.Generation})
	case "packages":
		return enc.Encode(protocol.Packages{Hello: hello})
	case "activate":
		return b.activate(x, enc, args)
	case "wait":
		return enc.Encode(protocol.Event{Hello: hello, End: &protocol.Outcome{Generation: x.current, ConfirmBy: x.until}})
	case "confirm":
		if args[0] != strconv.Itoa(x.current) {
			return &ssh.ExitError{Code: 1, Stderr: fmt.Sprintf("moggy: error: generation %s is not in force, %d is", args[0], x.current)}
		}
		b.log = append(b.log, fmt.Sprintf("%s confirmed %d", x.name, x.current))
		x.confirmed, x.until = true, time.Time{}
		return enc.Encode(protocol.Standing{Hello: hello})
	case "next-key":
		return enc.Encode(protocol.NextKey{Hello: hello, Key: b.nextKey(x, args)})
	case "history":
		return enc.Encode(protocol.History{Hello: hello, Turns: x.turns})
	}
	return fmt.Errorf("%s: nobody knows that", cmd)
}

func (b *boxes) activate(x *box, enc *json.Encoder, args []string) error {
	g, err := strconv.Atoi(args[len(args)-1])
	if err != nil {
		return err
	}
	b.log = append(b.log, fmt.Sprintf("%s activated %d", x.name, g))
	hello := protocol.Hello{Protocol: protocol.Version}
	if x.sick {
		return enc.Encode(protocol.Event{Hello: hello, End: &protocol.Outcome{
			Generation: x.current, Error: "went back: moggy-agent.service failed", Hints: []string{"panic: no cheese"}, WentBack: true,
		}})
	}
	within, err := time.ParseDuration(args[slices.Index(args, "--confirm-within")+1])
	if err != nil {
		return err
	}
	if x.current != g {
		x.previous, x.current, x.confirmed = x.current, g, false
		x.until = time.Now().Add(within)
		if x.crashes > 0 {
			x.until = time.Now().Add(x.crashes)
		}
	}
	if b.change != nil {
		b.change()
	}
	if x.drops {
		return errors.New("connection lost")
	}
	return enc.Encode(protocol.Event{Hello: hello, End: &protocol.Outcome{Generation: g, Changed: true, ConfirmBy: x.until}})
}

func (b *boxes) observed(x *box) fleet.Observed {
	m := x.manifests[x.current]
	o := fleet.Observed{
		Version: 1, Moggy: "0.1.0", Protocol: x.protocol, Manifest: &m, System: fleet.System{Arch: "amd64"},
		Current: fleet.GenerationState{Number: x.current, Previous: x.previous, Confirmed: x.confirmed},
		Mesh:    &fleet.MeshStatus{Self: x.name, Key: b.speaks(x)},
	}
	for g := range x.manifests {
		o.Kept = append(o.Kept, g)
	}
	for _, peer := range b.all {
		if peer != x.name {
			o.Mesh.Peers = append(o.Mesh.Peers, fleet.PeerStatus{Name: peer, Path: fleet.PathDirectV4})
		}
	}
	return o
}

// silent takes progress and shows none.
type silent struct{}

func (silent) Step(string, string) {}
func (silent) Done(string, string) {}
func (silent) Fail(string, error)  {}

// stage is a fleet of three hubs and three workers on generation 4, all of
// which are to get another moggy.
type scene struct {
	*boxes
	d     *Deployment
	saves int
}

func newScene(t *testing.T) *scene {
	t.Helper()
	f := catsFleet()
	s := &scene{boxes: &boxes{by: map[fleet.NodeName]*box{}}}
	binaries := cargo.Binaries{"amd64": {Digest: fleet.DigestOf([]byte("old"))}}
	s.d = &Deployment{
		Fleet: f, Binaries: binaries, By: "nico@laptop", Version: "0.1.0", Progress: silent{}, run: s.boxes,
		Save: func(*fleet.Lock) error { s.saves++; return nil },
	}
	l := &fleet.Lock{Generation: 4}
	for i, n := range f.Nodes {
		l.Put(fleet.NodeLock{Name: n.Name, MeshKey: fleet.Key{byte(i + 1)}, Arch: "amd64", Generation: 4})
	}
	if err := s.d.Open(l); err != nil {
		t.Fatal(err)
	}
	parts := Parts(f, s.d.Lock(), binaries, nil, nil, nil)
	for _, n := range f.Nodes {
		m, _, err := plan.Assemble(f.Name, n.Name, parts[n.Name])
		if err != nil {
			t.Fatal(err)
		}
		m.Generation = 4
		older := m
		older.Generation = 3
		s.all = append(s.all, n.Name)
		s.by[n.Name] = &box{
			name: n.Name, protocol: protocol.Version, current: 4, previous: 3, confirmed: true,
			manifests: map[int]fleet.Manifest{4: m, 3: older}, log: &s.log,
		}
	}
	s.d.Binaries = cargo.Binaries{"amd64": {Digest: fleet.DigestOf([]byte("new"))}}
	return s
}

// plan plans what there is to do.
func (s *scene) plan(t *testing.T, o Options) *plan.Plan {
	t.Helper()
	seen, err := s.d.Observe(t.Context(), observeTimeout)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.d.Plan(t.Context(), seen, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// stands is "GENERATION", with "?" where it is not confirmed, of each node.
func (s *scene) stands() map[fleet.NodeName]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[fleet.NodeName]string{}
	for n, b := range s.by {
		b.settle()
		out[n] = strconv.Itoa(b.current)
		if !b.confirmed {
			out[n] += "?"
		}
	}
	return out
}

// free says that no node is held any more.
func (s *scene) free(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, b := range s.by {
		if b.holder != "" {
			t.Errorf("%s is still held by %s", n, b.holder)
		}
	}
}

func all(generation string, but map[fleet.NodeName]string) map[fleet.NodeName]string {
	out := map[fleet.NodeName]string{}
	for _, n := range catsFleet().Nodes {
		out[n.Name] = generation
	}
	maps.Copy(out, but)
	return out
}

func soaking() Options { return Options{Soak: rollout.DefaultSoak} }

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		if _, err := s.d.Apply(t.Context(), s.plan(t, soaking()), soaking()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all("5", nil), s.stands()); diff != "" {
			t.Errorf("stands (-want +got):\n%s", diff)
		}
		if got := s.log[:2]; !cmp.Equal(got, []string{"ari activated 5", "ari confirmed 5"}) {
			t.Errorf("began with %q, want the canary alone", got)
		}
		hubs := []string{
			"cosmo activated 5", "cosmo confirmed 5", "maco activated 5", "maco confirmed 5", "miki activated 5", "miki confirmed 5",
		}
		if diff := cmp.Diff(hubs, s.log[len(s.log)-6:]); diff != "" {
			t.Errorf("hubs (-want +got):\n%s", diff)
		}
		if s.saves != 4 { // at the start, and after canary, workers, hubs
			t.Errorf("the lock was saved %d times, want 4", s.saves)
		}
		if got := s.d.Lock().Node("miki").Generation; got != 5 {
			t.Errorf("miki is on generation %d in the lock", got)
		}
		s.free(t)
		if p := s.plan(t, soaking()); p.Changes() {
			t.Error("there is something left to do")
		}
	})
}

func TestApplyStops(t *testing.T) {
	tests := map[string]struct {
		break_  func(*scene)
		want    map[fleet.NodeName]string
		err     string
		hint    string
		summary string
	}{
		"the canary goes back": {
			func(s *scene) { s.by["ari"].sick = true }, all("4", nil),
			"ari: went back: moggy-agent.service failed", "panic: no cheese", "went back to generation 4: ari",
		},
		"the canary crashes after 30 s": {
			func(s *scene) { s.by["ari"].crashes = 30 * time.Second }, all("4", nil),
			"ari: it went back from generation 5 to 4: moggy-agent.service crashed", "moggy history ari", "still on generation 4: cosmo, maco, miki, ziggy, bianco",
		},
		"our key is refused": {
			func(s *scene) { s.by["ziggy"].denies = true }, all("4", map[fleet.NodeName]string{"ari": "5", "bianco": "5"}),
			"by removing your key", "ziggy goes back to generation 4 by itself at", "went back to generation 4: ziggy",
		},
		"our key is refused by what we bring": {
			func(s *scene) { s.by["ziggy"].newKeys = true }, all("4", map[fleet.NodeName]string{"ari": "5", "bianco": "5"}),
			"by removing your key: it went back from generation 5 to 4: ", "moggy history ziggy", "went back to generation 4: ziggy",
		},
		"a hub goes back": {
			func(s *scene) { s.by["maco"].sick = true }, all("5", map[fleet.NodeName]string{"maco": "4", "miki": "4"}),
			"maco: went back", "panic", "on generation 5, confirmed: cosmo, ari, ziggy, bianco",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				tt.break_(s)
				_, err := s.d.Apply(t.Context(), s.plan(t, soaking()), soaking())
				var stopped *Stopped
				if !errors.As(err, &stopped) || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want a Stopped that says %q", err, tt.err)
				}
				if hints := strings.Join(hint.All(err), "\n"); !strings.Contains(hints, tt.hint) {
					t.Errorf("hints %q, want %q", hints, tt.hint)
				}
				if !slices.Contains(stopped.Summary(), tt.summary) {
					t.Errorf("summary %q, want %q", stopped.Summary(), tt.summary)
				}
				if diff := cmp.Diff(tt.want, s.stands()); diff != "" {
					t.Errorf("stands (-want +got):\n%s", diff)
				}
				s.free(t)
			})
		})
	}
}

// TestApplyReattaches: a connection that an activation cuts is found again.
func TestApplyReattaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.by["bianco"].drops = true
		if _, err := s.d.Apply(t.Context(), s.plan(t, soaking()), soaking()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all("5", nil), s.stands()); diff != "" {
			t.Errorf("stands (-want +got):\n%s", diff)
		}
	})
}

// TestApplyHeld: the second operator is told who the first is, and nothing is
// held on to.
func TestApplyHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		p := s.plan(t, soaking())
		s.by["miki"].holder = "eva@desk since 2026-11-22T15:04:05Z"
		_, err := s.d.Apply(t.Context(), p, soaking())
		if err == nil || !strings.Contains(err.Error(), "another operator is at work: held by eva@desk since 2026") {
			t.Errorf("error %v, want one that says who and since when", err)
		}
		if hints := strings.Join(hint.All(err), "\n"); !strings.Contains(hints, "within 20 s") {
			t.Errorf("hints %q", hints)
		}
		s.by["miki"].holder = ""
		s.free(t)
		if diff := cmp.Diff(all("4", nil), s.stands()); diff != "" {
			t.Errorf("stands (-want +got):\n%s", diff)
		}
	})
}

// TestApplyHoldTaken: a node that was lost for longer than it waits, and that
// somebody else took, stops the rollout; one that is merely lost is held again.
func TestApplyHoldTaken(t *testing.T) {
	for _, eva := range []bool{false, true} {
		t.Run(fmt.Sprint(eva), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				p := s.plan(t, soaking())
				time.AfterFunc(10*time.Second, func() { // while the canary soaks
					s.mu.Lock()
					defer s.mu.Unlock()
					s.by["miki"].cut()
					if eva {
						s.by["miki"].holder = "eva@desk"
					}
				})
				_, err := s.d.Apply(t.Context(), p, soaking())
				want := all("5", nil)
				if eva {
					want = all("4", map[fleet.NodeName]string{"ari": "5"})
					if err == nil || !strings.Contains(err.Error(), "miki: it was lost, and somebody else took it: held by eva@desk") {
						t.Errorf("error %v", err)
					}
				} else if err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(want, s.stands()); diff != "" {
					t.Errorf("stands (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestApplyMovedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		p := s.plan(t, soaking())
		s.by["ziggy"].current = 3
		_, err := s.d.Apply(t.Context(), p, soaking())
		if err == nil || !strings.Contains(err.Error(), "ziggy was on generation 4, is on 3") {
			t.Errorf("error %v, want one that says what moved", err)
		}
		if len(s.log) > 0 {
			t.Errorf("done all the same: %q", s.log)
		}
		s.free(t)
	})
}

// TestApplyOldNodes: our own moggy answers where the node's speaks an older
// protocol.
func TestApplyOldNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.by["ari"].protocol, s.by["cosmo"].protocol = 1, 1
		if _, err := s.d.Apply(t.Context(), s.plan(t, soaking()), soaking()); err != nil {
			t.Fatal(err)
		}
		for name, b := range s.by {
			if want := name == "ari" || name == "cosmo"; b.brought != want {
				t.Errorf("%s: moggy brought: %v, want %v", name, b.brought, want)
			}
		}
		if diff := cmp.Diff(all("5", nil), s.stands()); diff != "" {
			t.Errorf("stands (-want +got):\n%s", diff)
		}
	})
}

func TestApplyDowngrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.d.Version = "0.0.9"
		p := s.plan(t, soaking())
		_, err := s.d.Apply(t.Context(), p, soaking())
		if err == nil || !strings.Contains(err.Error(), "cosmo runs moggy 0.1.0, yours is 0.0.9") || !strings.Contains(strings.Join(hint.All(err), ""), "--downgrade") {
			t.Errorf("error %v with hints %q", err, hint.All(err))
		}
		o := soaking()
		o.Downgrade = true
		if _, err := s.d.Apply(t.Context(), p, o); err != nil {
			t.Error(err)
		}
	})
}

// TestApplyInterrupted: the first Ctrl-C waits for what is under way, the
// second does not.
func TestApplyInterrupted(t *testing.T) {
	for _, twice := range []bool{false, true} {
		t.Run(fmt.Sprint(twice), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				p := s.plan(t, soaking())
				ctx, interrupt := context.WithTimeout(t.Context(), 10*time.Second) // while the canary soaks
				defer interrupt()
				o := soaking()
				kill := make(chan struct{})
				o.Kill = kill
				var told []fleet.NodeName
				o.Told = func(n []fleet.NodeName) {
					told = n
					if twice {
						close(kill)
					}
				}
				started := time.Now()
				_, err := s.d.Apply(ctx, p, o)
				var stopped *Stopped
				if !errors.As(err, &stopped) || !stopped.Interrupted {
					t.Fatalf("error %v", err)
				}
				if !slices.Equal(told, []fleet.NodeName{"ari"}) {
					t.Errorf("told that %v are under way", told)
				}
				want := all("4", map[fleet.NodeName]string{"ari": "5"})
				if twice {
					want["ari"] = "5?"
					if took := time.Since(started); took > 15*time.Second {
						t.Errorf("it took %s to leave", took)
					}
				}
				if diff := cmp.Diff(want, s.stands()); diff != "" {
					t.Errorf("stands (-want +got):\n%s", diff)
				}
				s.free(t)
				// Whatever was left, the next apply goes on.
				if _, err := s.d.Apply(t.Context(), s.plan(t, soaking()), soaking()); err != nil {
					t.Fatal(err)
				}
				for n, at := range s.stands() {
					if !strings.HasPrefix(at, "5") && !strings.HasPrefix(at, "6") || strings.HasSuffix(at, "?") {
						t.Errorf("%s stands on %s after the next apply", n, at)
					}
				}
			})
		})
	}
}

// TestApplyOnly changes the node that was named, and nobody else.
func TestApplyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		o := Options{Only: []fleet.NodeName{"maco"}}
		if _, err := s.d.Apply(t.Context(), s.plan(t, o), o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all("4", map[fleet.NodeName]string{"maco": "5"}), s.stands()); diff != "" {
			t.Errorf("stands (-want +got):\n%s", diff)
		}
	})
}

func TestApplySaveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.d.Save = func(*fleet.Lock) error {
			if s.saves++; s.saves > 1 {
				return errors.New("disk full")
			}
			return nil
		}
		_, err := s.d.Apply(t.Context(), s.plan(t, soaking()), soaking())
		if err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("error %v", err)
		}
		for n, at := range s.stands() {
			if strings.HasSuffix(at, "?") {
				t.Errorf("%s was left on %s", n, at)
			}
		}
	})
}

func TestRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.by["bianco"].previous = 0
		seen, err := s.d.Observe(t.Context(), observeTimeout)
		if err != nil {
			t.Fatal(err)
		}
		b, err := plan.GoBack(s.d.Fleet, seen, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.d.Rollback(t.Context(), b, seen, Options{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all("3", map[fleet.NodeName]string{"bianco": "4"}), s.stands()); diff != "" {
			t.Errorf("stands (-want +got):\n%s", diff)
		}
		if s.log[0] != "ari activated 3" || s.log[1] != "ari confirmed 3" {
			t.Errorf("began with %q, want one worker alone", s.log[:2])
		}
		s.free(t)
	})
}

func TestFirstLine(t *testing.T) {
	var got []string
	f := &firstLine{told: func(b []byte) { got = append(got, string(b)) }}
	for _, part := range []string{"{\"a", "\":1}\nmore\n", "x\n"} {
		if n, err := io.Copy(f, bytes.NewBufferString(part)); err != nil || int(n) != len(part) {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if diff := cmp.Diff([]string{`{"a":1}`}, got); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
