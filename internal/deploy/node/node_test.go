package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// machine is a node in a temporary directory.
type machine struct {
	*Node
	t       *testing.T
	root    string
	systemd *FakeSystemd
	events  []protocol.Event
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root := tempDir(t)
	m := &machine{t: t, root: root, systemd: &FakeSystemd{Root: root, Config: "/etc/moggy/mesh.json"}}
	m.Node = New(Options{
		Root: root, Systemd: m.systemd, Run: fakePackages("nftables"), Now: time.Now,
		Version: "test", By: "nico@laptop", Await: 5 * time.Second,
	})
	m.disk.NoSync, m.linkAbove = true, 1000
	for _, dir := range []string{"/etc/systemd/system", "/usr/local/bin", "/var/lib", "/run", "/etc/ssh/sshd_config.d"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.systemd.Foreign("sshd.service")
	return m
}

// tempDir is in memory where there is such a place: these tests change many
// small files, which some disks take ten times as long for.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "moggy-test-") //nolint:usetesting // t.TempDir cannot be told where
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// hold locks the machine for the test's step.
func (m *machine) hold() *Held {
	m.t.Helper()
	h, err := m.Lock(m.t.Context(), "test")
	if err != nil {
		m.t.Fatal(err)
	}
	return h
}

func (m *machine) locked(work func(*Held) error) error {
	m.t.Helper()
	h := m.hold()
	defer h.Release()
	return work(h)
}

func (m *machine) write(path, content string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.root+path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.root+path, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// read is what a path shows, through links, or "" with the error's text.
func (m *machine) read(path string) string {
	b, err := os.ReadFile(m.root + path)
	if err != nil {
		return "(" + errorKind(err) + ")"
	}
	return string(b)
}

func errorKind(err error) string {
	if os.IsNotExist(err) {
		return "nothing"
	}
	return err.Error()
}

// generation is a manifest and its content, in the making.
type generation struct {
	fleet.Manifest
	content map[fleet.Digest][]byte
}

func newGeneration(number int) *generation {
	return &generation{
		Manifest: fleet.Manifest{Version: 1, Fleet: "cats", Node: "ziggy", Generation: number},
		content:  make(map[fleet.Digest][]byte),
	}
}

func (g *generation) file(path string, mode uint32, content string) *generation {
	f := fleet.NewFile(path, mode, []byte(content))
	g.Files = append(g.Files, fleet.ManifestFile{Path: path, Mode: mode, Digest: f.Digest})
	g.content[f.Digest] = f.Content
	return g
}

func (g *generation) unit(u fleet.Unit, content string) *generation {
	if !u.Foreign {
		g.file(protocol.UnitFile(u.Name), 0o644, content)
	}
	g.Units = append(g.Units, u)
	return g
}

// ordinary is a generation as a fleet's nodes have it. What changes with v are
// the mesh, the binary, and the unit file.
func ordinary(number int, v string) *generation {
	return newGeneration(number).
		file("/etc/moggy/mesh.json", 0o644, "mesh "+v+"\n").
		file("/etc/ssh/sshd_config.d/50-moggy.conf", 0o644, "sshd\n").
		file("/usr/local/bin/moggy", 0o755, "moggy "+v+"\n").
		unit(fleet.Unit{
			Name: "moggy-agent.service", RestartOn: []string{"/usr/local/bin/moggy"}, ReloadOn: []string{"/etc/moggy/mesh.json"},
		}, "[Service]\nExecStart=/usr/local/bin/moggy agent\n[Install]\nWantedBy=multi-user.target\n").
		unit(fleet.Unit{Name: "sshd.service", Foreign: true, ReloadOn: []string{"/etc/ssh/sshd_config.d/50-moggy.conf"}}, "")
}

// stream is the generation as `moggy node stage` reads it, with the blobs that
// the machine is missing.
func (m *machine) stream(g *generation) []byte {
	m.t.Helper()
	missing, err := m.Missing(g.Manifest)
	if err != nil {
		m.t.Fatal(err)
	}
	var blobs []protocol.Blob
	for _, d := range missing {
		blobs = append(blobs, protocol.Blob{Digest: d, Size: int64(len(g.content[d]))})
	}
	var out bytes.Buffer
	err = protocol.WriteStream(&out, g.Manifest, blobs, func(d fleet.Digest) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(g.content[d])), nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return out.Bytes()
}

func (m *machine) stage(g *generation) protocol.Staged {
	m.t.Helper()
	staged, err := m.tryStage(g)
	if err != nil {
		m.t.Fatal(err)
	}
	return staged
}

func (m *machine) tryStage(g *generation) (staged protocol.Staged, err error) {
	m.t.Helper()
	in := m.stream(g)
	err = m.locked(func(h *Held) (err error) {
		staged, err = h.Receive(bytes.NewReader(in))
		return err
	})
	return staged, err
}

func (m *machine) report(e protocol.Event) { m.events = append(m.events, e) }

func (m *machine) tryActivate(generation int) (changed bool, err error) {
	m.t.Helper()
	err = m.locked(func(h *Held) (err error) {
		changed, err = h.Activate(m.t.Context(), Target{Generation: generation}, m.report)
		return err
	})
	return changed, err
}

func (m *machine) activate(generation int) (changed bool) {
	m.t.Helper()
	changed, err := m.tryActivate(generation)
	if err != nil {
		m.t.Fatal(err)
	}
	return changed
}

func (m *machine) confirm(generation int) {
	m.t.Helper()
	err := m.locked(func(h *Held) error {
		_, err := h.Confirm(generation)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// apply is what an operator does for one node.
func (m *machine) apply(g *generation) {
	m.t.Helper()
	m.stage(g)
	m.activate(g.Generation)
	m.confirm(g.Generation)
}

func (m *machine) observe() fleet.Observed {
	m.t.Helper()
	o, err := m.Observe(context.Background(), Look{})
	if err != nil {
		m.t.Fatal(err)
	}
	return o
}

// whole fails the test unless the machine shows exactly that generation.
func (m *machine) whole(g *generation) {
	m.t.Helper()
	for _, f := range g.Files {
		if got := m.read(f.Path); got != string(g.content[f.Digest]) {
			m.t.Errorf("%s shows %.40q, want %.40q", f.Path, got, g.content[f.Digest])
		}
		st, err := os.Stat(m.root + f.Path)
		if err == nil && uint32(st.Mode().Perm()) != f.Mode {
			m.t.Errorf("%s has mode %o, want %o", f.Path, st.Mode().Perm(), f.Mode)
		}
	}
	for _, u := range g.Units {
		if u.Foreign {
			continue
		}
		file, _ := g.File(protocol.UnitFile(u.Name))
		if got := m.systemd.Running(u.Name); got != string(g.content[file.Digest]) {
			m.t.Errorf("%s runs with %.40q, want %.40q", u.Name, got, g.content[file.Digest])
		}
		if mesh, ok := g.File(m.systemd.Config); ok && slices.Contains(u.ReloadOn, mesh.Path) {
			if got := m.systemd.Read(u.Name); got != string(g.content[mesh.Digest]) {
				m.t.Errorf("%s has read %.40q, want %.40q", u.Name, got, g.content[mesh.Digest])
			}
		}
	}
	o := m.observe()
	if o.Current.Number != g.Generation || len(o.Drift) > 0 || o.Activation != nil {
		m.t.Errorf("observed generation %d, drift %v, activation %+v; want %d and none", o.Current.Number, o.Drift, o.Activation, g.Generation)
	}
}

// fakePackages is a Runner for a machine on which the packages are installed,
// and nothing else can be run.
func fakePackages(installed ...string) Runner {
	return func(_ context.Context, _ []string, name string, _ ...string) ([]byte, error) {
		if name != "dpkg-query" {
			return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		var out strings.Builder
		for _, p := range installed {
			fmt.Fprintf(&out, "%s installed\n", p)
		}
		return []byte(out.String()), nil
	}
}
