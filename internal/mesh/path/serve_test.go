package path

import (
	"slices"
	"testing"
	"time"

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
	told := func() (out []wire.ID) {
		noted := append(r.noted, r.take()...)
		r.noted = nil
		for _, d := range noted {
			if s, ok := d.(Send); ok {
				if n, ok := s.Message.(wire.Note); ok && n.Code == wire.Serving && n.About == phone {
					out = append(out, s.Peer)
				}
			}
		}
		return out
	}
	r.e.Serve(r.now, phone)
	if diff := cmp.Diff([]wire.ID{hubA, node}, told()); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}

	// Whoever comes later is told then, and once.
	late := Route{Addr: at("198.51.100.2:1")}
	r.meet(hubB, late)
	if diff := cmp.Diff([]wire.ID{hubB}, told()); diff != "" {
		t.Errorf("told who came later (-want +got):\n%s", diff)
	}
	again := func(id wire.ID, from Route) { r.ping(id, from, r.stamp(id), 0, wire.Primary) }
	r.now = r.now.Add(Registered + time.Second)
	again(hubB, late)
	if got := told(); len(got) > 0 {
		t.Errorf("told of a device that was not heard of for %v: %v", Registered, got)
	}
	r.e.Serve(r.now, phone)
	again(hubA, Route{Addr: at("198.51.100.1:1")})
	if diff := cmp.Diff([]wire.ID{hubB, hubA}, told()); diff != "" {
		t.Errorf("told who was away (-want +got):\n%s", diff)
	}
	r.e.Receive(r.now, Source{Route: Route{Addr: at("198.51.100.1:1")}}, wire.Note{Src: hubA, Stamp: r.stamp(hubA), Code: wire.Serving, About: phone})
	again(node, Route{Addr: at("192.0.2.9:1")})
	if got := told(); len(got) > 0 {
		t.Errorf("told of a device that another hub has: %v", got)
	}
}
