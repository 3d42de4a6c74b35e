package plan

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// TestRotationOrder goes through a rotation, cut short at each point.
func TestRotationOrder(t *testing.T) {
	a, b, unknown := fleet.Key{1}, fleet.Key{2}, fleet.Key{}
	entry := fleet.NodeLock{Name: "ari", MeshKey: a}
	taught := entry
	taught.NextKey = b
	named := Named(taught)
	dropped := Dropped(named)
	for _, c := range []struct {
		what   string
		lock   fleet.NodeLock
		speaks fleet.Key
		told   bool
		want   Rotation
	}{
		{"at rest", entry, a, true, Fresh},
		{"other changes", entry, a, false, Fresh},
		{"made", taught, a, false, Teach},
		{"everybody knows it", taught, a, true, Name},
		{"named", named, a, false, Switch},
		{"named, and it says nothing", named, unknown, false, Switch},
		{"it went back", named, a, true, Switch},
		{"it goes by it", named, b, false, Drop},
		{"some know the old one", dropped, b, false, Forget},
		{"nobody knows the old one", dropped, b, true, Done},
	} {
		if got := NextOfRotation(c.lock, c.speaks, c.told); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
	if diff := cmp.Diff(taught, Unnamed(named), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("unnamed (-want +got):\n%s", diff)
	}
	l := &fleet.Lock{}
	l.Put(dropped)
	if !Forgotten(l) || l.Node("ari").Rotating() || Forgotten(l) {
		t.Errorf("at the end: %+v", l.Node("ari"))
	}
}
