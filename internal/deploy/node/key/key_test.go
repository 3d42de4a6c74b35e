package key

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

func newFile(t *testing.T) (File, fleet.Key) {
	t.Helper()
	f := File{Disk: &disk.Disk{Root: t.TempDir()}, Path: "/mesh.key"}
	k, err := f.Make()
	if err != nil {
		t.Fatal(err)
	}
	return f, k
}

// mesh writes a mesh.json with one node.
func mesh(t *testing.T, f File, n fleet.MeshNode) {
	t.Helper()
	b, err := json.Marshal(fleet.AgentConfig{Version: 1, Nodes: []fleet.MeshNode{n}})
	if err == nil {
		err = os.WriteFile(f.Disk.Real("/mesh.json"), b, 0o644)
	}
	if err == nil {
		err = f.Follow("/mesh.json")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f File) want(t *testing.T, what string, want ...fleet.Key) {
	t.Helper()
	got, err := f.Keys()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestRotation goes through a rotation as the file sees it.
func TestRotation(t *testing.T) {
	f, a := newFile(t)
	b, secret, err := f.Next(a, fleet.Key{})
	if err != nil {
		t.Fatal(err)
	}
	f.want(t, "after the key was made", a, b)
	if private, err := wire.ParsePrivateKey(secret); err != nil || private.Public() != b {
		t.Errorf("the private key for the agent: %v", err)
	}
	text, err := os.ReadFile(f.Disk.Real("/mesh.key"))
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := wire.ParsePrivateKeys(text); err != nil || len(keys) != 2 || keys[1].Public() != b {
		t.Errorf("the agent does not read the file: %v", err)
	}
	if st, err := os.Stat(f.Disk.Real("/mesh.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v %v", st.Mode(), err)
	}
	if again, _, err := f.Next(a, b); err != nil || again != b {
		t.Errorf("asked again for the same: %v, %v", again, err)
	}
	f.want(t, "asked again", a, b)
	mesh(t, f, fleet.MeshNode{Key: a, Next: b})
	f.want(t, "everybody knows both", a, b)
	mesh(t, f, fleet.MeshNode{Key: b, Old: a})
	f.want(t, "the node goes by the new one", b, a)
	mesh(t, f, fleet.MeshNode{Key: a, Next: b})
	f.want(t, "it went back", a, b)
	mesh(t, f, fleet.MeshNode{Key: fleet.Key{9}})
	f.want(t, "a mesh that does not know us", a, b)
	mesh(t, f, fleet.MeshNode{Key: b})
	f.want(t, "at the end", b)
}

// TestNextForgetsAnother: what was made for a rotation that nobody remembers is no
// key to go on with.
func TestNextForgetsAnother(t *testing.T) {
	f, a := newFile(t)
	b, _, err := f.Next(a, fleet.Key{})
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := f.Next(a, fleet.Key{})
	if err != nil {
		t.Fatal(err)
	}
	if c == b {
		t.Error("the forgotten key came back")
	}
	f.want(t, "after another", a, c)
	if _, _, err := f.Next(b, fleet.Key{}); err == nil {
		t.Error("a key beside one that the node does not have")
	}
	f.want(t, "after a refusal", a, c)
}

func TestUnreadable(t *testing.T) {
	f, _ := newFile(t)
	good, err := os.ReadFile(f.Disk.Real("/mesh.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "no key": "hello\n", "cut short": string(good[:20]),
		"three": string(good) + string(good) + string(good),
	} {
		if err := os.WriteFile(filepath.Join(f.Disk.Root, "mesh.key"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Keys(); err == nil {
			t.Errorf("%s: taken for a key", name)
		}
		if _, err := f.Make(); err == nil {
			t.Errorf("%s: replaced", name)
		}
	}
}
