package doctor

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// trio is two hubs and a machine at home.
func trio() *Fleet {
	f := &fleet.Fleet{
		Name: "trio", Port: fleet.DefaultPort,
		Sites: []fleet.Site{{Name: "dc", Kind: fleet.Datacenter, IPv6: true}, {Name: "home", Kind: fleet.Home, NAT: fleet.CarrierNAT}},
	}
	l := &fleet.Lock{Generation: 4}
	for i, name := range []fleet.NodeName{"one", "two", "den"} {
		n := fleet.Node{Name: name, Site: "dc", SSH: fleet.SSH{User: "root"}, Public: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}}
		if name == "den" {
			n.Site, n.Public = "home", nil
		}
		f.Nodes = append(f.Nodes, n)
		l.Put(fleet.NodeLock{
			Name: name, MeshKey: fleet.Key{byte(i + 1)}, Generation: 4, HostKeys: []string{"ssh-ed25519 KEY"},
			V4: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}),
		})
	}
	return &Fleet{Fleet: f, Lock: l, Moggy: "0.2.0", Answers: make(map[fleet.NodeName]Answer)}
}

// well is an answer of which there is nothing to say.
func well(f *Fleet, name fleet.NodeName) Answer {
	own := f.Lock.Node(name)
	mesh := &fleet.MeshStatus{Version: 1, Self: name, Key: own.MeshKey, Agent: "0.2.0"}
	a := Answer{Sent: noon, Received: noon.Add(time.Second)}
	for _, n := range f.Lock.Nodes {
		if n.Name != name {
			mesh.Peers = append(mesh.Peers, fleet.PeerStatus{Name: n.Name, Path: fleet.PathDirectV4, RTTMicro: 1500})
			a.Echoes = append(a.Echoes, fleet.Echo{Peer: n.Name, Ms: 40})
		}
	}
	a.Examination = fleet.Examination{
		Protocol: 2, Version: 1, Kernel: fleet.Kernel{Cgroup: 2}, Systemd: "running", NTP: fleet.Yes, Clock: noon.Add(time.Second / 2),
		Mounts:   []fleet.Mount{{Path: "/var/lib/moggy", Total: 20 << 30, Free: 12 << 30, Inodes: 1 << 20, InodesFree: 1 << 19}},
		MeshPort: fleet.DefaultPort, Ports: []fleet.Port{{Protocol: "udp", Number: fleet.DefaultPort, Owner: agentUnit}, {Protocol: "tcp", Number: 22, Owner: "ssh.service"}},
		Echoes: a.Echoes,
		Observed: &fleet.Observed{
			Version: 1, Moggy: "0.2.0", Current: fleet.GenerationState{Number: 4, Confirmed: true}, Mesh: mesh,
			Manifest: &fleet.Manifest{Fleet: f.Fleet.Name, Node: name, Generation: 4, Files: make([]fleet.ManifestFile, 5)},
			System:   fleet.System{MemTotal: 4 << 30, MemFree: 3 << 30},
			Units:    []fleet.UnitState{{Name: agentUnit, Active: "active", Sub: "running"}, {Name: "web.service", Active: "active", Sub: "running"}},
		},
	}
	return a
}

// play runs a round without a world: a probe finds what found says, or what the
// nodes' answers say, or else has passed.
func play(t *testing.T, f *Fleet, names []fleet.NodeName, found func(Probe) (Result, bool), change func(map[fleet.NodeName]*Answer)) Report {
	t.Helper()
	answers := make(map[fleet.NodeName]*Answer)
	for _, n := range f.Fleet.Nodes {
		a := well(f, n.Name)
		answers[n.Name] = &a
	}
	if change != nil {
		change(answers)
	}
	r := NewRound(Graph(f.Fleet, f.Lock, names))
	f.Results = r.Result
	var running []Probe
	for {
		running = append(running, r.Begin()...)
		if len(running) == 0 {
			break
		}
		p := running[0]
		running = running[1:]
		res, ok := found(p)
		switch {
		case ok:
		case p.ID.Node == "" && rank(p.ID.Name) > rank(Network):
			res = f.JudgeAll(p.ID.Name)
		case p.ID.Node != "" && p.ID.Name == Moggy:
			f.Answers[p.ID.Node] = *answers[p.ID.Node]
			res = f.Judge(p.ID)
		case p.ID.Node != "" && p.Hub == "" && rank(p.ID.Name) > rank(Moggy):
			res = f.Judge(p.ID)
		default:
			res = pass("fine")
		}
		r.Finish(p.ID, res)
	}
	asked := names
	if len(names) == 0 {
		for _, n := range f.Fleet.Nodes {
			asked = append(asked, n.Name)
		}
	}
	for _, o := range r.Outcomes() {
		if o.Status == "" {
			t.Errorf("%s is not over", o.ID)
		}
	}
	return f.Conclude(asked, r.Outcomes(), time.Second)
}

func nothing(Probe) (Result, bool) { return Result{}, false }

// failing finds that these probes fail.
func failing(res Result, ids ...ID) func(Probe) (Result, bool) {
	return func(p Probe) (Result, bool) { return res, slices.Contains(ids, p.ID) }
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", strings.ReplaceAll(name, " ", "-")+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestEachProbeFailing fails every probe in turn: what is skipped because of
// it, and that the verdict is about it.
func TestEachProbeFailing(t *testing.T) {
	var out strings.Builder
	f := trio()
	for _, p := range Graph(f.Fleet, f.Lock, nil) {
		r := play(t, trio(), nil, failing(fail("mend it", "is broken"), p.ID), nil)
		fmt.Fprintf(&out, "%s\n  verdict: %s -> %s\n", p.ID, r.Verdict.Text, r.Verdict.Next)
		skipped := make(map[fleet.NodeName][]string)
		for _, l := range r.Probes {
			if l.Status != Skipped {
				continue
			}
			skipped[l.Node] = append(skipped[l.Node], string(l.Probe))
			if l.Because != p.ID.String() {
				t.Errorf("%s failed, but %s %s was skipped because of %s", p.ID, l.Node, l.Probe, l.Because)
			}
		}
		for _, n := range []fleet.NodeName{"", "one", "two", "den"} {
			if len(skipped[n]) > 0 {
				fmt.Fprintf(&out, "  skipped%s: %s\n", strings.TrimRight(" "+string(n), " "), strings.Join(skipped[n], ", "))
			}
		}
		unneeded := strings.HasPrefix(string(p.ID.Name), viaPrefix) && p.ID.Node != "den"
		if r.Healthy != unneeded {
			t.Errorf("%s failed, and the fleet is healthy: %v", p.ID, r.Healthy)
		}
	}
	golden(t, "each", out.String())
}

func TestScreens(t *testing.T) {
	silent := fail("at its keyboard", "192.0.2.2:22 does not answer")
	silent.Silent = true
	refused := fail("at its keyboard", "192.0.2.1:22 refuses: its sshd does not run")
	tests := map[string]struct {
		names  []fleet.NodeName
		found  func(Probe) (Result, bool)
		change func(map[fleet.NodeName]*Answer)
	}{
		"all is well": {nil, nothing, nil},
		"a hub is off": {nil, failing(silent, ID{"two", TCP}, ID{"two", Via("one")}), func(a map[fleet.NodeName]*Answer) {
			for _, n := range []fleet.NodeName{"one", "den"} {
				lose(a[n], "two")
			}
		}},
		"sshd is stopped":  {nil, failing(refused, ID{"one", TCP}, ID{"one", Via("two")}), nil},
		"your own network": {nil, failing(silent, ID{"one", TCP}, ID{"two", TCP}), nil},
		"one node":         {[]fleet.NodeName{"den"}, nothing, func(a map[fleet.NodeName]*Answer) { crash(a["den"]) }},
		"your clock":       {nil, nothing, func(a map[fleet.NodeName]*Answer) { turn(a, 365*24*time.Hour, "one", "two", "den") }},
		"one clock":        {nil, nothing, func(a map[fleet.NodeName]*Answer) { turn(a, -365*24*time.Hour, "den") }},
		"udp is blocked": {nil, nothing, func(a map[fleet.NodeName]*Answer) {
			lose(a["two"], "one", "den")
			lose(a["one"], "two")
			lose(a["den"], "two")
		}},
		"disk and warnings": {nil, nothing, func(a map[fleet.NodeName]*Answer) {
			a["one"].Mounts[0].Free = 1 << 20
			a["two"].Mounts[0].Free = 1 << 30
			turn(a, 3*time.Second, "den")
			a["two"].Observed.Units[1].Restarts = 40
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := play(t, trio(), tt.names, tt.found, tt.change)
			var b bytes.Buffer
			if err := r.Write(&b, term.NewPalette(false)); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.String())
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// lose cuts the paths from a node to others.
func lose(a *Answer, to ...fleet.NodeName) {
	for i, p := range a.Observed.Mesh.Peers {
		if slices.Contains(to, p.Name) {
			a.Observed.Mesh.Peers[i].Path = fleet.PathNone
		}
	}
}

func crash(a *Answer) {
	a.Observed.Mesh = nil
	a.Observed.Units[0] = fleet.UnitState{Name: agentUnit, Active: "failed", Sub: "failed", Restarts: 5}
	a.Logs = []fleet.UnitLog{{Unit: agentUnit, Lines: []string{"moggy: error: /etc/moggy/mesh.json: no such file"}}}
}

// turn sets the clocks of nodes.
func turn(a map[fleet.NodeName]*Answer, by time.Duration, nodes ...fleet.NodeName) {
	for _, n := range nodes {
		a[n].Clock = a[n].Clock.Add(by)
	}
}

// TestLargeFleet holds the graph to growing with the fleet, not with its
// square.
func TestLargeFleet(t *testing.T) {
	f := trio()
	for i := range 100 {
		name := fleet.NodeName(fmt.Sprintf("n%d", i))
		f.Fleet.Nodes = append(f.Fleet.Nodes, fleet.Node{Name: name, Site: "home", SSH: fleet.SSH{User: "root"}})
		f.Lock.Put(fleet.NodeLock{Name: name, MeshKey: fleet.Key{9, byte(i), byte(i >> 8)}, HostKeys: []string{"k"}, Generation: 4})
	}
	edges := 0
	for _, p := range Graph(f.Fleet, f.Lock, nil) {
		edges += len(p.Needs) + len(p.Any) + len(p.After)
	}
	if most := 60 * len(f.Fleet.Nodes); edges > most {
		t.Errorf("%d dependencies for %d nodes, want at most %d", edges, len(f.Fleet.Nodes), most)
	}
	if r := play(t, f, nil, failing(fail("", "is broken"), ID{"one", TCP}), nil); len(r.Causes) != 1 || r.Causes[0].Probe != TCP {
		t.Errorf("causes: %+v", r.Causes)
	}
}

func TestOneNodeAsked(t *testing.T) {
	silent := fail("", "does not answer")
	r := play(t, trio(), []fleet.NodeName{"one"}, failing(silent, ID{"two", TCP}), nil)
	if !r.Healthy {
		t.Errorf("asked about one alone: %+v", r.Causes)
	}
	r = play(t, trio(), []fleet.NodeName{"one"}, failing(silent, ID{"one", TCP}), nil)
	for _, l := range r.Probes {
		if l.Node == "one" && l.Probe == Moggy && l.Status != Passed {
			t.Errorf("one was not reached through two: %+v", l)
		}
	}
	if r.Healthy || r.Causes[0].Probe != TCP {
		t.Errorf("causes: %+v", r.Causes)
	}
}
