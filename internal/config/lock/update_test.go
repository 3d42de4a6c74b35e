package lock

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

const hostKeyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

func sampleNode(name fleet.NodeName, i byte) fleet.NodeLock {
	return fleet.NodeLock{
		Name: name, V4: netip.AddrFrom4([4]byte{10, 77, 0, i}), V6: netip.MustParsePrefix("fd7a:6d6f:6767::/48").Addr().Next(),
		MeshKey: fleet.Key{1, i}, HostKeys: []string{hostKeyLine}, Arch: "amd64", Generation: int(i),
	}
}

func sampleLock(names ...fleet.NodeName) *fleet.Lock {
	l := &fleet.Lock{Version: Version, Fleet: "cats", Generation: 42, Mesh: fleet.Ranges{
		V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd7a:6d6f:6767::/48"),
	}}
	v6 := l.Mesh.V6.Addr()
	for i, name := range names {
		n := sampleNode(name, byte(i+1))
		v6 = v6.Next()
		n.V6 = v6
		l.Put(n)
	}
	return l
}

// lockDiff compares locks by what their values mean.
func lockDiff(want, got *fleet.Lock) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

func parseLock(t *testing.T, text string) *File {
	t.Helper()
	l, diags := Parse(source.Text{Name: "fleet.lock.hcl", Content: []byte(text)})
	if len(diags) > 0 {
		t.Fatalf("mistakes in\n%s\n%v", text, diags)
	}
	return l
}

func rewrite(t *testing.T, l *File, lock *fleet.Lock) string {
	t.Helper()
	text, err := l.Update(lock)
	if err != nil {
		t.Fatal(err)
	}
	if diff := lockDiff(lock, l.Lock()); diff != "" {
		t.Errorf("the file that was updated says (-want +got):\n%s", diff)
	}
	if diff := lockDiff(lock, parseLock(t, string(text)).Lock()); diff != "" {
		t.Errorf("the text that was written says (-want +got):\n%s", diff)
	}
	return string(text)
}

func TestLockIsWrittenAsFormatted(t *testing.T) {
	lock := sampleLock("bianco", "cosmo")
	lock.Put(fleet.NodeLock{Name: "new"})
	text := rewrite(t, New("fleet.lock.hcl"), lock)
	if diff := cmp.Diff(string(hclwrite.Format([]byte(text))), text); diff != "" {
		t.Errorf("moggy fmt would change it (-formatted +written):\n%s", diff)
	}
	if !strings.HasPrefix(text, "# ") {
		t.Errorf("no header:\n%s", text)
	}
}

const lockByHand = `# Kept by hand.
version = 1
fleet   = "cats" # ours
color   = "grey" # a later release's

generation = 42

mesh {
  v4  = "10.77.0.0/16"
  v6  = "fd7a:6d6f:6767::/48"
  mtu = 1280
}

# In the cellar.
node "bianco" {
  v4 = "10.77.0.1"

  # asked on Monday
  arch = "amd64" # old
  paws = 4

  tail {
    length = 30
  }
}

engine "nomad" {
  version = "1.11.3"
}

node "cosmo" { v4 = "10.77.0.2" }
# Behind everything.
`

func TestLockUpdateChangesNothingElse(t *testing.T) {
	tests := map[string]struct {
		change   func(*fleet.Lock)
		old, new string // what is replaced in lockByHand
	}{
		"nothing":     {func(*fleet.Lock) {}, "", ""},
		"generation":  {func(l *fleet.Lock) { l.Generation = 43 }, "generation = 42", "generation = 43"},
		"a value":     {func(l *fleet.Lock) { l.Nodes[0].Arch = "arm64" }, `"amd64" # old`, `"arm64" # old`},
		"a new value": {func(l *fleet.Lock) { l.Nodes[0].Generation = 7 }, "    length = 30\n  }\n}", "    length = 30\n  }\n  generation = 7\n}"},
		"a value on one line": {
			func(l *fleet.Lock) { l.Nodes[1].V4 = netip.MustParseAddr("10.77.0.9") }, `"10.77.0.2"`, `"10.77.0.9"`,
		},
		"a new value on one line": {
			func(l *fleet.Lock) { l.Nodes[1].Generation = 7 },
			`node "cosmo" { v4 = "10.77.0.2" }`, "node \"cosmo\" {\n  v4 = \"10.77.0.2\" \n  generation = 7\n}",
		},
		"a value that goes": {func(l *fleet.Lock) { l.Nodes[0].Arch = "" }, `"amd64" # old`, `"" # old`},
		"a range": {
			func(l *fleet.Lock) { l.Mesh.V6 = netip.MustParsePrefix("fd00::/48") }, `"fd7a:6d6f:6767::/48"`, `"fd00::/48"`,
		},
		"a node that goes": {
			func(l *fleet.Lock) { l.Remove("bianco") },
			lockByHand[strings.Index(lockByHand, "\n# In the"):strings.Index(lockByHand, "\nengine")], "",
		},
		"the last node goes": {func(l *fleet.Lock) { l.Remove("cosmo") }, "\nnode \"cosmo\" { v4 = \"10.77.0.2\" }\n", ""},
		"a node in front": {
			func(l *fleet.Lock) { l.Put(fleet.NodeLock{Name: "ari"}) }, "# In the cellar.", nodeText(fleet.NodeLock{Name: "ari"}) + "\n\n# In the cellar.",
		},
		"a node between": {
			func(l *fleet.Lock) { l.Put(fleet.NodeLock{Name: "bob"}) }, "node \"cosmo\"", nodeText(fleet.NodeLock{Name: "bob"}) + "\n\nnode \"cosmo\"",
		},
		"a node behind": {
			func(l *fleet.Lock) { l.Put(fleet.NodeLock{Name: "ziggy"}) },
			"# Behind everything.\n", "# Behind everything.\n\n" + nodeText(fleet.NodeLock{Name: "ziggy"}) + "\n",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := parseLock(t, lockByHand)
			lock := l.Lock()
			tt.change(lock)
			want := lockByHand
			if tt.old != "" {
				if want = strings.Replace(lockByHand, tt.old, tt.new, 1); want == lockByHand {
					t.Fatal("the test replaces nothing")
				}
			}
			if diff := cmp.Diff(want, rewrite(t, l, lock)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLockUpdateAllAtOnce(t *testing.T) {
	l := parseLock(t, lockByHand)
	lock := sampleLock("anna", "ari", "zoe")
	text := rewrite(t, l, lock)
	for _, kept := range []string{"# Kept by hand.\n", "# ours", "color   = \"grey\"", "mtu = 1280", "engine \"nomad\" {\n  version = \"1.11.3\"\n}\n", "# Behind everything.\n"} {
		if !strings.Contains(text, kept) {
			t.Errorf("lost %q of\n%s", kept, text)
		}
	}
	if again := rewrite(t, parseLock(t, text), lock); again != text {
		t.Errorf("the second time:\n%s", cmp.Diff(text, again))
	}
}

func TestLockInTheMinimalFile(t *testing.T) {
	for _, text := range []string{"version = 1", "version = 1\n", "version = 1 # x\n\n\n", "version=1\nmesh {}\n", "version = 1\nmesh {\n}"} {
		rewrite(t, parseLock(t, text), sampleLock("ari", "zoe"))
	}
}

func TestLockGrowsAsItWasWritten(t *testing.T) {
	// However a lock came about, the same nodes give the same text.
	want := rewrite(t, New("fleet.lock.hcl"), sampleLock("ari", "bianco", "cosmo"))
	l := New("fleet.lock.hcl")
	rewrite(t, l, sampleLock())
	full := sampleLock("ari", "bianco", "cosmo")
	for _, name := range []fleet.NodeName{"cosmo", "ari", "bianco"} {
		lock := l.Lock()
		n := full.Node(name)
		n.Arch = "" // first contact comes later
		lock.Put(n)
		rewrite(t, l, lock)
		lock.Put(full.Node(name))
		rewrite(t, l, lock)
	}
	lock := l.Lock()
	extra := lock.Clone()
	extra.Put(fleet.NodeLock{Name: "bob"})
	rewrite(t, l, extra)
	if diff := cmp.Diff(want, rewrite(t, l, lock)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLockRefusesToWriteNonsense(t *testing.T) {
	l := parseLock(t, lockByHand)
	lock := l.Lock()
	lock.Nodes[0].V4 = lock.Nodes[1].V4
	if text, err := l.Update(lock); err == nil {
		t.Errorf("wrote two nodes with one address:\n%s", text)
	}
	if string(l.Text()) != lockByHand {
		t.Error("and changed the file's text")
	}
}

func TestLockOfAnotherFleet(t *testing.T) {
	l := parseLock(t, lockByHand)
	if diags := l.Check(&fleet.Fleet{Name: "cats"}); len(diags) > 0 {
		t.Errorf("of its own fleet: %v", diags)
	}
	diags := l.Check(&fleet.Fleet{Name: "dogs"})
	want := `this is the lock of the fleet "cats", and the file describes "dogs"`
	if len(diags) != 1 || diags[0].Message != want || diags[0].Line != 3 {
		t.Errorf("got %+v", diags)
	}
	if diags := New("x").Check(&fleet.Fleet{Name: "dogs"}); len(diags) > 0 {
		t.Errorf("of a new lock: %v", diags)
	}
}
