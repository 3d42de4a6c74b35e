package link

import (
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// TestRoutesChangeBelowTheSession: direct, relayed and back, with one handshake.
func TestRoutesChangeBelowTheSession(t *testing.T) {
	n := nodes(t, 3)
	a, b, hub := n[0], n[1], n[2]
	a.direct(b)
	b.direct(a)
	if !a.send(t, b, 2*time.Second) || !b.send(t, a, 2*time.Second) {
		t.Fatal("not direct")
	}
	before := a.handshake(t, b)
	a.via(hub, b)
	if !a.send(t, b, time.Second) || !b.send(t, a, time.Second) {
		t.Error("not with one direction relayed")
	}
	b.via(hub, a)
	if !a.send(t, b, time.Second) || !b.send(t, a, time.Second) {
		t.Error("not relayed")
	}
	if got, want := a.uapi(t, b, "endpoint"), hub.addr.String(); got != want {
		t.Errorf("wg shows %s, want the hub's address %s", got, want)
	}
	a.direct(b)
	b.direct(a)
	if !a.send(t, b, time.Second) || !b.send(t, a, time.Second) {
		t.Error("not direct again")
	}
	if after := a.handshake(t, b); after != before {
		t.Errorf("handshake at %s, and again at %s", before, after)
	}
	if len(hub.tun.Inbound) > 0 {
		t.Error("the hub got what it relayed")
	}
	if from, to := hub.relay.Relayed(a.id); from == 0 || to == 0 {
		t.Errorf("the hub counted %d bytes from a and %d to it", from, to)
	}
}

// TestNoRouteThenOne: an answer that could not be sent is sent when there is a
// way.
func TestNoRouteThenOne(t *testing.T) {
	n := nodes(t, 2)
	a, b := n[0], n[1]
	a.direct(b)
	a.tun.Outbound <- tuntest.Ping(b.ip, a.ip)
	waitFor(t, "b to have tried an answer", func() bool { return b.bind.Counters(a.id).TxBytes > 0 })
	b.direct(a)
	select {
	case <-b.tun.Inbound:
	case <-time.After(2 * time.Second):
		t.Error("the answer was not sent when there was a way")
	}
}

// TestHedge: data goes both ways and arrives once, handshakes go one way.
func TestHedge(t *testing.T) {
	n := nodes(t, 3)
	a, b, hub := n[0], n[1], n[2]
	b.direct(a)
	a.bind.Line(path.Line{Hub: hub.id, Addr: hub.addr})
	a.bind.Use(path.Use{
		Peer: b.id, Route: path.Route{Addr: b.addr}, Spare: path.Route{Hub: hub.id}, Hedge: true,
	}, time.Now())
	for range 5 {
		if !a.send(t, b, 2*time.Second) {
			t.Fatal("lost")
		}
	}
	waitFor(t, "the second copies to pass the hub", func() bool {
		from, _ := hub.relay.Relayed(a.id)
		return from > 0
	})
	select {
	case got := <-b.tun.Inbound:
		t.Errorf("a second copy came out: %x", got)
	case <-time.After(100 * time.Millisecond):
	}
	const packet = 64 + wire.RelaySize // 32 bytes of ping, sealed; an initiation has 148
	if from, _ := hub.relay.Relayed(a.id); from%packet != 0 {
		t.Errorf("the hub got %d bytes, and not only copies of data", from)
	}
}

// TestRefusedLocally: what this machine refuses to send goes by the spare.
func TestRefusedLocally(t *testing.T) {
	n := nodes(t, 2)
	a, b := n[0], n[1]
	b.direct(a)
	a.bind.Use(path.Use{
		Peer: b.id, Route: path.Route{Hub: wire.ID{9}}, Spare: path.Route{Addr: b.addr},
	}, time.Now())
	if !a.send(t, b, 2*time.Second) {
		t.Error("lost, with a spare at hand")
	}
}

// TestControlFrames: what is ours goes to Control with its way back, and never
// to WireGuard; what is nobody's is dropped.
func TestControlFrames(t *testing.T) {
	n := nodes(t, 3)
	a, b, hub := n[0], n[1], n[2]
	pair, _ := a.bind.ring.Load().Pair(b.id)
	ping := pair.SealProbe(nil, wire.Probe{Kind: wire.Ping, Stamp: wire.Stamp{Epoch: 1, Counter: 1}, Nonce: 1, Size: wire.ProbeSize})
	a.bind.Line(path.Line{Hub: hub.id, Addr: hub.addr})
	for _, r := range []path.Route{{Addr: b.addr}, {Hub: hub.id}} {
		if err := a.bind.SendFrame(b.id, r, netip.Addr{}, ping); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.bind.SendTo(b.addr, netip.Addr{}, []byte("a stranger's words, long enough to be read")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "both pings", func() bool { return len(b.sources()) >= 2 })
	want := map[path.Route]netip.Addr{
		{Addr: a.addr}: netip.MustParseAddr("127.0.0.1"),
		{Hub: hub.id}:  {},
	}
	for _, s := range b.sources() {
		if local, ok := want[s.Route]; !ok || local != s.Local {
			t.Errorf("from %+v at %v, want one of %v", s.Route, s.Local, want)
		}
	}
	if got := len(b.sources()); got != 2 {
		t.Errorf("%d frames, want 2", got)
	}
}

func TestLook(t *testing.T) {
	n := nodes(t, 3)
	a, b, hub := n[0], n[1], n[2]
	a.direct(b)
	b.direct(a)
	a.send(t, b, 2*time.Second)
	a.mu.Lock()
	first := len(a.looked)
	a.mu.Unlock()
	if first == 0 {
		t.Error("not told that a sends to b")
	}
	a.bind.Quiet(b.id)
	a.send(t, b, 2*time.Second)
	a.send(t, b, 2*time.Second)
	a.mu.Lock()
	if got := len(a.looked) - first; got != 1 {
		t.Errorf("told %d times of data after a silence, want once", got)
	}
	a.mu.Unlock()
	// b leaves the route that a uses.
	b.send(t, a, 2*time.Second)
	a.mu.Lock()
	before := len(a.looked)
	a.mu.Unlock()
	b.via(hub, a)
	b.send(t, a, 2*time.Second)
	b.send(t, a, 2*time.Second)
	a.mu.Lock()
	defer a.mu.Unlock()
	if got := len(a.looked) - before; got != 1 {
		t.Errorf("told %d times that b took another route, want once", got)
	}
	if c := a.bind.Counters(b.id); c.Other != (path.Route{Hub: hub.id}) || c.OtherRx.IsZero() {
		t.Errorf("counters %+v", c)
	}
}

// TestRestart: a peer that lost its session is talked to at once, even if its
// clock went back.
func TestRestart(t *testing.T) {
	n := nodes(t, 2)
	a, b := n[0], n[1]
	a.direct(b)
	b.direct(a)
	if !a.send(t, b, 2*time.Second) {
		t.Fatal("lost")
	}
	was := a.handshake(t, b)
	// WireGuard takes one handshake per 20 ms (HandshakeInitationRate).
	begin := time.Now()
	waitFor(t, "the next handshake to be allowed", func() bool { return time.Since(begin) > 25*time.Millisecond })
	// b's keys are gone, as after a restart.
	b.dev.dev.LookupPeer(device.NoisePublicKey(a.key.Public())).ZeroAndFlushAll()
	if err := a.dev.Restart(b.key.Public(), true); err != nil {
		t.Fatal(err)
	}
	if !a.send(t, b, 2*time.Second) || !b.send(t, a, 2*time.Second) {
		t.Error("not talking after the restart")
	}
	if a.handshake(t, b) == was {
		t.Error("no new handshake")
	}
	if err := a.dev.Restart(fleet.Key{1}, true); err != nil {
		t.Errorf("of a peer that left meanwhile: %v", err)
	}
}

func TestMembersThatStayKeepTheirSession(t *testing.T) {
	n := nodes(t, 3)
	a, b, c := n[0], n[1], n[2]
	a.direct(b)
	b.direct(a)
	a.send(t, b, 2*time.Second)
	was := a.handshake(t, b)
	ring, _ := a.bind.ring.Load().With([]fleet.Key{b.key.Public()})
	a.bind.SetPeers(ring, []wire.ID{b.id})
	if err := a.dev.SetMembers([]Member{{b.key.Public(), []netip.Prefix{netip.PrefixFrom(b.ip, 32)}}}); err != nil {
		t.Fatal(err)
	}
	if !a.send(t, b, time.Second) || a.handshake(t, b) != was {
		t.Errorf("handshake %s, was %s", a.handshake(t, b), was)
	}
	if a.uapi(t, c, "protocol_version") != "" {
		t.Error("who left is still a peer")
	}
}

// TestGreet: a handshake that went nowhere is begun anew as soon as somebody
// asks, not after WireGuard's 5 s.
func TestGreet(t *testing.T) {
	n := nodes(t, 2)
	a, b := n[0], n[1]
	nowhere := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 9)
	a.direct(b)
	b.bind.Use(path.Use{Peer: a.id, Route: path.Route{Addr: nowhere}}, time.Now()) // its answers are lost
	a.tun.Outbound <- tuntest.Ping(b.ip, a.ip)
	waitFor(t, "b to have answered", func() bool { return b.bind.Counters(a.id).TxBytes > 0 })
	if got := a.bind.Handshake(b.id, time.Now()); got != Waiting {
		t.Errorf("the handshake is %d, want %d", got, Waiting)
	}
	b.direct(a)
	begin := time.Now()
	waitFor(t, "the next handshake to be allowed", func() bool { return time.Since(begin) > 25*time.Millisecond })
	if err := a.dev.Greet(b.key.Public()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.tun.Inbound:
	case <-time.After(2 * time.Second):
		t.Error("no new handshake")
	}
	if got := a.bind.Handshake(b.id, time.Now()); got != Settled {
		t.Errorf("the handshake is %d, want %d", got, Settled)
	}
}

// TestBothBegin: of two handshakes that cross, one goes first, and both ends have
// one session at once.
func TestBothBegin(t *testing.T) {
	n := nodes(t, 2)
	a, b := n[0], n[1]
	for _, x := range [][2]*node{{a, b}, {b, a}} {
		x[0].tun.Outbound <- tuntest.Ping(x[1].ip, x[0].ip) // kept: there is no way yet
	}
	waitFor(t, "both to have begun", func() bool {
		return a.bind.Counters(b.id).TxBytes > 0 && b.bind.Counters(a.id).TxBytes > 0
	})
	a.direct(b)
	b.direct(a)
	for _, x := range []*node{a, b} {
		select {
		case <-x.tun.Inbound:
		case <-time.After(4 * time.Second): // WireGuard itself would take 5, or 15
			t.Fatal("lost")
		}
	}
	if !a.send(t, b, 4*time.Second) || !b.send(t, a, 4*time.Second) {
		t.Error("lost after it")
	}
}

// TestDelivers: whose payload a relayed packet has, and whether it is authentic,
// is judged for each, whatever the one before it was.
func TestDelivers(t *testing.T) {
	n := nodes(t, 5)
	self, hub1, hub2, a, b := n[0], n[1], n[2], n[3], n[4]
	frame := func(hub, from *node) []byte {
		ring, _ := wire.NewKeyring(hub.key).With([]fleet.Key{self.key.Public()})
		pair, ok := ring.Pair(self.id)
		if !ok {
			t.Fatal("no pair")
		}
		f := append(make([]byte, wire.RelaySize), packetsOf(100)[0]...)
		pair.PutDeliver(f, from.id, wire.Stamp{Epoch: 1, Counter: 1})
		return f
	}
	forged := func(hub, from, claimed *node) []byte {
		f := frame(hub, from)
		copy(f[12:], claimed.id[:])
		return f
	}
	byAnother := frame(hub1, a)
	copy(byAnother[20:], hub2.id[:]) // hub1's, in hub2's name
	tests := []struct {
		what  string
		frame []byte
		want  *node // nil: refused
	}{
		{"the first", frame(hub1, a), a},
		{"the same way", frame(hub1, a), a},
		{"somebody else's name on it", forged(hub1, a, b), nil},
		{"from another", frame(hub1, b), b},
		{"by another hub", frame(hub2, b), b},
		{"in another hub's name", byAnother, nil},
		{"as before", frame(hub2, b), b},
		{"cut", frame(hub2, b)[:60], nil},
		{"the first again", frame(hub1, a), a},
	}
	in := &inbound{bind: self.bind, sock: self.bind.v4.Load(), now: time.Now()}
	for _, tt := range tests {
		payload, ep := in.packet(tt.frame, hub1.addr, nil)
		switch {
		case tt.want == nil && ep != nil:
			t.Errorf("%s: taken", tt.what)
		case tt.want != nil && (ep != self.bind.peer(tt.want.id) || len(payload) != 100):
			t.Errorf("%s: %d bytes from %v", tt.what, len(payload), ep)
		}
	}
}
