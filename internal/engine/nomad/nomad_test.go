package nomad

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/moggyfleet/moggy/internal/fleet"
)

var update = flag.Bool("update", false, "write what is rendered now into the goldens")

type digests struct{}

func (digests) Digest(arch string) fleet.Digest { return fleet.DigestOf([]byte("nomad for " + arch)) }

type programs struct{}

func (programs) Digest(exec, arch string) fleet.Digest { return fleet.DigestOf([]byte(exec + arch)) }

func cats() (*fleet.Fleet, *fleet.Lock) {
	f := &fleet.Fleet{
		Name: "cats", Domain: "cats.example", Scheduler: fleet.Nomad,
		Sites: []fleet.Site{{Name: "rack", Kind: fleet.Datacenter}, {Name: "home", Kind: fleet.Home}},
		Nodes: []fleet.Node{{Name: "cosmo", Site: "rack"}, {Name: "maco", Site: "rack"}, {Name: "miki", Site: "rack"}, {Name: "ari", Site: "home"}},
		Services: []fleet.Service{
			{Name: "web", Image: "registry.cats.example/web:1.4.2", Port: 80, Count: 2, Health: fleet.Health{Kind: fleet.HealthHTTP, Path: "/"}, Memory: 100 << 20},
			{Name: "blog", Static: "./public"},
			{
				Name: "tool", Exec: "./tool", Args: []string{"--listen", "8080"}, Port: 8080, Count: 1, On: []fleet.Party{{Node: "ari"}},
				Env: []fleet.Variable{{Name: "MODE", Value: "all"}}, Health: fleet.Health{Kind: fleet.HealthTCP},
				Volumes: []fleet.Volume{{Name: "data", Path: "/data"}},
			},
			{Name: "worker", Image: "worker:1", Count: 3, Health: fleet.Health{Kind: fleet.HealthNone}, Volumes: []fleet.Volume{{Name: "state", Path: "/state"}}},
		},
	}
	l := &fleet.Lock{}
	for i, n := range f.Nodes {
		l.Put(fleet.NodeLock{Name: n.Name, V4: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}), Arch: "amd64", CA: []byte("authority of " + n.Name)})
	}
	return f, l
}

// TestParts compares what a server and a client get with the goldens.
func TestParts(t *testing.T) {
	f, l := cats()
	n := New(f, l, digests{}, programs{})
	got := &txtar.Archive{Comment: []byte("What a server and a client are given; the binary and programs by digest.\n")}
	for _, node := range []fleet.Node{f.Nodes[0], f.Nodes[3]} {
		part := n.Part(node)
		var list strings.Builder
		for _, file := range part.Files {
			list.WriteString(file.Path + "\n")
			if strings.HasPrefix(filepath.Base(file.Path), "nomad") && file.Content != nil || strings.HasSuffix(file.Path, "/"+Unit) {
				got.Files = append(got.Files, txtar.File{Name: string(node.Name) + file.Path, Data: file.Content})
			}
		}
		rest, err := json.MarshalIndent(map[string]any{"units": part.Units, "packages": part.Packages, "images": part.Images, "checks": part.Checks}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got.Files = append(got.Files, txtar.File{Name: string(node.Name) + "/files", Data: []byte(list.String())},
			txtar.File{Name: string(node.Name) + "/rest.json", Data: append(rest, '\n')})
	}
	golden(t, "parts.txtar", got)
}

// TestJobs compares the services' jobs with the goldens.
func TestJobs(t *testing.T) {
	f, l := cats()
	got := &txtar.Archive{Comment: []byte("The services of a fleet as Nomad's jobs; what is not set is left out.\n")}
	for _, j := range New(f, l, digests{}, programs{}).Jobs() {
		b, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(bare(v), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got.Files = append(got.Files, txtar.File{Name: *j.ID + ".json", Data: append(text, '\n')})
	}
	golden(t, "jobs.txtar", got)
}

// bare leaves out what has no value.
func bare(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if x = bare(x); x == nil || x == "" || x == false || x == 0.0 {
				delete(v, k)
			} else {
				v[k] = x
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = bare(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

func golden(t *testing.T, name string, got *txtar.Archive) {
	t.Helper()
	path := filepath.Join("testdata", name)
	text := txtar.Format(got)
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestNoOtherAuthority: only servers may sign for Nomad (package pki says why).
func TestNoOtherAuthority(t *testing.T) {
	f, l := cats()
	n := New(f, l, digests{}, programs{})
	if got := bytes.Count(n.roots.Content, []byte("BEGIN CERTIFICATE")); got != 3 || len(n.Servers()) != 3 {
		t.Errorf("%d authorities for %d servers", got, len(n.Servers()))
	}
	no := false
	f.Nodes[1].Server, f.Nodes[2].Server = &no, &no
	if got := bytes.Count(New(f, l, digests{}, programs{}).roots.Content, []byte("BEGIN CERTIFICATE")); got != 1 {
		t.Errorf("%d authorities for one server", got)
	}
}
