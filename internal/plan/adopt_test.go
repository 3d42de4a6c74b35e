package plan

import (
	"testing"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// TestAdoptReplacement: a machine installed anew joins with its node's second
// token.
func TestAdoptReplacement(t *testing.T) {
	known := func() *fleet.Lock {
		l, err := Allocate(cats(), &fleet.Lock{})
		if err != nil {
			t.Fatal(err)
		}
		n := l.Node("bianco")
		n.MeshKey, n.HostKeys, n.Generation, n.Arch = fleet.Key{1}, []string{"ssh-ed25519 OLD"}, 7, "arm64"
		l.Put(n)
		l.Generation = 9
		return l
	}
	first := fleet.Joined{Node: "bianco", Key: fleet.Key{2}, HostKey: "ssh-ed25519 TWO", At: 100, Invitation: fleet.Key{52}}
	second := fleet.Joined{Node: "bianco", Key: fleet.Key{3}, HostKey: "ssh-ed25519 THREE", At: 200, Invitation: fleet.Key{53}}
	for name, reports := range map[string]map[fleet.NodeName][]fleet.Joined{
		"both hubs":                     {"cosmo": {second}, "maco": {second}},
		"one hub missed the second one": {"cosmo": {first}, "maco": {second}},
		"the other hub missed it":       {"cosmo": {second}, "maco": {first}},
	} {
		l := known()
		before := l.Node("bianco")
		names, err := Adopt(cats(), l, reports)
		if err != nil || len(names) != 1 {
			t.Errorf("%s: %v, %v", name, names, err)
			continue
		}
		after := l.Node("bianco")
		if after.MeshKey != second.Key || len(after.HostKeys) != 1 || after.HostKeys[0] != second.HostKey {
			t.Errorf("%s: the lock has key %s and host keys %q", name, after.MeshKey, after.HostKeys)
		}
		if after.V4 != before.V4 || after.V6 != before.V6 || after.Generation != 0 || after.Arch != "" || l.Generation != 9 {
			t.Errorf("%s: the lock has %+v, highest generation %d", name, after, l.Generation)
		}
	}
	twice := second
	twice.Key = fleet.Key{4}
	l := known()
	if _, err := Adopt(cats(), l, map[fleet.NodeName][]fleet.Joined{"cosmo": {second}, "maco": {twice}}); err == nil {
		t.Error("two machines with one token: no error")
	}
	if l.Node("bianco").MeshKey != (fleet.Key{1}) {
		t.Error("two machines with one token: the lock was changed")
	}
}
