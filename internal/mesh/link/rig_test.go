package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun/tuntest"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/relay"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// These tests use real sockets on the loopback interface and TUN interfaces in
// memory; they need no privilege.

type seeded struct{ state [32]byte }

func (s *seeded) Read(b []byte) (int, error) {
	s.state = sha256.Sum256(s.state[:])
	return copy(b, s.state[:]), nil
}

func testKey(t *testing.T, seed byte) wire.PrivateKey {
	t.Helper()
	k, err := wire.NewPrivateKey(&seeded{[32]byte{seed}})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// heard keeps what Control is told.
type heard struct {
	mu     sync.Mutex
	frames []path.Source
	looked []wire.ID
	relays []relay.Verdict
}

func (h *heard) Frame(_ []byte, from path.Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frames = append(h.frames, from)
}

func (h *heard) Relay(v relay.Verdict, _ wire.Frame, _ path.Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.relays = append(h.relays, v)
}

func (h *heard) Look(id wire.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looked = append(h.looked, id)
}

func (h *heard) sources() []path.Source {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]path.Source(nil), h.frames...)
}

// node is one end: a device on our Bind.
type node struct {
	heard
	key   wire.PrivateKey
	id    wire.ID
	ip    netip.Addr
	bind  *Bind
	relay *relay.Forwarder
	tun   *tuntest.ChannelTUN
	dev   *Device
	addr  netip.AddrPort // where its Bind listens
}

// nodes makes devices that know each other, without any route.
func nodes(t *testing.T, n int) []*node {
	t.Helper()
	var all []*node
	for i := range n {
		x := &node{key: testKey(t, byte(i+1)), ip: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), tun: tuntest.NewChannelTUN()}
		x.id = wire.IDOf(x.key.Public())
		x.relay = relay.New(uint32(100 + i))
		x.bind = NewBind(BindConfig{Control: x, Relay: x.relay, Epoch: uint32(100 + i)})
		d, err := NewDevice(x.tun.TUN(), x.bind, x.key, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		x.dev = d
		t.Cleanup(func() { d.Close() })
		x.addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), x.bind.v4.Load().port())
		all = append(all, x)
	}
	for _, x := range all {
		var keys []fleet.Key
		var ids []wire.ID
		var members []Member
		for _, o := range all {
			if o != x {
				keys, ids = append(keys, o.key.Public()), append(ids, o.id)
				members = append(members, Member{o.key.Public(), []netip.Prefix{netip.PrefixFrom(o.ip, 32)}})
			}
		}
		ring, _ := wire.NewKeyring(x.key).With(keys)
		x.bind.SetPeers(ring, ids)
		if err := x.dev.SetMembers(members); err != nil {
			t.Fatal(err)
		}
		var pairs []*wire.Pair
		for i, o := range all {
			if pair, ok := ring.Pair(o.id); ok {
				pairs = append(pairs, pair)
				x.relay.SetMembers(pairs)
				x.relay.SetEpoch(o.id, uint32(100+i))
				x.relay.SetHop(o.id, relay.Hop{Addr: o.addr})
			}
		}
	}
	return all
}

// direct makes x send to o directly.
func (x *node) direct(o *node) {
	x.bind.Use(path.Use{Peer: o.id, Route: path.Route{Addr: o.addr}}, time.Now())
}

// via makes x send to o by a hub.
func (x *node) via(hub, o *node) {
	x.bind.Line(path.Line{Hub: hub.id, Addr: hub.addr})
	x.bind.Use(path.Use{Peer: o.id, Route: path.Route{Hub: hub.id}}, time.Now())
}

// send puts a packet into x's interface, and waits until it leaves o's.
func (x *node) send(t *testing.T, o *node, within time.Duration) bool {
	t.Helper()
	msg := tuntest.Ping(o.ip, x.ip)
	x.tun.Outbound <- msg
	select {
	case got := <-o.tun.Inbound:
		if !bytes.Equal(got, msg) {
			t.Errorf("another packet arrived: %x", got)
		}
		return true
	case <-time.After(within):
		return false
	}
}

// handshakes is the time of the last one, as UAPI tells it.
func (x *node) handshake(t *testing.T, o *node) string {
	t.Helper()
	return x.uapi(t, o, "last_handshake_time_sec") + "." + x.uapi(t, o, "last_handshake_time_nsec")
}

func (x *node) uapi(t *testing.T, o *node, field string) string {
	t.Helper()
	text, err := x.dev.dev.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	key := o.key.Public()
	_, peer, _ := strings.Cut(text, "public_key="+hex.EncodeToString(key[:]))
	peer, _, _ = strings.Cut(peer, "public_key=")
	for line := range strings.Lines(peer) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && name == field {
			return value
		}
	}
	return ""
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for tick := time.NewTicker(time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func hopTo(a net.Addr) relay.Hop { return relay.Hop{Addr: addrOf(a)} }
