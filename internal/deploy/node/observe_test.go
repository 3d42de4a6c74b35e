package node

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/curve25519"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func TestObserveLeavesNothing(t *testing.T) {
	m := newMachine(t)
	o := m.observe()
	if o.Current.Number != 0 || o.Manifest != nil || !o.MeshKey.IsZero() || o.Mesh != nil || o.System.DiskTotal == 0 {
		t.Errorf("of a machine without us: %+v", o)
	}
	if _, err := os.Lstat(m.root + Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a look made our directory: %v", err)
	}
}

func TestObserveGeneration(t *testing.T) {
	m := newMachine(t)
	m.write("/etc/os-release", "ID=raspbian\nID_LIKE=debian\n")
	g := ordinary(7, "a").file("/etc/moggy/secret", 0o600, "hush\n")
	g.Files[len(g.Files)-1].Secret = true
	g.file("/etc/moggy/binary", 0o644, "\x00\xff")
	g.Packages = []string{"nftables", "wireguard-tools"}
	m.apply(g)
	m.systemd.Kill("moggy-agent.service")
	os.Remove(m.root + "/etc/moggy/secret")
	m.write("/etc/moggy/secret", "hush hush\n")
	o, err := m.Observe(t.Context(), Look{Content: []string{
		"/etc/moggy/mesh.json", "/etc/moggy/secret", "/etc/moggy/binary", "/etc/shadow", "/etc/none",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"/etc/moggy/mesh.json": "mesh a\n"}, o.Contents); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]fleet.Drift{{Path: "/etc/moggy/secret", Kind: fleet.DriftChanged}}, o.Drift); diff != "" {
		t.Errorf("drift (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"wireguard-tools"}, o.Missing); diff != "" {
		t.Errorf("missing packages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{7}, o.Kept); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if len(o.Units) != 2 || o.Units[0].Active != "inactive" || o.Units[1].Name != "sshd.service" || o.Units[1].Active != "active" || o.Units[1].Since.IsZero() {
		t.Errorf("units %+v", o.Units)
	}
	if o.Manifest == nil || o.Manifest.Generation != 7 || !o.Current.Confirmed {
		t.Errorf("current %+v, manifest %+v", o.Current, o.Manifest)
	}
}

// TestObserveSeesEveryEdit: what is known of inodes hides none, not even one
// that leaves the file as long as it was and puts its times back.
func TestObserveSeesEveryEdit(t *testing.T) {
	m := newMachine(t)
	m.apply(ordinary(1, "a"))
	m.store.Now = func() time.Time { return time.Now().Add(time.Minute) } // every stamp is old enough
	m.observe()
	st, err := os.Stat(m.root + "/etc/moggy/mesh.json")
	if err != nil {
		t.Fatal(err)
	}
	m.write("/etc/moggy/mesh.json", "mesh X\n")
	if err := os.Chtimes(m.root+"/etc/moggy/mesh.json", st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if d := m.observe().Drift; len(d) != 1 {
		t.Errorf("drift %v", d)
	}
	o, err := m.Observe(t.Context(), Look{Deep: true})
	if err != nil || len(o.Drift) != 1 {
		t.Errorf("deep: %v, drift %v", err, o.Drift)
	}
}

func TestMeshKey(t *testing.T) {
	m := newMachine(t)
	var first fleet.Key
	for range 2 {
		err := m.locked(func(h *Held) error {
			key, err := h.Init()
			if !first.IsZero() && key != first {
				t.Error("the key changed")
			}
			first = key
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]fs.FileMode{Dir: 0o711, keysDir: 0o700, MeshKeyPath: 0o600} {
		if st, err := os.Stat(m.root + path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v (%v), want %v", path, st.Mode(), err, want)
		}
	}
	// Held against the library that wgctrl uses.
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(m.read(MeshKeyPath)))
	if err != nil {
		t.Fatal(err)
	}
	public, err := curve25519.X25519(secret, curve25519.Basepoint)
	if err != nil || fleet.Key(public) != first {
		t.Errorf("public key %s (%v), want %s", fleet.Key(public), err, first)
	}
	if secret[0]&7 != 0 || secret[31]&0xc0 != 0x40 {
		t.Error("not clamped as wg genkey does")
	}
	m.write(MeshKeyPath, "garbage\n")
	err = m.locked(func(h *Held) error { _, err := h.Init(); return err })
	if err == nil || m.read(MeshKeyPath) != "garbage\n" {
		t.Errorf("a key that cannot be read was replaced, or passed over: %v", err)
	}
	if strings.Contains(err.Error(), "garbage") {
		t.Errorf("the error shows what the key file holds: %v", err)
	}
}

// agent answers on the machine's agent socket.
func (m *machine) agent(h http.Handler) {
	m.t.Helper()
	socket := m.root + fleet.AgentSocket
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		m.t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		m.t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	go s.Serve(l)
	m.t.Cleanup(func() { s.Close() })
}

func TestAgent(t *testing.T) {
	m := newMachine(t)
	var invited fleet.Invitation
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(fleet.MeshStatus{Version: 1, Self: "ziggy"})
	})
	mux.HandleFunc("POST /invitations", func(w http.ResponseWriter, r *http.Request) {
		json.NewDecoder(r.Body).Decode(&invited)
		if invited.Node == "bad" {
			http.Error(w, "not a hub", http.StatusConflict)
		}
	})
	if err := m.Invite(t.Context(), fleet.Invitation{Node: "ari"}); err == nil {
		t.Error("no agent, no error")
	}
	m.agent(mux)
	if st := m.observe().Mesh; st == nil || st.Self != "ziggy" {
		t.Errorf("mesh %+v", st)
	}
	if err := m.Invite(t.Context(), fleet.Invitation{Node: "ari"}); err != nil || invited.Node != "ari" {
		t.Errorf("invited %+v, %v", invited, err)
	}
	if err := m.Invite(t.Context(), fleet.Invitation{Node: "bad"}); err == nil || !strings.Contains(err.Error(), "not a hub") {
		t.Errorf("the agent's refusal: %v", err)
	}
}

func TestSilentAgentDoesNotHoldUp(t *testing.T) {
	m := newMachine(t)
	done := make(chan struct{})
	m.agent(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	defer close(done)
	started := time.Now()
	if st := m.observe().Mesh; st != nil {
		t.Errorf("mesh %+v", st)
	}
	if took := time.Since(started); took > time.Second+2*time.Second {
		t.Errorf("waited %s", took)
	}
}

// BenchmarkObserve is of a node with a binary as large as ours and nothing
// wrong: the bar is 100 ms for the whole command.
func BenchmarkObserve(b *testing.B) {
	root := b.TempDir()
	n := New(Options{
		Root: root, Systemd: &FakeSystemd{Root: root}, Run: fakePackages(), Now: func() time.Time { return time.Now().Add(time.Minute) },
	})
	g := newGeneration(1).file("/usr/local/bin/moggy", 0o755, strings.Repeat("moggy\n", 60<<20/6)).file("/etc/moggy/mesh.json", 0o644, "{}")
	h, err := n.Lock(b.Context(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range g.Files {
		if err := h.PutBlob(f.Digest, f.Mode, strings.NewReader(string(g.content[f.Digest]))); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := h.Stage(g.Manifest); err != nil {
		b.Fatal(err)
	}
	m := &machine{Node: n}
	if _, err := h.Activate(b.Context(), Target{Generation: 1}, m.report); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if o, err := n.Observe(b.Context(), Look{}); err != nil || len(o.Drift) > 0 {
			b.Fatal(err, o.Drift)
		}
	}
}
