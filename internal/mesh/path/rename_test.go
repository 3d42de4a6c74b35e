package path

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// TestRename: a node with another key keeps its routes, asks those who rely on it
// at once, and believes nothing that was said to the one before.
func TestRename(t *testing.T) {
	r := newRig(t, fleetOf()...)
	from := Route{Addr: at("192.0.2.9:1")}
	r.meet(node, from)
	r.run(time.Second, everything)
	route := r.use[node].Route
	before := r.stamp(node)

	r.e.Rename(r.now, wire.ID{0xfe})
	sent := r.run(Burst, nil) // probes of one route are no closer than half of that
	if !slices.ContainsFunc(sent, func(s Send) bool { return s.Peer == node && s.Route == from }) {
		t.Errorf("the node behind the NAT is not asked: %+v", sent)
	}
	for _, hub := range []wire.ID{hubA, hubB} {
		if !slices.ContainsFunc(sent, func(s Send) bool { return s.Peer == hub }) {
			t.Errorf("%v is not asked", hub)
		}
	}
	if r.use[node].Route != route {
		t.Errorf("the route to the node was %v, and is %v", route, r.use[node].Route)
	}
	if pongs := r.ping(node, from, before, 0, 0); len(pongs) != 1 || pongs[0].Flags&wire.Challenge == 0 {
		t.Errorf("a stamp of before was believed: %+v", pongs)
	}
}

// TestRenameRestarted: that a node restarted is noticed though the proof of its epoch
// was forgotten by Rename, and one that did not is not taken to have.
func TestRenameRestarted(t *testing.T) {
	from := Route{Addr: at("192.0.2.9:1")}
	for _, c := range []struct {
		name  string
		epoch uint32
		want  bool
	}{{"the same run", 13, false}, {"another run", 14, true}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, fleetOf()...)
			r.meet(node, from)
			r.e.Rename(r.now, wire.ID{0xfe})
			r.e.Rename(r.now, self) // and back
			r.take()
			r.epoch[node] = c.epoch
			r.meet(node, from)
			got := slices.ContainsFunc(r.take(), func(d Decision) bool { return cmp.Equal(d, Restarted{node}) })
			if got != c.want {
				t.Errorf("taken to have restarted: %v, want %v", got, c.want)
			}
		})
	}
}
