package plan

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
	"github.com/moggyfleet/moggy/internal/term"
)

const binaryPath = "/usr/local/bin/moggy"

// rebuilt is a fleet whose nodes are to get another binary.
func rebuilt(t *testing.T) *world {
	w := newWorld(t, cats())
	w.in.Binary, w.in.Moggy, w.in.Soak = binaryPath, "0.3.0", rollout.DefaultSoak
	for _, n := range w.in.Fleet.Nodes {
		parts := partsOf("one\ntwo\n")
		parts[0].Files[2].Digest = fleet.DigestOf([]byte("another binary"))
		w.in.Parts[n.Name] = parts
	}
	return w
}

func TestWriteOrder(t *testing.T) {
	w := rebuilt(t)
	w.in.Lock.Put(fleet.NodeLock{Name: "elvis", Generation: 3})
	var b bytes.Buffer
	if err := w.plan().WriteOrder(&b, term.NewPalette(false)); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "order.txt"), b.String())
}

func TestOnly(t *testing.T) {
	w := rebuilt(t)
	w.in.Only = []fleet.NodeName{"ari", "cosmo"}
	p := w.plan()
	var b bytes.Buffer
	if err := p.Write(&b, term.NewPalette(false), false); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "only.txt"), b.String())
	var names []fleet.NodeName
	for _, n := range p.Rollout {
		names = append(names, n.Name)
		if !n.Named {
			t.Errorf("%s is not known to be the operator's choice", n.Name)
		}
	}
	if diff := cmp.Diff([]fleet.NodeName{"cosmo", "ari"}, names); diff != "" {
		t.Errorf("nodes of the rollout (-want +got):\n%s", diff)
	}
	w.in.Only = []fleet.NodeName{"elvis"}
	if _, err := Compute(w.in); err == nil || !strings.Contains(err.Error(), "no node elvis") {
		t.Errorf("a node that is not in the file: %v", err)
	}
}

func TestNewer(t *testing.T) {
	for _, tt := range []struct {
		theirs, ours string
		want         bool
	}{
		{"0.2.0", "0.1.0", true},
		{"0.1.0", "0.2.0", false},
		{"0.1.0", "0.1.0", false},
		{"0.1.0", "0.1.0-dev", false},
		{"0.1.0-dev", "0.1.0", false},
		{"0.10.0-dev", "0.9.0", true},
		{"0.1.0-rc.2", "0.1.0-rc.1", true},
		{"v1.0.0", "0.9.9", true},
		{"nonsense", "0.1.0", false},
		{"0.2.0", "", false},
	} {
		if got := newer(tt.theirs, tt.ours); got != tt.want {
			t.Errorf("newer(%q, %q) = %v, want %v", tt.theirs, tt.ours, got, tt.want)
		}
	}
}

func TestPlanNewer(t *testing.T) {
	w := rebuilt(t)
	w.in.Observed["ari"].Seen.Moggy = "0.4.0"
	w.in.Observed["miki"].Seen.Moggy = "0.4.0"
	w.settle("miki") // it has what is wanted, whoever answered
	w.in.Observed["miki"].Seen.Moggy = "0.4.0"
	p := w.plan()
	if got := p.Newer(); len(got) != 1 || got[0].Node != "ari" || got[0].Newer != "0.4.0" {
		t.Errorf("newer than ours: %+v, want ari alone", got)
	}
}

// TestSaved moves one thing after the other, and has it said.
func TestSaved(t *testing.T) {
	save := func(w *world) Saved {
		s := w.plan().Fingerprint()
		s.File, s.Lock = "file", "lock"
		s.Binaries = map[string]fleet.Digest{"amd64": "binary"}
		return s
	}
	tests := map[string]struct {
		change func(*world)
		after  func(*Saved)
		want   []string
	}{
		"nothing":  {nil, nil, nil},
		"the file": {nil, func(s *Saved) { s.File = "other" }, []string{"the fleet file has changed"}},
		"the lock": {nil, func(s *Saved) { s.Lock = "other" }, []string{"the lock has changed"}},
		"our binary": {
			nil, func(s *Saved) { s.Binaries = map[string]fleet.Digest{"amd64": "other"} },
			[]string{"this is another build of moggy"},
		},
		"another choice": {nil, func(s *Saved) { s.Only = []fleet.NodeName{"ari"} }, []string{"it was made for all nodes, this is for [ari]"}},
		"another fleet":  {nil, func(s *Saved) { s.Fleet = "dogs" }, []string{`it is of the fleet "cats", this is "dogs"`}},
		"a generation": {
			func(w *world) { w.in.Observed["ari"].Seen.Current.Number = 3 }, nil,
			[]string{"ari was on generation 4, is on 3"},
		},
		"drift": {func(w *world) {
			w.in.Observed["ari"].Seen.Drift = []fleet.Drift{{Path: "/etc/moggy/mesh.json", Kind: fleet.DriftMissing}}
		}, nil, []string{"ari was changed by hand"}},
		"what it holds": {
			func(w *world) { w.in.Observed["ari"].Seen.Manifest.Packages = nil }, nil,
			[]string{"ari holds another generation 4"},
		},
		"confirmed":    {func(w *world) { w.in.Observed["ari"].Seen.Current.Confirmed = false }, nil, []string{"ari has generation 4 confirmed, or no longer"}},
		"what it gets": {func(w *world) { w.want("ari", "other") }, nil, []string{"ari would get something else"}},
		"away":         {func(w *world) { w.in.Observed["ari"] = Observation{} }, nil, []string{"ari does not answer any more"}},
		"away, with nothing to do": {func(w *world) {
			w.in.Observed["miki"] = Observation{}
		}, nil, nil},
		"gone": {nil, func(s *Saved) { s.Nodes = s.Nodes[1:] }, []string{"cosmo is gone"}},
		"come": {nil, func(s *Saved) { s.Nodes = append(s.Nodes, SavedNode{Node: "elvis"}) }, []string{"elvis was not in it"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			first := rebuilt(t)
			first.settle("miki")
			saved := save(first)
			var b bytes.Buffer
			if err := saved.Write(&b); err != nil {
				t.Fatal(err)
			}
			read, err := ParseSaved(b.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			w := rebuilt(t)
			w.settle("miki")
			if tt.change != nil {
				tt.change(w)
			}
			now := save(w)
			if tt.after != nil {
				tt.after(&now)
			}
			if diff := cmp.Diff(tt.want, read.Moved(now)); diff != "" {
				t.Errorf("moved (-want +got):\n%s", diff)
			}
			if strings.Contains(b.String(), secret) || strings.Contains(b.String(), "two") {
				t.Error("content is saved")
			}
		})
	}
}

func TestParseSavedRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "no saved plan",
		"no":                             "no saved plan",
		`{"version":2}`:                  "of version 2",
		`{"version":1,"more":1}`:         "unknown field",
		`{"version":1,"nodes":[{}]}`:     "without a name",
		`{"version":1} {}`:               "no saved plan",
		`{"version":1,"fleet":["cats"]}`: "no saved plan",
		strings.Repeat(" ", MaxSaved+1):  "longer than",
		`{"version":1,"nodes":[{"node":"a"},{"node":"a"}]}`: "there twice",
	} {
		if _, err := ParseSaved([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: error %v, want %q", in, err, want)
		}
	}
}

// FuzzParseSaved: what is let through says the same once written again, and is
// never taken for what it is not.
func FuzzParseSaved(f *testing.F) {
	f.Add([]byte(`{"version":1,"fleet":"cats","file":"a","lock":"b","nodes":[{"node":"ari","action":"change","generation":4,"to":5}]}`))
	f.Add([]byte(`{"version":9}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := ParseSaved(in)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := s.Write(&b); err != nil {
			t.Fatal(err)
		}
		back, err := ParseSaved(b.Bytes())
		if err != nil {
			if b.Len() > MaxSaved {
				return // our own layout has more space in it
			}
			t.Fatalf("written and read again: %v", err)
		}
		if moved := s.Moved(back); len(moved) > 0 {
			t.Errorf("written and read again it has moved: %q", moved)
		}
	})
}
