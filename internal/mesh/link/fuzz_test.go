package link

import (
	"bytes"
	"crypto/sha256"
	"net/netip"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/relay"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// FuzzDatagram gives a hub's port whatever may come, from a stranger, from a node
// and from where a node is: it must not panic, and WireGuard sees what looks like
// WireGuard's only.
func FuzzDatagram(f *testing.F) {
	keys := make([]wire.PrivateKey, 3)
	for i := range keys {
		k, err := wire.NewPrivateKey(bytes.NewReader(bytes.Repeat([]byte{byte(i + 1)}, sha256.Size)))
		if err != nil {
			f.Fatal(err)
		}
		keys[i] = k
	}
	ids := []wire.ID{wire.IDOf(keys[1].Public()), wire.IDOf(keys[2].Public())}
	ring, _ := wire.NewKeyring(keys[0]).With([]fleet.Key{keys[1].Public(), keys[2].Public()})
	known := netip.MustParseAddrPort("192.0.2.1:1")
	hub := func() *Bind {
		fw := relay.New(9)
		b := NewBind(BindConfig{Control: &heard{}, Relay: fw, Epoch: 9})
		b.SetPeers(ring, ids)
		var pairs []*wire.Pair
		for _, id := range ids {
			p, _ := ring.Pair(id)
			pairs = append(pairs, p)
		}
		fw.SetMembers(pairs)
		fw.SetEpoch(ids[0], 7)
		fw.SetHop(ids[1], relay.Hop{Addr: netip.MustParseAddrPort("192.0.2.2:1")})
		b.Use(path.Use{Peer: ids[0], Route: path.Route{Addr: known}}, time.Now())
		return b
	}
	sender, _ := wire.NewKeyring(keys[1]).With([]fleet.Key{keys[0].Public()})
	toHub, _ := sender.Pair(wire.IDOf(keys[0].Public()))
	message := append([]byte{4, 0, 0, 0}, make([]byte, 60)...)
	frame := append(make([]byte, wire.RelaySize), message...)
	toHub.PutForward(frame, message, ids[1], wire.Stamp{Epoch: 7, Counter: 1}, 1)
	f.Add(frame, true)
	toHub.PutDeliver(frame, ids[1], wire.Stamp{Epoch: 7, Counter: 1})
	f.Add(frame, true)
	f.Add(toHub.SealProbe(nil, wire.Probe{Kind: wire.Ping, Stamp: wire.Stamp{Epoch: 7, Counter: 1}, Nonce: 1, Size: wire.ProbeSize}), false)
	for kind, size := range map[byte]int{1: 148, 2: 92, 3: 64, 4: 32} {
		f.Add(append([]byte{kind, 0, 0, 0}, make([]byte, size-4)...), kind%2 == 0)
	}
	f.Fuzz(func(t *testing.T, b []byte, fromNode bool) {
		from := netip.MustParseAddrPort("198.51.100.66:6")
		if fromNode {
			from = known
		}
		in := &inbound{bind: hub(), sock: &socket{}, now: time.Now()}
		in.forwards = in.bind.relay.Run(in.now)
		was := wire.Classify(b)
		got, ep := in.packet(b, from, nil)
		if len(got) == 0 {
			return
		}
		if was != wire.WireGuard && was != wire.Deliver || wire.Classify(got) != wire.WireGuard || ep == nil {
			t.Errorf("a frame of kind %#x reaches WireGuard, as %#x", was, wire.Classify(got))
		}
	})
}
