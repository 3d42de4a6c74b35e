package lock

import (
	"strings"
	"testing"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// TestRotation writes the keys of a rotation into a lock, one after the other, and
// leaves nothing of them at the end.
func TestRotation(t *testing.T) {
	for name, text := range map[string]string{
		"as we write it":  fresh2(t),
		"with a comment":  strings.Replace(fresh2(t), "  mesh_key", "  # the key\n  mesh_key", 1),
		"by hand, a line": "version = 1\nnode \"ari\" { mesh_key = \"" + (fleet.Key{1, 1}).String() + "\" }\n",
	} {
		t.Run(name, func(t *testing.T) {
			l := parseLock(t, text)
			lock := l.Lock()
			n := lock.Node("ari")
			a, b := n.MeshKey, fleet.Key{2}
			for _, step := range []fleet.NodeLock{
				{MeshKey: a, NextKey: b}, {MeshKey: b, OldKey: a}, {MeshKey: b, GoneKey: a}, {MeshKey: b},
			} {
				n.MeshKey, n.NextKey, n.OldKey, n.GoneKey = step.MeshKey, step.NextKey, step.OldKey, step.GoneKey
				lock.Put(n)
				again := parseLock(t, rewrite(t, l, lock))
				if diff := lockDiff(lock, again.Lock()); diff != "" {
					t.Fatalf("read again (-want +got):\n%s\n%s", diff, l.Text())
				}
			}
			n.MeshKey = a
			lock.Put(n)
			if got := rewrite(t, l, lock); name != "by hand, a line" && got != text {
				t.Errorf("something of it stays:\n%s\nbefore:\n%s", got, text)
			}
			if strings.Contains(string(l.Text()), "_key") && strings.Count(string(l.Text()), "_key") != strings.Count(text, "_key") {
				t.Errorf("a key of the rotation stays:\n%s", l.Text())
			}
		})
	}
}

func fresh2(t *testing.T) string {
	t.Helper()
	text, err := New("fleet.lock.hcl").Update(sampleLock("ari", "bianco"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRotationMistakes: a key is one node's, once, and one of them at a time is on
// its way.
func TestRotationMistakes(t *testing.T) {
	key := func(b byte) string { return fleet.Key{b}.String() }
	for name, block := range map[string]string{
		"another's": "next_key = \"" + (fleet.Key{1, 2}).String() + "\"",
		"no key":    "old_key = \"hello\"",
		"two":       "next_key = \"" + key(7) + "\"\n  old_key = \"" + key(8) + "\"",
	} {
		text := strings.Replace(fresh2(t), "  arch", "  "+block+"\n  arch", 1)
		if _, diags := Parse(source.Text{Name: "fleet.lock.hcl", Content: []byte(text)}); diags.Mistakes() != 1 {
			t.Errorf("%s: %d mistakes, want 1: %v", name, diags.Mistakes(), diags)
		}
	}
}
