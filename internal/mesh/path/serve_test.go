package path

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// TestServing: a hub's word that it has a device is taken once, a node's never; and a
// hub tells it to those who keep in touch.
func TestServing(t *testing.T) {
	r := newRig(t, fleetOf()...)
	phone := wire.ID{7}
	for _, c := range []struct {
		from wire.ID
		at   Route
		want bool
	}{{hubA, Route{Addr: at("198.51.100.1:1")}, true}, {node, Route{Addr: at("192.0.2.9:1")}, false}} {
		r.meet(c.from, c.at)
		r.take()
		note := wire.Note{Src: c.from, Stamp: r.stamp(c.from), Code: wire.Serving, About: phone}
		for i, want := range []bool{c.want, false} { // the second is a replay
			r.e.Receive(r.now, Source{Route: c.at}, note)
			got := slices.ContainsFunc(r.take(), func(d Decision) bool { return cmp.Equal(d, Serving{c.from, phone}) })
			if got != want {
				t.Errorf("%v, time %d: believed %v, want %v", c.from, i, got, want)
			}
		}
	}
	r.e.Serve(r.now, phone)
	var told []wire.ID
	for _, d := range r.take() {
		if s, ok := d.(Send); ok {
			if n, ok := s.Message.(wire.Note); ok && n.Code == wire.Serving && n.About == phone {
				told = append(told, s.Peer)
			}
		}
	}
	if diff := cmp.Diff([]wire.ID{hubA, node}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
