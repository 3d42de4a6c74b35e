package leave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

const unitFile = `# Written by moggy
[Service]
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
`

// fixture is a machine in a directory that is a node at generation 1.
type fixture struct {
	Machine
	t      *testing.T
	before map[string]string // the machine before it was a node
	said   []string
	ran    []string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	root := t.TempDir()
	f := &fixture{t: t}
	f.Machine = Machine{
		Root: root, Executable: "/bin/true", Systemd: &node.FakeSystemd{Root: root}, Run: f.run,
		Now: func() time.Time { return time.Unix(1_800_000_000, 0) }, Version: "test",
		Say: func(text string) { f.said = append(f.said, text) },
	}
	for path, content := range map[string]string{
		"/etc/systemd/system/x.service": "mine", "/etc/app.conf": "before", "/usr/local/bin/mine": "", "/root/x": "",
		"/var/lib/x": "", "/run/x": "", "/srv/x": "", "/opt/x": "",
	} {
		f.write(path, content)
	}
	f.before = f.listing()
	f.apply()
	return f
}

func (f *fixture) run(_ context.Context, _ []string, name string, args ...string) ([]byte, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	f.ran = append(f.ran, line)
	if strings.HasPrefix(line, "systemctl list-units") {
		return []byte("moggy-agent.service loaded active running the mesh\nmoggy-firewall.service loaded failed failed rules\nmoggy-leave.service loaded active running x\n"), nil
	}
	return nil, nil
}

func (f *fixture) write(path, content string) {
	f.t.Helper()
	path = f.real(path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		f.t.Fatal(err)
	}
}

// apply makes it a node, as the operator would.
func (f *fixture) apply() {
	f.t.Helper()
	h, err := f.node().Lock(f.t.Context(), "test")
	if err != nil {
		f.t.Fatal(err)
	}
	defer h.Release()
	files := []fleet.File{
		fleet.NewFile("/etc/app.conf", 0o644, []byte("ours")),
		fleet.NewFile("/etc/moggy/mesh.json", 0o644, []byte("{}")),
		fleet.NewFile("/etc/systemd/system/moggy-agent.service", 0o644, []byte(unitFile)),
		fleet.NewFile("/usr/local/bin/moggy", 0o755, []byte("#!")),
	}
	m := fleet.Manifest{
		Version: 1, Fleet: "cats", Node: "ari", Generation: 1, Packages: []string{"wireguard-tools"},
		Units: []fleet.Unit{{Name: "moggy-agent.service"}},
	}
	for _, file := range files {
		m.Files = append(m.Files, fleet.ManifestFile{Path: file.Path, Mode: file.Mode, Digest: file.Digest})
		err = errors.Join(err, h.PutBlob(file.Digest, file.Mode, bytes.NewReader(file.Content)))
	}
	_, kerr := h.Init()
	staged, serr := h.Stage(m)
	_, aerr := h.Activate(f.t.Context(), node.Target{Generation: 1, Digest: staged.Digest}, func(protocol.Event) {})
	_, cerr := h.Confirm(1)
	if err := errors.Join(err, kerr, serr, aerr, cerr); err != nil {
		f.t.Fatal(err)
	}
	f.write("/var/lib/private/moggy-agent/invitations.json", "[]")
	f.write("/run/moggy/agent.sock", "")
	f.write("/run/wireguard/moggy0.sock", "")
}

// listing is every path on the machine with what it holds.
func (f *fixture) listing() map[string]string {
	f.t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(f.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(b)
		case d.Type()&fs.ModeSymlink != 0:
			content, err = os.Readlink(path)
		}
		out[strings.TrimPrefix(path, f.Root)] = fmt.Sprint(info.Mode(), " ", content)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// gone fails the test unless the machine is what it was. Directories above what
// was there for a while may stay.
func (f *fixture) gone() {
	f.t.Helper()
	after := f.listing()
	for _, dir := range []string{"/var/lib/private", "/var/cache", "/run/wireguard"} {
		delete(after, dir)
	}
	if diff := cmp.Diff(f.before, after); diff != "" {
		f.t.Errorf("the machine (-before +after):\n%s", diff)
	}
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, err := f.Look(t.Context())
	if err != nil || s.Node != "ari" || s.Fleet != "cats" || len(s.Packages) != 1 {
		t.Errorf("look: %+v, %v", s, err)
	}
	if err := f.copySelf(); err != nil {
		t.Fatal(err)
	}
	kept, err := f.Leave(t.Context())
	if err != nil || kept != "" {
		t.Fatalf("kept %q, %v", kept, err)
	}
	f.gone()
	if !slices.Contains(f.ran, "nft delete table inet moggy") {
		t.Errorf("the access rules of a unit that was killed stay: it ran %q", f.ran)
	}
	if _, err := f.Look(t.Context()); err == nil || len(hint.All(err)) == 0 {
		t.Errorf("leaving twice: %v", err)
	}
}

// TestKilledBetweenSteps kills a leave after each of its steps; another one
// finishes it.
func TestKilledBetweenSteps(t *testing.T) {
	t.Parallel()
	for n, last := range steps() {
		t.Run(string(last.name), func(t *testing.T) { killedAfter(t, n) })
	}
}

func killedAfter(t *testing.T, n int) {
	t.Parallel()
	f := newFixture(t)
	l := &leaving{Machine: f.Machine}
	for _, s := range steps()[:n+1] {
		if err := s.do(l, t.Context()); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	if l.held != nil {
		if err := l.held.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	f.gone()
}

// TestHalfBroken: whatever is missing or wrong, nothing of ours stays.
func TestHalfBroken(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*fixture){
		"no state":    func(f *fixture) { f.drop("/var/lib/moggy/state.json") },
		"no ledger":   func(f *fixture) { f.drop("/var/lib/moggy/ledger.json") },
		"no link":     func(f *fixture) { f.drop("/var/lib/moggy/current") },
		"link astray": func(f *fixture) { f.drop("/var/lib/moggy/current"); f.link("/nowhere", "/var/lib/moggy/current") },
		"no content":  func(f *fixture) { f.drop("/var/lib/moggy/store"); f.drop("/var/lib/moggy/generations") },
		"an activation was killed": func(f *fixture) {
			f.write("/var/lib/moggy/activating.json", `{"version":1,"generation":1,"step":"link"}`)
		},
		"garbage": func(f *fixture) {
			for _, name := range []string{"state.json", "ledger.json", "activating.json", "generations/1/manifest.json", "lock"} {
				f.write("/var/lib/moggy/"+name, "\x00{")
			}
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			spoil(f)
			if _, err := f.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			kept, err := f.Leave(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if kept != "" { // what nobody could give back is not lost
				before := f.read(filepath.Join(kept, "var-lib-moggy-original/etc/app.conf"))
				if before != "before" {
					t.Errorf("kept %q", before)
				}
				f.drop(kept)
				f.drop("/etc/app.conf")
				f.write("/etc/app.conf", "before")
			}
			f.gone()
		})
	}
	t.Run("nothing but links", func(t *testing.T) {
		f := newFixture(t)
		f.drop("/var/lib/moggy")
		if _, err := f.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.write("/etc/app.conf", "before") // what it was, nobody knows any more
		f.gone()
	})
}

func (f *fixture) drop(path string) {
	f.t.Helper()
	if err := os.RemoveAll(f.real(path)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) link(target, path string) {
	f.t.Helper()
	if err := os.Symlink(target, f.real(path)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) read(path string) string {
	f.t.Helper()
	b, err := os.ReadFile(f.real(path))
	if err != nil {
		f.t.Error(err)
	}
	return string(b)
}

// TestOwnersFilesAreKept: what a hand put into our paths, or beside them.
func TestOwnersFilesAreKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("/etc/moggy/notes", "buy fish")
	f.write("/var/lib/moggy/replaced/20260101T000000Z/etc/app.conf", "tried")
	f.drop("/etc/app.conf")
	f.write("/etc/app.conf", "by hand")
	kept, err := f.Leave(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/etc/app.conf":           "by hand", // it is not ours
		kept + "/etc-moggy/notes": "buy fish",
		kept + "/var-lib-moggy-replaced/20260101T000000Z/etc/app.conf": "tried",
		kept + "/var-lib-moggy-original/etc/app.conf":                  "before",
	} {
		if got := f.read(path); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	if !strings.HasPrefix(kept, "/root/moggy-replaced-2027") || f.there("/etc/moggy") || f.there(node.Dir) {
		t.Errorf("kept in %q; left: %v", kept, f.listing())
	}
}

func TestSomebodyAtWork(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	h, err := f.node().Lock(t.Context(), "stage")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	if _, err := f.Leave(t.Context()); !errors.Is(err, node.ErrLocked) {
		t.Errorf("got %v, want %v", err, node.ErrLocked)
	}
	if !f.there("/etc/moggy/mesh.json") {
		t.Error("it was undone all the same")
	}
}
