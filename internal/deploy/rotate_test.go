package deploy

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/cargo"
	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan"
)

var errKilledHere = errors.New("the operator is dead")

// killed counts a command down.
func (b *boxes) killed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left > 0 {
		b.left--
	}
	return b.left == 0
}

// mesh is what the generation in force has a node know.
func (b *boxes) mesh(x *box) fleet.AgentConfig {
	m := x.manifests[x.current]
	f, _ := m.File(fleet.AgentConfigPath)
	return b.meshes[f.Digest]
}

// speaks is the key that a node goes by.
func (b *boxes) speaks(x *box) fleet.Key {
	for _, k := range b.keys[x.name] {
		c := b.mesh(x)
		if _, ok := c.Self(k); ok {
			return k
		}
	}
	return fleet.Key{}
}

func (b *boxes) nextKey(x *box, args []string) fleet.Key {
	if i := slices.Index(args, "--wanted"); i >= 0 {
		if k, err := fleet.ParseKey(args[i+1]); err == nil && slices.Contains(b.keys[x.name], k) {
			return k
		}
	}
	b.made++
	k := fleet.Key{100, b.made}
	b.keys[x.name] = append(b.keys[x.name], k)
	return k
}

// rotationScene is a fleet on which all is as its file says, with a lock on disk.
type rotationScene struct {
	*scene
	t    *testing.T
	disk *fleet.Lock
	bad  []string
}

func newRotationScene(t *testing.T) *rotationScene {
	t.Helper()
	s := &rotationScene{scene: newScene(t), t: t}
	s.meshes, s.keys, s.left = map[fleet.Digest]fleet.AgentConfig{}, map[fleet.NodeName][]fleet.Key{}, -1
	s.disk = s.d.Lock()
	s.remember()
	for _, n := range s.disk.Nodes {
		s.keys[n.Name] = []fleet.Key{n.MeshKey}
	}
	s.change = s.check
	s.d.Binaries = cargo.Binaries{"amd64": {Digest: fleet.DigestOf([]byte("old"))}}
	s.open()
	return s
}

// open is the operator coming back: with the lock as it was saved last.
func (s *rotationScene) open() {
	s.t.Helper()
	d := &Deployment{
		Fleet: s.d.Fleet, Binaries: s.d.Binaries, By: s.d.By, Version: s.d.Version, Progress: silent{}, run: s.boxes,
		Save: func(l *fleet.Lock) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.left == 0 {
				return errKilledHere
			}
			s.disk = l.Clone()
			s.remember()
			return nil
		},
	}
	if err := d.Open(s.disk); err != nil {
		s.t.Fatal(err)
	}
	s.d = d
}

func (s *rotationScene) remember() {
	c := agent.Config(s.d.Fleet, s.disk)
	s.meshes[agent.ConfigFile(c).Digest] = c
}

// check looks whether everybody knows everybody by the key that each goes by.
func (s *rotationScene) check() {
	for _, m := range s.by {
		mesh := s.mesh(m)
		for _, n := range s.by {
			speaks := s.speaks(n)
			known := slices.ContainsFunc(mesh.Nodes, func(o fleet.MeshNode) bool {
				return o.Name == n.name && slices.Contains(o.Keys(), speaks)
			})
			if !known {
				s.bad = append(s.bad, fmt.Sprintf("%s does not know %s by its key", m.name, n.name))
			}
		}
	}
}

func (s *rotationScene) rotate(name fleet.NodeName) ([]int, error) {
	var rounds []int
	err := s.d.Rotate(s.t.Context(), name, Options{}, func(n int, _ *plan.Plan) { rounds = append(rounds, n) })
	return rounds, err
}

// over looks whether the node has another key, all know it, and none the old one.
func (s *rotationScene) over(name fleet.NodeName, old fleet.Key) {
	s.t.Helper()
	now := s.disk.Node(name)
	if now.MeshKey == old || now.Rotating() {
		s.t.Errorf("the lock says %+v", now)
	}
	for _, m := range s.by {
		for _, n := range s.mesh(m).Nodes {
			if n.Name == name && !cmp.Equal(n.Keys(), []fleet.Key{now.MeshKey}) {
				s.t.Errorf("%s knows %s by %v", m.name, name, n.Keys())
			}
		}
	}
	s.check()
	for _, b := range s.bad {
		s.t.Error(b)
	}
	s.free(s.t)
}

func TestRotate(t *testing.T) {
	for _, name := range []fleet.NodeName{"bianco", "cosmo"} {
		t.Run(string(name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newRotationScene(t)
				old := s.disk.Node(name).MeshKey
				rounds, err := s.rotate(name)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]int{1, 2, 3}, rounds); diff != "" {
					t.Errorf("rounds (-want +got):\n%s", diff)
				}
				s.over(name, old)
				if s.made != 1 {
					t.Errorf("%d keys were made", s.made)
				}
			})
		})
	}
}

// TestRotateKilled kills the operator after every number of commands. Whatever
// stands then, everybody knows everybody, and going on comes to the end.
func TestRotateKilled(t *testing.T) {
	step := 9
	if os.Getenv("MOGGY_FAULTS") == "all" {
		step = 1
	}
	for i, later := range []time.Duration{0, time.Hour} { // in an hour nodes that nobody confirmed are back
		for n := 1 + 4*i; !t.Failed(); n += step {
			done := false
			synctest.Test(t, func(t *testing.T) {
				s := newRotationScene(t)
				old := s.disk.Node("bianco").MeshKey
				s.left = n
				_, err := s.rotate("bianco")
				done = err == nil
				s.left = -1
				time.Sleep(later + 30*time.Second) // until nobody holds the nodes any more
				s.open()
				if !done && !s.disk.Node("bianco").Rotating() && s.disk.Node("bianco").MeshKey == old {
					s.untouched(old)
					return // before anything began
				}
				if s.disk.Node("bianco").Rotating() {
					p := s.plan(t, Options{})
					if len(p.Rotations) != 1 || p.Rotations[0].Next != "moggy rotate bianco" {
						t.Errorf("killed at %d: the plan says %+v", n, p.Rotations)
					}
					if _, err := s.rotate("bianco"); err != nil {
						t.Fatalf("killed at %d: going on: %v", n, err)
					}
				}
				s.over("bianco", old)
				if s.made != 1 {
					t.Errorf("killed at %d: %d keys were made", n, s.made)
				}
			})
			if done {
				t.Logf("killed at every %d of %d commands, %s later", step, n-1, later)
				break
			}
		}
	}
}

// untouched looks whether all is as it was.
func (s *rotationScene) untouched(old fleet.Key) {
	s.t.Helper()
	for _, n := range s.disk.Nodes {
		if n.Rotating() {
			s.t.Errorf("%s is being rotated", n.Name)
		}
	}
	if s.speaks(s.by["bianco"]) != old {
		s.t.Error("bianco goes by another key")
	}
	s.check()
	for _, b := range s.bad {
		s.t.Error(b)
	}
}

// TestRotateGoesBack: a node that does not become healthy with its new key goes
// back to the one it had, which everybody knows still.
func TestRotateGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRotationScene(t)
		old := s.disk.Node("bianco").MeshKey
		var rounds []int
		err := s.d.Rotate(t.Context(), "bianco", Options{}, func(n int, _ *plan.Plan) {
			rounds = append(rounds, n)
			s.by["bianco"].sick = n == 2
		})
		if err == nil || !strings.Contains(err.Error(), "went back") {
			t.Fatalf("it ended with %v", err)
		}
		if s.speaks(s.by["bianco"]) != old {
			t.Error("bianco does not go by its old key")
		}
		s.by["bianco"].sick = false
		s.open()
		rounds, err = s.rotate("bianco")
		if err != nil {
			t.Fatal(err)
		}
		if len(rounds) == 0 || rounds[len(rounds)-1] != 3 {
			t.Errorf("going on took the rounds %v", rounds)
		}
		s.over("bianco", old)
	})
}

// TestRotateUnreachable: nobody gets a new key while somebody would not know it;
// what was begun goes on when all are back.
func TestRotateUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRotationScene(t)
		old := s.disk.Node("cosmo").MeshKey
		s.by["ari"].gone = true
		if _, err := s.rotate("cosmo"); err == nil || !strings.Contains(err.Error(), "ari") {
			t.Fatalf("with ari away: %v", err)
		}
		if s.made != 0 {
			t.Error("a key was made for nothing")
		}
		s.by["ari"].gone = false
		err := s.d.Rotate(t.Context(), "cosmo", Options{}, func(n int, _ *plan.Plan) { s.by["ari"].gone = n == 2 })
		if err == nil || !strings.Contains(err.Error(), "ari") || !s.disk.Node("cosmo").Rotating() {
			t.Fatalf("ari went after it had learned the key: %v", err)
		}
		if p := s.plan(t, Options{}); len(p.Rotations) != 1 {
			t.Errorf("the plan says nothing of ari: %+v", p.Rotations)
		}
		s.by["ari"].gone = false
		if rounds, err := s.rotate("cosmo"); err != nil || !cmp.Equal(rounds, []int{3}) {
			t.Errorf("going on: rounds %v, %v", rounds, err)
		}
		s.over("cosmo", old)
	})
}

// TestRotatePending: other changes are applied first, by an apply.
func TestRotatePending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRotationScene(t)
		s.d.Binaries = cargo.Binaries{"amd64": {Digest: fleet.DigestOf([]byte("new"))}}
		if _, err := s.rotate("bianco"); err == nil || s.made > 0 {
			t.Errorf("a rotation among other changes: %v, %d keys", err, s.made)
		}
	})
}
