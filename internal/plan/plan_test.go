package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

const secret = "hunter2"

// partsOf is what a node shall hold in these tests: a file that all share,
// a secret, a binary, and two units.
func partsOf(shared string) []fleet.Part {
	token := fleet.NewFile("/etc/moggy/token", 0o600, []byte(secret+shared))
	token.Secret = true
	return []fleet.Part{
		{
			Engine: "agent",
			Files: []fleet.File{
				fleet.NewFile("/etc/moggy/mesh.json", 0o644, []byte(shared)),
				fleet.NewFile("/etc/systemd/system/moggy-agent.service", 0o644, []byte("[Service]\n")),
				{Path: "/usr/local/bin/moggy", Mode: 0o755, Digest: fleet.DigestOf([]byte("binary"))},
				token,
			},
			Units:    []fleet.Unit{{Name: "moggy-agent.service", RestartOn: []string{"/usr/local/bin/moggy"}, ReloadOn: []string{"/etc/moggy/mesh.json"}}},
			Packages: []string{"wireguard-tools"},
		},
	}
}

// world is the fleet as it stands after an apply of generation 4.
type world struct {
	t  *testing.T
	in Input
}

func newWorld(t *testing.T, f *fleet.Fleet) *world {
	t.Helper()
	l, err := Allocate(f, &fleet.Lock{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, Input{
		Fleet: f, Lock: l, Observed: map[fleet.NodeName]Observation{},
		Parts: map[fleet.NodeName][]fleet.Part{}, Contents: map[fleet.Digest]string{},
	}}
	l.Generation = 4
	for i, n := range f.Nodes {
		e := l.Node(n.Name)
		e.MeshKey, e.Generation, e.Arch = fleet.Key{byte(i), byte(i >> 8), 1}, 4, "amd64"
		l.Put(e)
		w.want(n.Name, "one\ntwo\n")
		w.settle(n.Name)
	}
	return w
}

// want changes what the engines want of a node.
func (w *world) want(n fleet.NodeName, shared string) { w.in.Parts[n] = partsOf(shared) }

// settle makes the node hold what is wanted of it.
func (w *world) settle(n fleet.NodeName) {
	m, _, err := Assemble(w.in.Fleet.Name, n, w.in.Parts[n])
	if err != nil {
		w.t.Fatal(err)
	}
	m.Generation = 4
	w.in.Observed[n] = Observation{Seen: &fleet.Observed{
		Version: 1, Manifest: &m, Current: fleet.GenerationState{Number: 4, Confirmed: true},
		Units: []fleet.UnitState{{Name: "moggy-agent.service", Active: "active"}},
	}}
}

func (w *world) plan() *Plan {
	w.t.Helper()
	p, err := Compute(w.in)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func TestCompute(t *testing.T) {
	tests := map[string]func(*world){
		"nothing to do": func(*world) {},
		"a shared file changes": func(w *world) {
			for _, n := range w.in.Fleet.Nodes {
				w.want(n.Name, "one\n2\n")
			}
			for _, content := range []string{"one\ntwo\n", secret + "one\ntwo\n"} {
				w.in.Contents[fleet.DigestOf([]byte(content))] = content
			}
		},
		"content not fetched": func(w *world) { w.want("ari", "other\n") },
		"changed by hand": func(w *world) {
			w.in.Observed["miki"].Seen.Drift = []fleet.Drift{
				{Path: "/etc/moggy/mesh.json", Kind: fleet.DriftChanged, Content: "one\ntwo\nthree\n"},
				{Path: "/etc/moggy/token", Kind: fleet.DriftChanged},
				{Path: "/usr/local/bin/moggy", Kind: fleet.DriftMissing},
			}
			w.in.Observed["miki"].Seen.Units[0].Active = "failed"
		},
		"a new node, one that joins, one away, one gone": func(w *world) {
			for _, n := range []fleet.NodeName{"cosmo", "bianco"} {
				e := w.in.Lock.Node(n)
				e.MeshKey = fleet.Key{}
				w.in.Lock.Put(e)
			}
			w.in.Observed["maco"] = Observation{Problem: "ssh 198.51.100.12: Connection refused"}
			w.in.Lock.Put(fleet.NodeLock{Name: "elvis", Generation: 3})
		},
		"the first apply": func(w *world) {
			for _, n := range w.in.Fleet.Nodes {
				w.in.Observed[n.Name] = Observation{Seen: &fleet.Observed{Version: 1}}
			}
		},
		"never confirmed, and interrupted": func(w *world) {
			w.in.Observed["ari"].Seen.Current.Confirmed = false
			w.in.Observed["ziggy"].Seen.Activation = &fleet.Activation{Generation: 4}
		},
		"a package to add, a unit to stop": func(w *world) {
			parts := partsOf("one\ntwo\n")
			parts[0].Units[0].Name = "moggy-mesh.service"
			parts[0].Files[1].Path = "/etc/systemd/system/moggy-mesh.service"
			parts[0].Packages = append(parts[0].Packages, "nftables")
			w.in.Parts["bianco"] = parts
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, cats())
			change(w)
			p := w.plan()
			var b bytes.Buffer
			if err := p.Write(&b, term.NewPalette(false), true); err != nil {
				t.Fatal(err)
			}
			b.WriteString("\nwaves:\n")
			for i, wave := range p.Waves {
				for _, s := range wave {
					fmt.Fprintf(&b, "  %d %s %s %d\n", i+1, s.Node, s.Kind, s.Generation)
				}
			}
			golden(t, filepath.Join("testdata", "plan", strings.ReplaceAll(name, " ", "-")+".txt"), b.String())
			doc, err := json.Marshal(p.Document())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String()+string(doc), secret) {
				t.Error("a secret is printed")
			}
		})
	}
}

func TestNextGeneration(t *testing.T) {
	w := newWorld(t, cats())
	w.want("ari", "other\n")
	w.in.Observed["ziggy"].Seen.Kept = []int{7, 9}
	if p := w.plan(); p.Next != 10 {
		t.Errorf("with a lock at 4 and a node that keeps 9, the next generation is %d, want 10", p.Next)
	}
}

func TestComputeContradiction(t *testing.T) {
	w := newWorld(t, cats())
	w.in.Parts["ari"] = append(w.in.Parts["ari"], fleet.Part{Engine: "other", Files: []fleet.File{fleet.NewFile("/etc/moggy/mesh.json", 0o644, nil)}})
	_, err := Compute(w.in)
	if want := "node ari: agent and other both write /etc/moggy/mesh.json"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestAdopt(t *testing.T) {
	key := func(b byte) fleet.Key { return fleet.Key{b} }
	joined := fleet.Joined{Node: "bianco", Key: key(9), HostKey: "ssh-ed25519 AAAA"}
	fresh := func() *fleet.Lock {
		l, err := Allocate(cats(), &fleet.Lock{})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := fresh()
	names, err := Adopt(cats(), l, map[fleet.NodeName][]fleet.Joined{"cosmo": {joined}, "maco": {joined}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]fleet.NodeName{"bianco"}, names); diff != "" {
		t.Errorf("adopted (-want +got):\n%s", diff)
	}
	if n := l.Node("bianco"); n.MeshKey != key(9) || !cmp.Equal(n.HostKeys, []string{"ssh-ed25519 AAAA"}) {
		t.Errorf("bianco in the lock: %+v", n)
	}
	if names, err = Adopt(cats(), l, map[fleet.NodeName][]fleet.Joined{"cosmo": {joined}}); err != nil || len(names) > 0 {
		t.Errorf("adopting again: %v, %v; want nothing new", names, err)
	}
	thief := joined
	thief.Key = key(8)
	if _, err = Adopt(cats(), fresh(), map[fleet.NodeName][]fleet.Joined{"cosmo": {joined}, "maco": {thief}}); err == nil {
		t.Error("two hubs with two keys for one node: no error")
	}
	stranger := fleet.Joined{Node: "elvis", Key: key(7)}
	if names, err = Adopt(cats(), fresh(), map[fleet.NodeName][]fleet.Joined{"cosmo": {stranger}}); err != nil || len(names) > 0 {
		t.Errorf("a node that left the file: %v, %v; want it passed over", names, err)
	}
}

// TestGrowth holds the plan to cost near linear in nodes, by what it allocates,
// which is the same on every machine, and 1,000 nodes to half a second.
func TestGrowth(t *testing.T) {
	few, many := planCrowd(t, 100), planCrowd(t, 1000)
	if a, b := testing.AllocsPerRun(1, few), testing.AllocsPerRun(1, many); b > 15*a {
		t.Errorf("100 nodes take %.0f allocations, 1,000 take %.0f: more than 15 times as many", a, b)
	}
	fastest := time.Hour
	for range 10 { // the machine may be busy
		if fastest < time.Second/2 {
			return
		}
		began := time.Now()
		many()
		fastest = min(fastest, time.Since(began))
	}
	t.Errorf("1,000 nodes take %s", fastest)
}

// TestGrowthInTime looks at what allocates nothing: ten times the nodes take
// less than 18 times as long. A single search of all nodes for each makes it 25.
func TestGrowthInTime(t *testing.T) {
	few, many := planCrowd(t, 1000), planCrowd(t, 10000)
	fastest := map[bool]time.Duration{true: time.Hour, false: time.Hour}
	for range 10 { // the machine may be busy
		for large, work := range map[bool]func(){false: few, true: many} {
			began := time.Now()
			work()
			fastest[large] = min(fastest[large], time.Since(began))
		}
		if fastest[true] < 18*fastest[false] {
			return
		}
	}
	t.Errorf("1,000 nodes take %s, 10,000 take %s", fastest[false], fastest[true])
}

// BenchmarkPlan plans a change of the shared file on every node, with a
// service of two files on each: addresses, parts, differences, waves, failures.
func BenchmarkPlan(b *testing.B) {
	for _, nodes := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			work := planCrowd(b, nodes)
			b.ReportAllocs()
			for b.Loop() {
				work()
			}
		})
	}
}

// planCrowd prepares a fleet; what it returns plans it.
func planCrowd(tb testing.TB, nodes int) func() {
	f := crowd(nodes)
	l, err := Allocate(f, &fleet.Lock{})
	if err != nil {
		tb.Fatal(err)
	}
	seen := observedCrowd(tb, f, l)
	old := members(f) + "old\n"
	contents := map[fleet.Digest]string{fleet.DigestOf([]byte(old)): old}
	return func() {
		l, err := Allocate(f, l)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := Compute(Input{Fleet: f, Lock: l, Observed: seen, Contents: contents, Parts: crowdParts(f, "new\n")}); err != nil {
			tb.Fatal(err)
		}
	}
}

func crowdParts(f *fleet.Fleet, shared string) map[fleet.NodeName][]fleet.Part {
	parts := make(map[fleet.NodeName][]fleet.Part, len(f.Nodes))
	config := fleet.NewFile("/etc/moggy/mesh.json", 0o644, []byte(members(f)+shared))
	for i, n := range f.Nodes {
		agent := partsOf("")
		agent[0].Files[0] = config
		name := fmt.Sprintf("service-%d.service", i)
		parts[n.Name] = append(agent, fleet.Part{
			Engine: "systemd",
			Files: []fleet.File{
				fleet.NewFile("/etc/systemd/system/"+name, 0o644, []byte("[Service]\nExecStart=/bin/"+name+"\n")),
				fleet.NewFile("/etc/moggy/"+name+".env", 0o600, []byte("A="+name+shared)),
			},
			Units: []fleet.Unit{{Name: name, RestartOn: []string{"/etc/moggy/" + name + ".env"}}},
		})
	}
	return parts
}

// members is a line for each node, as long as the agent's configuration has.
func members(f *fleet.Fleet) string {
	var b strings.Builder
	for _, n := range f.Nodes {
		fmt.Fprintf(&b, "  {\"name\":%q,\"site\":%q,%s},\n", n.Name, n.Site, strings.Repeat("x", 150))
	}
	return b.String()
}

func observedCrowd(tb testing.TB, f *fleet.Fleet, l *fleet.Lock) map[fleet.NodeName]Observation {
	tb.Helper()
	seen := make(map[fleet.NodeName]Observation, len(f.Nodes))
	parts := crowdParts(f, "old\n")
	for i, n := range f.Nodes {
		e := l.Node(n.Name)
		e.MeshKey = fleet.Key{byte(i), byte(i >> 8), 1}
		l.Put(e)
		m, _, err := Assemble(f.Name, n.Name, parts[n.Name])
		if err != nil {
			tb.Fatal(err)
		}
		seen[n.Name] = Observation{
			Seen: &fleet.Observed{Manifest: &m, Current: fleet.GenerationState{Number: 1, Confirmed: true}},
		}
	}
	return seen
}
