package path

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// manyPeers are 10,000 nodes behind NATs, and the hubs of fleetOf.
func manyPeers() []Peer {
	all := fleetOf()
	for i := range 10_000 {
		id := wire.ID{0x80}
		binary.BigEndian.PutUint32(id[1:], uint32(i))
		all = append(all, Peer{ID: id})
	}
	return all
}

// TestPeersCostWhatTheyTalk: of ten thousand configured peers, those are kept that
// were talked to, and looked after that are.
func TestPeersCostWhatTheyTalk(t *testing.T) {
	all := manyPeers()
	r := newRig(t, all...)
	cost := func(when string, known, probed int) {
		t.Helper()
		if got := len(r.e.peers); got != known {
			t.Errorf("%s: %d peers are kept, want %d", when, got, known)
		}
		r.run(2*time.Second, everything)
		asked := make(map[wire.ID]bool)
		for _, s := range r.run(5*time.Second, everything) {
			if p, ok := s.Message.(wire.Probe); ok && p.Kind == wire.Ping && !slices.Contains([]wire.ID{hubA, hubB}, s.Peer) {
				asked[s.Peer] = true
			}
		}
		if len(asked) != probed {
			t.Errorf("%s: %d peers are probed, want %d", when, len(asked), probed)
		}
	}
	cost("at first", 2, 0)
	for _, p := range all[3:6] {
		r.e.Traffic(r.now, p.ID, Traffic{Tx: r.now})
	}
	cost("three are talked to", 5, 3)
	r.run(Idle, everything)
	cost("they fell silent", 5, 0)
	r.run(Forget, everything)
	cost("they are forgotten", 2, 0)
}

// TestQuiet: the engine looks at traffic while it flows, and asks to be told when
// it starts again.
func TestQuiet(t *testing.T) {
	r := newRig(t, fleetOf()...)
	looks := 0
	var traffic Traffic
	r.e.cfg.Traffic = func(_ time.Time, id wire.ID) Traffic {
		if id == node {
			looks++
		}
		return traffic
	}
	quiet := func() (n int) {
		for _, d := range r.said {
			if d == (Quiet{node}) {
				n++
			}
		}
		return n
	}
	advance := func(d time.Duration, flows bool) {
		for end := r.now.Add(d); r.now.Before(end); {
			if flows {
				traffic.Tx, traffic.Rx = r.now, r.now
			}
			next := r.e.Advance(r.now)
			for d := range r.e.Decisions() {
				if _, ok := d.(Quiet); ok {
					r.said = append(r.said, d)
				}
			}
			r.now = minTime(next, end)
		}
	}
	traffic.Tx = r.now
	r.e.Traffic(r.now, node, traffic)
	advance(2*time.Second, true)
	if most := int(2*time.Second/Look) + 20; looks < most/2 || quiet() > 0 {
		t.Errorf("%d looks in two seconds of traffic, %d times quiet", looks, quiet())
	}
	advance(time.Second, false)
	if quiet() != 1 {
		t.Errorf("%d times quiet after the traffic ended, want once", quiet())
	}
	looks = 0
	advance(5*time.Second, false)
	if looks > 200 {
		t.Errorf("%d looks at traffic that does not flow", looks)
	}
	// Who is told of old traffic asks again.
	r.said = nil
	advance(2*Idle, false)
	before := quiet()
	r.e.Traffic(r.now, node, traffic)
	advance(time.Second, false)
	if quiet() != before+1 || r.e.IsAwake(node) {
		t.Errorf("told of old traffic: %d times quiet, awake %v", quiet()-before, r.e.IsAwake(node))
	}
}

// TestForgottenPeerIsNoStranger: a peer that was forgotten proves its epoch anew,
// and what proved it before does not do so again.
func TestForgottenPeerIsNoStranger(t *testing.T) {
	home, thief := Route{Addr: at("192.0.2.9:1")}, Route{Addr: at("192.0.2.66:66")}
	r := newRig(t, fleetOf()...)
	first := r.ping(node, home, r.stamp(node), 0, 0)
	proof := r.stamp(node)
	r.ping(node, home, proof, first[0].Nonce, wire.Primary)
	r.take()
	r.run(Forget+time.Minute, nil)
	if r.e.peers[node] != nil {
		t.Fatal("not forgotten")
	}
	r.take()
	r.ping(node, thief, proof, first[0].Nonce, wire.Primary)
	for _, d := range r.take() {
		if _, sent := d.(Send); !sent {
			t.Errorf("a replayed proof made it decide %+v", d)
		}
	}
	r.meet(node, home)
	if !slices.Contains(r.take(), Decision(Egress{Peer: node, Addr: home.Addr})) {
		t.Error("the node itself is not met again")
	}
}

// TestStatusOfManyIsCheap: to say how things stand with all peers makes none of
// them known.
func TestStatusOfManyIsCheap(t *testing.T) {
	all := manyPeers()
	r := newRig(t, all...)
	for _, p := range all {
		v, ok := r.e.View(r.now, p.ID)
		if !ok || !v.Reachable() {
			t.Fatalf("of %v: %+v, %v", p.ID, v, ok)
		}
	}
	if got := len(r.e.peers); got != 2 {
		t.Errorf("%d peers are kept", got)
	}
	if _, ok := r.e.View(r.now, self); ok {
		t.Error("a node is its own peer")
	}
}

// manyHubs are so many, every third without IPv6, and the node.
func manyHubs(n int) (peers []Peer, hubs []wire.ID) {
	for i := range n {
		id := wire.ID{1, byte(i)}
		p := Peer{ID: id, Hub: true, Public: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1)}}
		if i%3 > 0 {
			p.Public = append(p.Public, netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 15: byte(i)}), 1))
		}
		peers, hubs = append(peers, p), append(hubs, id)
	}
	return append(peers, Peer{ID: node}), hubs
}

// homes are the hubs that are kept in touch with.
func (r *rig) homes() (out []wire.ID) {
	for _, h := range r.e.hubs {
		if h.home {
			out = append(out, h.ID)
		}
	}
	return out
}

// TestHomes: of many hubs, a node keeps in touch with the two that others look for
// it at, and with the three that are nearest; and with others when these die.
func TestHomes(t *testing.T) {
	peers, hubs := manyHubs(20)
	r := newRig(t, peers...)
	dead := make(map[wire.ID]bool)
	near := []wire.ID{hubs[7], hubs[11], hubs[13]}
	answer := func(s Send) bool {
		if dead[s.Peer] || !s.Route.Direct() {
			return false
		}
		rtt := 40 * time.Millisecond
		if slices.Contains(near, s.Peer) {
			rtt = 5 * time.Millisecond
		}
		r.pong(s, rtt)
		return false
	}
	r.run(time.Minute, answer)
	want := append(slices.Clone(near), NewDirectory(peers).ranked(self)[:2]...)
	check := func(when string, want []wire.ID) {
		t.Helper()
		got := r.homes()
		for _, id := range want {
			if !slices.Contains(got, id) {
				t.Errorf("%s: %v is no home", when, id)
			}
		}
		if len(got) > Homes+1 || len(got) < Homes-1 { // a dead one is looked for
			t.Errorf("%s: %d homes", when, len(got))
		}
	}
	check("at first", want)
	sent := r.run(10*time.Minute, answer)
	if rate := float64(len(sent)) / 600; rate > 1 {
		t.Errorf("%.1f probes a second with 20 hubs and no traffic", rate)
	}
	// Others look at the second next.
	ranked := NewDirectory(peers).ranked(self)
	dead[ranked[0]] = true
	r.run(KeepaliveMax+3*time.Second, answer)
	check("the first by hash is dead", ranked[1:3])
	delete(dead, ranked[0])
	r.run(time.Minute, answer)
	check("it is back", ranked[:2])
	// All but one die, whichever.
	for _, id := range hubs {
		dead[id] = id != hubs[19]
	}
	r.run(time.Minute, answer)
	if !slices.Contains(r.homes(), hubs[19]) {
		t.Error("the last hub is no home")
	}
}

// TestRanked: every node finds the same hubs for a peer; first those that machines
// of either family reach, and every hub gets its share.
func TestRanked(t *testing.T) {
	peers, hubs := manyHubs(9)
	d := NewDirectory(peers)
	share := make(map[wire.ID]int)
	for i := range 600 {
		id := wire.ID{9, byte(i), byte(i >> 8)}
		ranked := d.ranked(id)
		if len(ranked) != 9 {
			t.Fatalf("%d hubs", len(ranked))
		}
		for _, h := range ranked[:2] {
			share[h]++
			if !d.peers[h].bothFamilies() {
				t.Errorf("%v is to be looked for at %v, which has one family", id, h)
			}
		}
	}
	for _, h := range hubs {
		if n := share[h]; d.peers[h].bothFamilies() && (n < 130 || n > 270) {
			t.Errorf("%v is the hub of %d, of 1,200 on six", h, n)
		}
	}
	if got := d.ranked(hubs[0]); len(got) != 8 || slices.Contains(got, hubs[0]) {
		t.Errorf("a hub is looked for at %v", got)
	}
}
