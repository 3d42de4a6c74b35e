package relay

import (
	"crypto/sha256"
	"net/netip"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// party is one node as the others know it.
type party struct {
	key  wire.PrivateKey
	id   wire.ID
	ring *wire.Keyring
	n    uint64
}

type seeded struct{ state [32]byte }

func (s *seeded) Read(b []byte) (int, error) {
	s.state = sha256.Sum256(s.state[:])
	return copy(b, s.state[:]), nil
}

// meeting is a hub and nodes that know each other.
func meeting(t testing.TB, nodes int) (f *Forwarder, hub *party, out []*party) {
	t.Helper()
	var all []*party
	var keys []fleet.Key
	for i := range nodes + 1 {
		k, err := wire.NewPrivateKey(&seeded{[32]byte{byte(i + 1)}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &party{key: k, id: wire.IDOf(k.Public())})
		keys = append(keys, k.Public())
	}
	for _, p := range all {
		p.ring, _ = wire.NewKeyring(p.key).With(keys)
	}
	f = New(77)
	var pairs []*wire.Pair
	for _, p := range all[1:] {
		pair, _ := all[0].ring.Pair(p.id)
		pairs = append(pairs, pair)
	}
	f.SetMembers(pairs)
	for i, p := range all[1:] {
		f.SetEpoch(p.id, 5)
		f.SetHop(p.id, Hop{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1)})
	}
	return f, all[0], all[1:]
}

func payload() []byte {
	b := make([]byte, 64)
	b[0] = 4
	return b
}

// frame is what p sends to a hub for another.
func (p *party) frame(hub, to *party) []byte {
	p.n++
	return p.stamped(hub, to.id, wire.Stamp{Epoch: 5, Counter: p.n})
}

func (p *party) stamped(hub *party, to wire.ID, s wire.Stamp) []byte {
	b := append(make([]byte, wire.RelaySize), payload()...)
	pair, _ := p.ring.Pair(hub.id)
	pair.PutForward(b, b[wire.RelaySize:], to, s, 1)
	return b
}

func TestForward(t *testing.T) {
	f, hub, n := meeting(t, 2)
	b := n[0].frame(hub, n[1])
	hop, frame, v := f.Forward(time.Unix(1, 0), b)
	if v != Sent || hop.Addr != netip.MustParseAddrPort("192.0.2.1:1") || frame.From != n[0].id {
		t.Fatalf("%v to %v of %+v", v, hop, frame)
	}
	got, inner, err := n[1].ring.OpenDeliver(b)
	if err != nil || got.From != n[0].id || got.Hub != hub.id || string(inner) != string(payload()) {
		t.Errorf("delivered %+v %x: %v", got, inner, err)
	}
	if _, _, v := f.Forward(time.Unix(1, 0), b); v != Drop {
		t.Errorf("what was forwarded was forwarded again: %v", v)
	}
}

func TestVerdicts(t *testing.T) {
	_, _, strangers := meeting(t, 5) // keys the hub below does not have
	tests := map[string]struct {
		frame func(f *Forwarder, hub *party, n []*party) []byte
		want  Verdict
	}{
		"good": {func(_ *Forwarder, hub *party, n []*party) []byte { return n[0].frame(hub, n[1]) }, Sent},
		"replayed": {func(f *Forwarder, hub *party, n []*party) []byte {
			b := n[0].stamped(hub, n[1].id, wire.Stamp{Epoch: 5, Counter: 9})
			f.Forward(time.Unix(1, 0), append([]byte(nil), b...))
			return b
		}, Drop},
		"replayed, its epoch told again": {func(f *Forwarder, hub *party, n []*party) []byte {
			b := n[0].stamped(hub, n[1].id, wire.Stamp{Epoch: 5, Counter: 9})
			f.Forward(time.Unix(1, 0), append([]byte(nil), b...))
			f.SetEpoch(n[0].id, 5)
			return b
		}, Drop},
		"of another epoch": {func(_ *Forwarder, hub *party, n []*party) []byte {
			return n[0].stamped(hub, n[1].id, wire.Stamp{Epoch: 6, Counter: 1})
		}, Unknown},
		"of no epoch": {func(f *Forwarder, hub *party, n []*party) []byte {
			f.SetEpoch(n[0].id, 0)
			return n[0].stamped(hub, n[1].id, wire.Stamp{Counter: 1})
		}, Unknown},
		"to nobody": {func(_ *Forwarder, hub *party, n []*party) []byte {
			return n[0].stamped(hub, wire.ID{42}, wire.Stamp{Epoch: 5, Counter: 1})
		}, Drop},
		"to itself":     {func(_ *Forwarder, hub *party, n []*party) []byte { return n[0].frame(hub, n[0]) }, Drop},
		"by a stranger": {func(_ *Forwarder, hub *party, n []*party) []byte { return strangers[4].frame(hub, n[1]) }, Drop},
		"altered": {func(_ *Forwarder, hub *party, n []*party) []byte {
			b := n[0].frame(hub, n[1])
			b[30] ^= 1
			return b
		}, Drop},
		"cut": {func(_ *Forwarder, hub *party, n []*party) []byte { return n[0].frame(hub, n[1])[:60] }, Drop},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, hub, n := meeting(t, 2)
			if _, _, got := f.Forward(time.Unix(1, 0), tt.frame(f, hub, n)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestNoAddressYet(t *testing.T) {
	f, hub, n := meeting(t, 2)
	pairs := []*wire.Pair{}
	for _, p := range n {
		pair, _ := hub.ring.Pair(p.id)
		pairs = append(pairs, pair)
	}
	fresh := New(78) // restarted, empty
	fresh.SetMembers(pairs)
	fresh.SetEpoch(n[0].id, 5)
	b := n[0].frame(hub, n[1])
	if _, frame, v := fresh.Forward(time.Unix(1, 0), b); v != Unreachable || frame.To != n[1].id {
		t.Errorf("got %v about %v, want %v", v, frame.To, Unreachable)
	}
	// Members that stay keep what is known of them.
	f.SetMembers(pairs)
	if _, _, v := f.Forward(time.Unix(1, 0), n[0].frame(hub, n[1])); v != Sent {
		t.Errorf("after a change of members: %v", v)
	}
	f.SetMembers(pairs[:1])
	if _, _, v := f.Forward(time.Unix(1, 0), n[0].frame(hub, n[1])); v != Drop {
		t.Errorf("to one that left: %v", v)
	}
}

func TestRateLimit(t *testing.T) {
	f, hub, n := meeting(t, 3)
	now := time.Unix(1, 0)
	large := append(n[0].frame(hub, n[1]), make([]byte, 60000)...) // what follows the MAC's part is free
	size := len(large)
	sent := 0
	for range Burst/size + 100 {
		b := append(n[0].frame(hub, n[1]), large[:60000]...)
		if _, _, v := f.Forward(now, b); v == Sent {
			sent++
		}
	}
	if sent > Burst/size {
		t.Errorf("%d frames at once, want at most %d", sent, Burst/size)
	}
	if _, _, v := f.Forward(now, n[2].frame(hub, n[1])); v != Sent {
		t.Errorf("another sender is limited too: %v", v)
	}
	if _, _, v := f.Forward(now, append(n[0].frame(hub, n[1]), large[:60000]...)); v != Limited {
		t.Errorf("at the limit: %v", v)
	}
	if _, _, v := f.Forward(now.Add(time.Millisecond), n[0].frame(hub, n[1])); v != Sent {
		t.Errorf("a millisecond later: %v", v)
	}
}

func BenchmarkForward(b *testing.B) {
	f, hub, n := meeting(b, 2)
	now := time.Now()
	template := append(make([]byte, wire.RelaySize), make([]byte, 1312)...)
	pair, _ := n[0].ring.Pair(hub.id)
	b.SetBytes(int64(len(template)))
	var counter uint64
	for b.Loop() {
		counter++
		pair.PutForward(template, template[wire.RelaySize:], n[1].id, wire.Stamp{Epoch: 5, Counter: counter}, 1)
		now = now.Add(time.Minute) // the rate is not what is measured
		if _, _, v := f.Forward(now, template); v != Sent {
			b.Fatal(v)
		}
	}
}

// TestRun: frames that came together are judged as those that come alone,
// whoever they are from and for.
func TestRun(t *testing.T) {
	f, hub, n := meeting(t, 4)
	_, _, strangers := meeting(t, 6) // keys the hub does not have
	now := time.Unix(1, 0)
	run := f.Run(now)
	send := func(from, to int) {
		t.Helper()
		b := n[from].frame(hub, n[to])
		hop, frame, v := run.Forward(b)
		want := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(to)}), 1)
		if v != Sent || hop.Addr != want || frame.From != n[from].id {
			t.Fatalf("from %d to %d: %v to %v of %v", from, to, v, hop, frame.From)
		}
		if got, _, err := n[to].ring.OpenDeliver(b); err != nil || got.From != n[from].id {
			t.Fatalf("from %d to %d: delivered %+v: %v", from, to, got, err)
		}
	}
	refuse := func(what string, b []byte) {
		t.Helper()
		if _, _, v := run.Forward(b); v != Drop {
			t.Errorf("%s: %v", what, v)
		}
	}
	for range 2 {
		send(0, 1)
		send(0, 1)
		refuse("to itself", n[0].frame(hub, n[0]))
		refuse("by a stranger", strangers[5].frame(hub, n[1]))
		forged := n[0].frame(hub, n[1])
		forged[30] ^= 1
		refuse("altered", forged)
		other := n[0].frame(hub, n[1])
		copy(other[12:], n[2].id[:]) // somebody else's name before a frame of the first
		refuse("by another name", other)
		again := n[0].frame(hub, n[1])
		copied := append([]byte(nil), again...)
		run.Forward(again)
		refuse("replayed", copied)
		send(2, 1)
		send(0, 3)
		send(3, 0)
	}
	if from, to := f.Relayed(n[0].id); from == 0 || to == 0 {
		t.Errorf("booked %d and %d bytes", from, to)
	}
}
