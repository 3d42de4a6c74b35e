package status

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// three is a fleet of a hub and two machines at home.
func three() (*fleet.Fleet, *fleet.Lock) {
	f := &fleet.Fleet{Name: "three", Nodes: []fleet.Node{
		{Name: "hub", Site: "dc", Public: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, SSH: fleet.SSH{User: "root"}},
		{Name: "ari", Site: "home", SSH: fleet.SSH{User: "root"}},
		{Name: "bianco", Site: "madrid", SSH: fleet.SSH{User: "root"}},
	}}
	l := &fleet.Lock{Generation: 4}
	for i, n := range f.Nodes {
		l.Put(fleet.NodeLock{
			Name: n.Name, MeshKey: fleet.Key{byte(i + 1)}, Generation: 4,
			V4: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}), V6: netip.MustParseAddr("fd00::1"),
		})
	}
	return f, l
}

// well is a node about which there is nothing to say.
func well(peers ...fleet.PeerStatus) *fleet.Observed {
	return &fleet.Observed{
		Version: 1, Moggy: "0.1.0",
		System: fleet.System{
			Uptime: 50 * time.Hour, Load1: 0.25, CPUs: 2, Clock: noon,
			DiskTotal: 100, DiskFree: 69, MemTotal: 100, MemFree: 60,
		},
		Current: fleet.GenerationState{Number: 4, Confirmed: true},
		Units:   []fleet.UnitState{{Name: "moggy-agent.service", Active: "active"}},
		Mesh:    &fleet.MeshStatus{Agent: "0.1.0", Peers: peers},
	}
}

func answers() map[fleet.NodeName]Answer {
	return map[fleet.NodeName]Answer{
		"hub": {Seen: well(
			fleet.PeerStatus{Name: "ari", Path: fleet.PathDirectV6, RTTMicro: 900},
			fleet.PeerStatus{Name: "bianco", Path: fleet.PathDirectV4, RTTMicro: 31_000, HeardMs: 400})},
		"ari": {Via: "hub", Seen: well(
			fleet.PeerStatus{Name: "hub", Path: fleet.PathDirectV6, RTTMicro: 950},
			fleet.PeerStatus{Name: "bianco", Path: fleet.PathRelayed, Via: "hub", RTTMicro: 48_000})},
		"bianco": {Via: "hub", Seen: well(
			fleet.PeerStatus{Name: "hub", Path: fleet.PathDirectV4, RTTMicro: 30_000},
			fleet.PeerStatus{Name: "ari", Path: fleet.PathRelayed, Via: "hub"})},
	}
}

func TestSummarise(t *testing.T) {
	tests := map[string]func(*fleet.Lock, map[fleet.NodeName]Answer){
		"all is well": func(*fleet.Lock, map[fleet.NodeName]Answer) {},
		"one is away": func(_ *fleet.Lock, a map[fleet.NodeName]Answer) {
			a["bianco"] = Answer{Problem: "no answer within 2.5s"}
		},
		"one has not joined": func(l *fleet.Lock, a map[fleet.NodeName]Answer) {
			l.Remove("bianco")
			l.Remove("hub")
			delete(a, "bianco")
			delete(a, "hub")
		},
		"everything that can be wrong with one": func(_ *fleet.Lock, a map[fleet.NodeName]Answer) {
			o := a["ari"].Seen
			o.Current.Confirmed = false
			o.Units[0].Active = "failed"
			o.Mesh = nil
			o.Drift = []fleet.Drift{{Path: "/etc/moggy/mesh.json", Kind: fleet.DriftChanged}}
			o.System.DiskFree, o.System.MemFree = 4, 2
			o.System.Clock = noon.Add(-365 * 24 * time.Hour)
		},
		"nobody talked for an hour": func(_ *fleet.Lock, a map[fleet.NodeName]Answer) {
			a["hub"].Seen.Mesh.Peers[1].HeardMs = 3_600_000
			a["bianco"] = Answer{Problem: "no answer within 2.5s"} // and so nobody knows
			a["ari"].Seen.Mesh.Peers[1].HeardMs = 3_600_000
		},
		"services": func(_ *fleet.Lock, a map[fleet.NodeName]Answer) {
			runs := func(n fleet.NodeName, s fleet.ServiceName, active, sub string) {
				a[n].Seen.Units = append(a[n].Seen.Units, fleet.UnitState{Name: s.Unit(), Active: active, Sub: sub, Since: noon.Add(-time.Minute)})
			}
			runs("hub", "web", "active", "running")
			runs("ari", "web", "active", "running")
			runs("ari", "api", "activating", "auto-restart")
			runs("hub", "api", "active", "running")
			a["ari"].Seen.Failing = map[string]string{"moggy-service-web.service": "http://10.77.0.2:8080/: status 500"}
			a["bianco"] = Answer{Problem: "no answer within 2.5s"}
			a["hub"].Seen.Ingress = &fleet.IngressStatus{Certificates: []fleet.Certificate{
				{Host: "cats.example", NotAfter: noon.Add(80 * 24 * time.Hour)},
				{Host: "new.cats.example"},
				{Host: "old.cats.example", NotAfter: noon.Add(10 * 24 * time.Hour), Problem: "no route to the directory"},
				{Host: "bad.cats.example", Problem: "the name leads elsewhere"},
			}}
			a["ari"].Seen.Ingress = &fleet.IngressStatus{Certificates: []fleet.Certificate{
				{Host: "cats.example", NotAfter: noon.Add(20 * 24 * time.Hour)},
			}}
		},
		"no path between two": func(_ *fleet.Lock, a map[fleet.NodeName]Answer) {
			a["ari"].Seen.Mesh.Peers[1] = fleet.PeerStatus{Name: "bianco", Path: fleet.PathNone}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			f, l := three()
			if name == "services" {
				f.Services = []fleet.Service{
					{Name: "web", Count: 3, Expose: []fleet.Route{{Host: "cats.example", Path: "/"}, {Host: "www.cats.example", Path: "/a"}}},
					{Name: "api", Count: 2, On: []fleet.Party{{Node: "hub"}, {Node: "ari"}}},
					{Name: "new", Count: 1, On: []fleet.Party{{Node: "hub"}}},
					{Name: "blog", Static: "./blog", Expose: []fleet.Route{{Host: "blog.cats.example", Path: "/"}}},
				}
			}
			a := answers()
			change(l, a)
			s := Summarise(f, l, a, noon)
			var b bytes.Buffer
			if err := s.Write(&b, term.NewPalette(false)); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", strings.ReplaceAll(name, " ", "-")+".txt"), b.String())
		})
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 119 * time.Second: "119 s", 2 * time.Minute: "2 min", 119 * time.Minute: "119 min",
		2 * time.Hour: "2 h", 47 * time.Hour: "47 h", 48 * time.Hour: "2 d", 1000 * time.Hour: "41 d",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
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
