package path

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

func TestFirstChoice(t *testing.T) {
	r := newRig(t, fleetOf()...)
	r.run(0, nil)
	if u, ok := r.use[node]; ok {
		t.Errorf("before there is traffic: %+v", u)
	}
	if v, _ := r.e.View(r.now, node); v.Route.Kind() != fleet.PathRelayed {
		t.Errorf("would go %s", v.Route.Kind())
	}
	r.e.Traffic(r.now, node, Traffic{Tx: r.now})
	r.run(0, nil)
	got := map[wire.ID]fleet.PathKind{}
	for id, u := range r.use {
		got[id] = u.Route.Kind()
	}
	want := map[wire.ID]fleet.PathKind{hubA: fleet.PathDirectV6, hubB: fleet.PathDirectV4, node: fleet.PathRelayed}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("before anything is proven (-want +got):\n%s", diff)
	}
	if r.line[hubA] != at("[2001:db8::1]:1") || r.line[hubB] != at("198.51.100.2:1") {
		t.Errorf("lines %v", r.line)
	}
}

func TestIdlePeersAreNotProbed(t *testing.T) {
	r := newRig(t, fleetOf()...)
	r.e.Traffic(r.now, node, Traffic{Tx: r.now}) // long ago
	r.run(time.Minute, everything)
	sent := r.run(10*time.Minute, everything)
	count := map[wire.ID]int{}
	for _, s := range sent {
		count[s.Peer]++
		if !s.Route.Direct() {
			t.Errorf("idle, yet sent %+v", s)
		}
	}
	if count[node] > 0 {
		t.Errorf("%d probes for a node that nobody talks to", count[node])
	}
	// Two addresses, one every 15 to 20 s.
	if n := count[hubA]; n < 2*600/20 || n > 2*600/15+2 {
		t.Errorf("%d probes for a hub with two addresses in ten minutes", n)
	}
}

func TestOnlyAnEchoByThatRouteProves(t *testing.T) {
	direct, relayed := Route{Addr: at("198.51.100.2:1")}, Route{Hub: hubA}
	echo := func(s Send) wire.Probe {
		p := s.Message.(wire.Probe)
		return wire.Probe{Kind: wire.Pong, Src: hubB, Stamp: wire.Stamp{Epoch: 12, Counter: 1}, Nonce: 1, Echo: p.Nonce, Size: 80}
	}
	tests := map[string]struct {
		by   Route
		edit func(*wire.Probe)
		want bool
	}{
		"by that route":      {direct, func(*wire.Probe) {}, true},
		"by another":         {relayed, func(*wire.Probe) {}, false},
		"by another address": {Route{Addr: at("198.51.100.2:2")}, func(*wire.Probe) {}, false},
		"of another nonce":   {direct, func(p *wire.Probe) { p.Echo++ }, false},
		"of another peer":    {direct, func(p *wire.Probe) { p.Src = hubA }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, fleetOf()...)
			for _, s := range r.run(0, nil) {
				if s.Peer != hubB {
					continue
				}
				p := echo(s)
				tt.edit(&p)
				r.e.Receive(r.now.Add(time.Millisecond), Source{Route: tt.by}, p)
			}
			v, _ := r.e.View(r.now, hubB)
			for _, route := range v.Routes {
				proven := !route.LastEcho.IsZero()
				if proven != (tt.want && route.Route == direct) {
					t.Errorf("%v proven: %v", route.Route, proven)
				}
			}
		})
	}
}

// TestEpochs: an epoch is believed once it is proven, and never again once it
// was left.
func TestEpochs(t *testing.T) {
	from := Route{Addr: at("192.0.2.9:1")}
	r := newRig(t, fleetOf()...)
	first := r.ping(node, from, wire.Stamp{Epoch: 5, Counter: 1}, 0, 0)
	if len(first) != 1 || first[0].Flags&wire.Challenge == 0 || first[0].Seen != from.Addr {
		t.Fatalf("a stranger's ping was answered %+v", first)
	}
	if said := r.take(); len(said) > 0 {
		t.Errorf("believed at once: %+v", said)
	}
	// A wrong answer to the challenge changes nothing.
	if got := r.ping(node, from, wire.Stamp{Epoch: 5, Counter: 2}, first[0].Nonce+1, 0); got[0].Flags&wire.Challenge == 0 {
		t.Error("a wrong echo was believed")
	}
	proof := wire.Stamp{Epoch: 5, Counter: 3}
	r.ping(node, from, proof, first[0].Nonce, wire.Primary)
	if diff := cmp.Diff([]Decision{Epoch{node, 5}, Egress{Peer: node, Addr: from.Addr}}, r.take(), cmpAddrs); diff != "" {
		t.Errorf("after the proof (-want +got):\n%s", diff)
	}
	// It restarts.
	second := r.ping(node, from, wire.Stamp{Epoch: 6, Counter: 1}, 0, 0)
	r.ping(node, from, wire.Stamp{Epoch: 6, Counter: 2}, second[0].Nonce, 0)
	if diff := cmp.Diff([]Decision{Epoch{node, 6}, Restarted{node}}, r.take(), cmpAddrs); diff != "" {
		t.Errorf("after its restart (-want +got):\n%s", diff)
	}
	// Somebody replays the proof of the first epoch.
	r.ping(node, Route{Addr: at("192.0.2.66:66")}, proof, first[0].Nonce, wire.Primary)
	if said := r.take(); len(said) > 0 {
		t.Errorf("a replayed proof was believed: %+v", said)
	}
}

// TestChallengedPingsAreNotTakenAgain: the pings that a new agent was asked to prove
// itself for are no news either, once it did.
func TestChallengedPingsAreNotTakenAgain(t *testing.T) {
	home, thief := Route{Addr: at("192.0.2.9:1")}, Route{Addr: at("192.0.2.66:66")}
	r := newRig(t, fleetOf()...)
	first := wire.Stamp{Epoch: 5, Counter: 1}
	asked := r.ping(node, home, first, 0, wire.Primary)
	if again := r.ping(node, thief, first, 0, wire.Primary); len(again) != 1 || again[0].Flags&wire.Challenge == 0 {
		t.Errorf("before the proof it was answered %+v, want a challenge", again)
	}
	r.ping(node, home, wire.Stamp{Epoch: 5, Counter: 2}, asked[0].Nonce, wire.Primary)
	if again := r.ping(node, thief, first, 0, wire.Primary); len(again) > 0 {
		t.Errorf("after it, a replay was answered %+v", again)
	}
	if v, _ := r.e.View(r.now, node); slices.ContainsFunc(v.Routes, func(w RouteView) bool { return w.Route == thief }) {
		t.Error("the address that replayed it is tried")
	}
}

// TestAddressIsNotHijacked: only a frame newer than all before moves the
// address that a hub relays to.
func TestAddressIsNotHijacked(t *testing.T) {
	home, thief := Route{Addr: at("192.0.2.9:1")}, Route{Addr: at("192.0.2.66:66")}
	r := newRig(t, fleetOf()...)
	r.meet(node, home)
	late := r.stamp(node) // sent, and held back by the thief
	seen := r.stamp(node)
	r.ping(node, home, seen, 0, wire.Primary)
	r.take()
	if got := r.ping(node, thief, seen, 0, wire.Primary); len(got) > 0 {
		t.Error("a replay was answered")
	}
	r.ping(node, thief, late, 0, wire.Primary)
	for _, d := range r.take() {
		if e, ok := d.(Egress); ok {
			t.Errorf("an old frame moved the address to %v", e.Addr)
		}
	}
	// Without the flag, a second address of the same node changes nothing.
	r.ping(node, Route{Addr: at("[2001:db8::9]:1")}, r.stamp(node), 0, 0)
	for _, d := range r.take() {
		if e, ok := d.(Egress); ok {
			t.Errorf("a spare address was taken: %v", e.Addr)
		}
	}
	moved := Route{Addr: at("192.0.2.10:1")}
	r.ping(node, moved, r.stamp(node), 0, wire.Primary)
	if diff := cmp.Diff([]Decision{Egress{Peer: node, Addr: moved.Addr}}, r.take(), cmpAddrs); diff != "" {
		t.Errorf("a true move (-want +got):\n%s", diff)
	}
}

// TestNoAmplification: whatever comes in, at most as much goes out, and no
// larger.
func TestNoAmplification(t *testing.T) {
	r := newRig(t, fleetOf()...)
	r.run(time.Second, everything)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 2000 {
		id := []wire.ID{hubA, hubB, node, {77}}[random.IntN(4)]
		route := Route{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(250))}), 1)}
		if random.IntN(3) == 0 {
			route = Route{Hub: []wire.ID{hubA, hubB, {88}}[random.IntN(3)]}
		}
		stamp := wire.Stamp{Epoch: uint32(10 + random.IntN(5)), Counter: uint64(random.IntN(50))}
		var m wire.Message
		switch random.IntN(4) {
		case 0, 1:
			m = wire.Probe{Kind: wire.Ping, Src: id, Stamp: stamp, Nonce: 1, Size: 80, Flags: wire.Flags(random.IntN(4))}
		case 2:
			m = wire.Probe{Kind: wire.Pong, Src: id, Stamp: stamp, Nonce: 1, Echo: random.Uint64(), Size: 80}
		case 3:
			m = wire.Note{Src: id, Stamp: stamp, Code: wire.NoticeCode(1 + random.IntN(2)), About: node}
		}
		r.e.Receive(r.now, Source{Route: route}, m)
		sends := 0
		for _, d := range r.take() {
			if _, ok := d.(Send); ok {
				sends++
			}
		}
		if p, ok := m.(wire.Probe); sends > 1 || sends == 1 && (!ok || p.Kind != wire.Ping && p.Flags&wire.Challenge == 0) {
			t.Fatalf("%d: %+v was answered with %d frames", i, m, sends)
		}
	}
}

func TestManyNewAddressesAreBounded(t *testing.T) {
	r := newRig(t, fleetOf()...)
	r.meet(node, Route{Addr: at("192.0.2.1:1")})
	r.e.Traffic(r.now, node, Traffic{Tx: r.now})
	r.run(time.Second, nil)
	for i := range 500 {
		r.ping(node, Route{Addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), uint16(1000+i))}, r.stamp(node), 0, 0)
	}
	probed := map[Route]bool{}
	for _, s := range r.run(900*time.Millisecond, nil) {
		if s.Route.Addr.Addr() == netip.MustParseAddr("192.0.2.7") {
			probed[s.Route] = true
		}
	}
	if len(probed) > maxDiscovered {
		t.Errorf("%d of 500 new addresses were probed within a second, want at most %d", len(probed), maxDiscovered)
	}
	if v, _ := r.e.View(r.now, node); len(v.Routes) > maxLearned+10 {
		t.Errorf("%d routes are kept", len(v.Routes))
	}
}

// TestLossOfThePrimary counts the time from the first silence to the change.
func TestLossOfThePrimary(t *testing.T) {
	r := newRig(t, fleetOf()...)
	r.meet(node, Route{Hub: hubA})
	dead := Route{}
	answer := func(s Send) bool { return s.Route != dead }
	flow := func(d time.Duration) {
		for end := r.now.Add(d); r.now.Before(end); {
			u := r.use[node]
			tr := Traffic{Tx: r.now}
			if u.Route != dead {
				tr.Rx = r.now
			}
			r.e.Traffic(r.now, node, tr)
			r.run(40*time.Millisecond, answer)
		}
	}
	flow(10 * time.Second)
	was := r.use[node]
	if was.Route.Direct() || was.Spare.IsZero() || was.Spare.Hub == was.Route.Hub {
		t.Fatalf("uses %+v, want a relay with another hub to spare", was)
	}
	dead = was.Route
	begin := r.now
	for !r.use[node].Hedge && r.now.Sub(begin) < 5*time.Second {
		flow(40 * time.Millisecond)
	}
	hedged := r.now.Sub(begin)
	if r.use[node].Route != dead {
		t.Errorf("changed after %v without sending both ways first", hedged)
	}
	for r.use[node].Route == dead && r.now.Sub(begin) < 5*time.Second {
		flow(40 * time.Millisecond)
	}
	if hedged > 250*time.Millisecond || r.now.Sub(begin) > 600*time.Millisecond {
		t.Errorf("hedged after %v, changed after %v", hedged, r.now.Sub(begin))
	}
	if now := r.use[node].Route; now != was.Spare {
		t.Errorf("changed to %v, want the spare %v", now, was.Spare)
	}
}

func TestWordOfAHub(t *testing.T) {
	notes := map[string]wire.Note{
		"unreachable": {Code: wire.Unreachable, About: node},
		"draining":    {Code: wire.Draining},
	}
	for name, note := range notes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, fleetOf()...)
			r.e.Traffic(r.now, node, Traffic{Tx: r.now})
			r.run(time.Second, everything)
			was := r.use[node].Route
			note.Src, note.Stamp = was.Hub, r.stamp(was.Hub)
			r.e.Receive(r.now, Source{Route: Route{Addr: r.line[was.Hub]}}, note)
			r.take()
			if now := r.use[node].Route; now == was || now.IsZero() {
				t.Errorf("still goes by %v", now)
			}
			// A replay of it, after the hub is in use again, does nothing.
			if r.e.peers[was.Hub].fresh(note.Stamp) {
				t.Error("the note could be replayed")
			}
		})
	}
}

func TestRefusedByThisMachine(t *testing.T) {
	r := newRig(t, fleetOf()...)
	r.run(0, nil)
	r.e.Failed(r.now, hubA, Route{Addr: at("[2001:db8::1]:1")})
	r.take()
	if got := r.use[hubA].Route.Addr; got != at("198.51.100.1:1") {
		t.Errorf("goes to %v, want the address of the other family", got)
	}
	if got := r.line[hubA]; got != at("198.51.100.1:1") {
		t.Errorf("relays are sent to %v, want the address of the other family", got)
	}
}

// TestNoKinInDoubt: when the direct route breaks, another direct one that answered
// some seconds ago is no better: it may have broken as well.
func TestNoKinInDoubt(t *testing.T) {
	for i := range 10 {
		r := newRig(t, fleetOf()...)
		broken := false
		flow := func(d time.Duration) (used []Route) {
			for end := r.now.Add(d); r.now.Before(end); {
				tr := Traffic{Tx: r.now}
				if u := r.use[hubA].Route; !broken || !u.Direct() {
					tr.Rx = r.now
				}
				r.e.Traffic(r.now, hubA, tr)
				r.run(40*time.Millisecond, func(s Send) bool { return !broken || s.Peer != hubA || !s.Route.Direct() })
				if u := r.use[hubA].Route; len(used) == 0 || used[len(used)-1] != u {
					used = append(used, u)
				}
			}
			return used
		}
		flow(20*time.Second + time.Duration(i)*370*time.Millisecond)
		was := r.use[hubA].Route
		if !was.Direct() {
			t.Fatalf("goes by %v, want a direct route", was)
		}
		broken = true
		used := flow(2 * time.Second)
		if len(used) < 2 || used[1].Direct() {
			t.Errorf("%d: went by %v, want a relay after %v", i, used, was)
		}
	}
}

// TestBackAfterAnOutage: a direct route that answered nothing for some seconds was
// not lossy, but away: it is used again soon after its hold-down. If that happens
// again and again it is left alone for longer.
func TestBackAfterAnOutage(t *testing.T) {
	r := newRig(t, fleetOf()...)
	direct, away := Route{Addr: at("198.51.100.2:1")}, false
	flow := func() {
		r.e.Traffic(r.now, hubB, Traffic{Tx: r.now, Rx: r.now})
		r.run(40*time.Millisecond, func(s Send) bool { return !away || s.Route != direct })
	}
	for end := r.now.Add(30 * time.Second); r.now.Before(end); {
		flow()
	}
	if got := r.use[hubB].Route; got != direct {
		t.Fatalf("goes by %v, want the direct route", got)
	}
	var took []time.Duration
	for range 3 {
		away = true
		for end := r.now.Add(3 * time.Second); r.now.Before(end); {
			flow()
		}
		if got := r.use[hubB].Route; got == direct {
			t.Fatal("after three seconds of nothing it still goes by the direct route")
		}
		away = false
		begin := r.now
		for r.use[hubB].Route != direct && r.now.Sub(begin) < 3*time.Minute {
			flow()
		}
		took = append(took, r.now.Sub(begin).Round(time.Second))
	}
	if took[0] < Hold-5*time.Second || took[0] > Hold+10*time.Second || took[2] < 2*Hold {
		t.Errorf("back after %v; want after some %v at first, and at least twice that the third time", took, Hold)
	}
}

// TestLastWayJustBack: the only way that is left was away until a moment ago, and
// nobody looked since. Who has no other looks at once.
func TestLastWayJustBack(t *testing.T) {
	for _, what := range []string{"the way by the hub", "the hub itself"} {
		for i := range 10 {
			r := newRig(t, fleetOf()...)
			r.meet(node, Route{Hub: hubA})
			away := map[wire.ID]bool{}
			flow := func(d time.Duration) {
				for end := r.now.Add(d); r.now.Before(end); {
					tr := Traffic{Tx: r.now}
					if !away[r.use[node].Route.Hub] {
						tr.Rx = r.now
					}
					r.e.Traffic(r.now, node, tr)
					r.run(40*time.Millisecond, func(s Send) bool {
						return !away[s.Route.Hub] && (what != "the hub itself" || !away[s.Peer])
					})
				}
			}
			flow(20 * time.Second)
			first := r.use[node].Route.Hub
			away[first] = true
			flow(20*time.Second + time.Duration(i)*700*time.Millisecond)
			last := r.use[node].Route.Hub
			if last == first {
				t.Fatal("it still goes by the hub that is away")
			}
			away[first], away[last] = false, true
			begin := r.now
			for r.use[node].Route.Hub != first && r.now.Sub(begin) < 20*time.Second {
				flow(40 * time.Millisecond)
			}
			if took := r.now.Sub(begin); took > 1200*time.Millisecond {
				t.Errorf("%s: cut off for %v", what, took)
			}
		}
	}
}

// TestRefuge: when the route in use is gone, one that answered some seconds ago is
// better than one that answers and is known to lose packets.
func TestRefuge(t *testing.T) {
	r := newRig(t, fleetOf()...)
	direct, relayed := Route{Addr: at("198.51.100.2:1")}, Route{Hub: hubA}
	for end := r.now.Add(30 * time.Second); r.now.Before(end); {
		r.e.Traffic(r.now, hubB, Traffic{Tx: r.now, Rx: r.now})
		r.run(40*time.Millisecond, func(Send) bool { return true })
	}
	p := r.e.peers[hubB]
	was := *p.track(direct)
	p.track(relayed).lastEcho = r.now.Add(-Fresh - time.Second)
	for what, blame := range map[string]func(*track){
		"":        func(*track) {},
		"on hold": func(d *track) { d.heldUntil = r.now.Add(Hold); d.record(1); d.record(1); d.record(1) },
		"narrow":  func(d *track) { d.fullMisses = missesFull },
	} {
		*p.track(direct) = was
		blame(p.track(direct))
		want := relayed
		if what == "" {
			want = direct
		}
		if got := r.e.best(r.now, p, nil); got == nil || got.route != want {
			t.Errorf("the direct one %s: %v, want %v", what, got, want)
		}
	}
}

func TestHoldDownDoubles(t *testing.T) {
	now := time.Unix(1000, 0)
	var tr track
	var holds []time.Duration
	for range 6 {
		tr.fail(now)
		holds = append(holds, tr.heldUntil.Sub(now))
		now = tr.heldUntil.Add(time.Second)
	}
	want := []time.Duration{Hold, 2 * Hold, HoldMax, HoldMax, HoldMax, HoldMax}
	if diff := cmp.Diff(want, holds); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What it loses before it is over begins it anew; it grows no further.
	now = now.Add(-2 * time.Second)
	tr.misses = 0
	tr.missed(now, flight{at: now})
	if got := tr.heldUntil.Sub(now); got != HoldMax {
		t.Errorf("after another loss it is held for %v, want %v", got, HoldMax)
	}
	now = now.Add(time.Hour)
	tr.fail(now)
	if got := tr.heldUntil.Sub(now); got != Hold {
		t.Errorf("after a good hour it is held for %v, want %v", got, Hold)
	}
}

func TestPeersThatLeaveAreForgotten(t *testing.T) {
	r := newRig(t, fleetOf()...)
	r.e.Traffic(r.now, node, Traffic{Tx: r.now})
	r.run(time.Second, everything)
	r.e.SetPeers(r.now, NewDirectory(fleetOf()[1:])) // without hubA
	sent := r.run(time.Second, everything)
	for _, s := range sent {
		if s.Peer == hubA || s.Route.Hub == hubA {
			t.Errorf("sent %+v", s)
		}
	}
	if got := r.use[node].Route.Hub; got != hubB {
		t.Errorf("goes by hub %v, want %v", got, hubB)
	}
	r.e.Receive(r.now, Source{Route: Route{Addr: at("198.51.100.1:1")}}, wire.Probe{
		Kind: wire.Ping, Src: hubA, Stamp: r.stamp(hubA), Nonce: 1, Size: 80,
	})
	if said := r.take(); len(said) > 0 {
		t.Errorf("who left is answered: %+v", said)
	}
}

func TestQuestionsOfAHubAreLimited(t *testing.T) {
	r := newRig(t, fleetOf()...)
	from := Source{Route: Route{Addr: at("192.0.2.9:1")}}
	n := 0
	for range 100 { // within 99 ms
		r.e.Meet(r.now, node, from)
		n += len(r.take())
		r.now = r.now.Add(time.Millisecond)
	}
	if n > 2 {
		t.Errorf("asked %d times within 0.1 s", n)
	}
}

func TestEndpoints(t *testing.T) {
	r := newRig(t, fleetOf()...)
	seen := at("192.0.2.77:40000")
	r.e.SetLocal([]netip.AddrPort{at("192.168.1.10:1")})
	for _, s := range r.run(0, nil) {
		p := s.Message.(wire.Probe)
		r.e.Receive(r.now.Add(time.Millisecond), Source{Route: s.Route}, wire.Probe{
			Kind: wire.Pong, Src: s.Peer, Stamp: r.stamp(s.Peer), Nonce: 1, Echo: p.Nonce, Seen: seen, Size: 80,
		})
	}
	if diff := cmp.Diff([]netip.AddrPort{seen, at("192.168.1.10:1")}, r.e.Endpoints(r.now), cmpAddrs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := r.e.Endpoints(r.now.Add(time.Hour)); len(got) != 1 {
		t.Errorf("an hour later %v, want our own address only", got)
	}
}

// TestFirstPacketToAKnownAddress: a node that keeps in touch is sent its first
// packet where it was heard from, not by a relay that is only guessed.
func TestFirstPacketToAKnownAddress(t *testing.T) {
	r := newRig(t, fleetOf()...)
	home := Route{Addr: at("192.0.2.9:1")}
	r.meet(node, home)
	r.run(10*time.Second, everything)
	if got := r.use[node].Route; got != home {
		t.Errorf("asleep, the first packet would go by %v, want %v", got, home)
	}
}

func TestRTT(t *testing.T) {
	r := newRig(t, fleetOf()...)
	if _, ok := r.e.RTT(r.now, hubA); ok {
		t.Error("known before an answer")
	}
	r.run(time.Second, everything)
	if rtt, ok := r.e.RTT(r.now, hubA); !ok || rtt <= 0 {
		t.Errorf("after an answer: %v, %v", rtt, ok)
	}
	r.run(Mapping+KeepaliveMax, nil)
	if _, ok := r.e.RTT(r.now, hubA); ok {
		t.Error("known although nothing is answered any more")
	}
	if _, ok := r.e.RTT(r.now, wire.ID{9, 9}); ok {
		t.Error("a stranger's is known")
	}
}

// TestFullPacketsLost: a route that small packets pass and full ones do not is
// left within a second while there is much to send, and not returned to before
// it passes them again.
func TestFullPacketsLost(t *testing.T) {
	r := newRig(t)
	r.e.cfg.PadTo = 1312
	r.e.SetPeers(r.now, NewDirectory(fleetOf()))
	direct, narrow := Route{Addr: at("198.51.100.2:1")}, false
	answer := func(s Send) bool {
		return s.Route != direct || !narrow || s.Message.(wire.Probe).Size == wire.ProbeSize
	}
	flow := func(d time.Duration) {
		for end := r.now.Add(d); r.now.Before(end); {
			r.e.Traffic(r.now, hubB, Traffic{Tx: r.now, Bulk: r.now, Rx: r.now})
			r.run(40*time.Millisecond, answer)
		}
	}
	flow(20 * time.Second)
	if got := r.use[hubB]; got.Route != direct || got.Spare.Direct() || got.Spare.IsZero() {
		t.Fatalf("uses %+v, want the direct route and a relay to spare", got)
	}
	narrow = true
	flow(time.Second)
	if got := r.use[hubB].Route; got.Direct() {
		t.Errorf("a second later it still goes by %v", got)
	}
	flow(2 * time.Minute)
	if got := r.use[hubB].Route; got.Direct() {
		t.Errorf("went back to %v, which only small packets pass", got)
	}
	narrow = false
	flow(30 * time.Second)
	if got := r.use[hubB].Route; got != direct {
		t.Errorf("30 s after full packets pass again it goes by %v", got)
	}
}

// TestNoRoomForFullPackets: where no route passes full packets this is said, so
// that smaller ones are made; and it is unsaid when one does again.
func TestNoRoomForFullPackets(t *testing.T) {
	r := newRig(t)
	r.e.cfg.PadTo = 1312
	r.e.SetPeers(r.now, NewDirectory(fleetOf()))
	narrow := false
	flow := func(d time.Duration) {
		for end := r.now.Add(d); r.now.Before(end); {
			r.e.Traffic(r.now, hubB, Traffic{Tx: r.now, Bulk: r.now, Rx: r.now})
			r.run(40*time.Millisecond, func(s Send) bool {
				m, ok := s.Message.(wire.Probe)
				return !narrow || !ok || m.Size == wire.ProbeSize
			})
		}
	}
	flow(40 * time.Millisecond)
	if got := r.use[hubB]; got.Narrow {
		t.Errorf("of a route that was hardly tried yet it says %+v", got)
	}
	for _, n := range []bool{false, true, false} {
		narrow = n
		flow(30 * time.Second)
		if got := r.use[hubB]; got.Narrow != n || got.Wide == n {
			t.Errorf("full packets lost: %v; it says %+v", n, got)
		}
	}
}

// TestNATForgot: a hub that sees us at another address than before says that the
// NAT in between forgot us: the other hubs are told at once, but not again and
// again where every packet comes from another port.
func TestNATForgot(t *testing.T) {
	r := newRig(t, fleetOf()...)
	seen := func(hub wire.ID, sends []Send, port uint16) {
		for _, s := range sends {
			if p := s.Message.(wire.Probe); s.Peer == hub && p.Kind == wire.Ping {
				r.e.Receive(r.now.Add(time.Millisecond), Source{Route: s.Route}, wire.Probe{
					Kind: wire.Pong, Src: hub, Stamp: r.stamp(hub), Nonce: 1, Echo: p.Nonce, Size: 80,
					Seen: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.77"), port),
				})
			}
		}
	}
	first := r.run(0, nil)
	seen(hubA, first, 40000)
	seen(hubB, first, 40000)
	probed := 0
	for port := range uint16(8) { // a new port with every keepalive
		for _, s := range r.run(KeepaliveMax/8, everything) {
			if s.Peer == hubA {
				probed++
			}
		}
		r.e.doubt(r.now, r.e.peers[hubB])
		seen(hubB, r.run(0, nil), 40001+port)
		if port == 0 {
			if again := r.run(10*time.Millisecond, everything); !slices.ContainsFunc(again, func(s Send) bool { return s.Peer == hubA }) {
				t.Error("the other hub was not told")
			}
		}
	}
	if probed > 20 {
		t.Errorf("%d probes of the other hub within %v", probed, KeepaliveMax)
	}
}

func TestFamilyOf(t *testing.T) {
	for _, tt := range []struct {
		endpoints []string
		want      Family
	}{
		{nil, Family{}},
		{[]string{"203.0.113.1:5", "[2001:db8::1]:5"}, Family{Known: true, V4: true, V6: true}},
		{[]string{"192.0.2.1:7", "192.168.1.10:5"}, Family{Known: true, V4: true, NAT: true}},
		{[]string{"192.0.2.1:7", "192.0.2.1:8", "192.168.1.10:5"}, Family{Known: true, V4: true, NAT: true, Varies: true}},
		{[]string{"192.0.2.1:7", "100.64.0.3:5", "[2001:db8::1]:5"}, Family{Known: true, V4: true, V6: true, NAT: true}},
		{[]string{"192.168.1.10:5", "[fd00::1]:5"}, Family{Known: true, V4: true}},
	} {
		var endpoints []netip.AddrPort
		for _, s := range tt.endpoints {
			endpoints = append(endpoints, at(s))
		}
		if got := familyOf(endpoints); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.endpoints, got, tt.want)
		}
	}
}
