package path

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

var (
	self = wire.ID{0xff}
	hubA = wire.ID{1}
	hubB = wire.ID{2}
	node = wire.ID{3} // behind a NAT, no fixed address
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var cmpAddrs = cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{})

// rig is an engine with a clock, and the other side of the conversation.
type rig struct {
	t   *testing.T
	e   *Engine
	now time.Time
	// What the peers' agents would keep.
	epoch   map[wire.ID]uint32
	counter map[wire.ID]uint64
	line    map[wire.ID]netip.AddrPort
	use     map[wire.ID]Use
	said    []Decision // since the last look, without Line and Use
	noted   []Decision // notes that ping made it send
}

func newRig(t *testing.T, peers ...Peer) *rig {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	r := &rig{
		t: t, now: time.Unix(1000, 0),
		e:       New(Config{Self: self, Random: random.Uint64}),
		epoch:   map[wire.ID]uint32{hubA: 11, hubB: 12, node: 13},
		counter: make(map[wire.ID]uint64),
		line:    make(map[wire.ID]netip.AddrPort), use: make(map[wire.ID]Use),
	}
	r.e.SetPeers(r.now, NewDirectory(peers))
	return r
}

// fleetOf is two hubs, one of them with IPv6, and a node behind a NAT.
func fleetOf() []Peer {
	return []Peer{
		{ID: hubA, Hub: true, Public: []netip.AddrPort{at("198.51.100.1:1"), at("[2001:db8::1]:1")}},
		{ID: hubB, Hub: true, Public: []netip.AddrPort{at("198.51.100.2:1")}},
		{ID: node},
	}
}

// take collects decisions.
func (r *rig) take() []Decision {
	for d := range r.e.Decisions() {
		switch d := d.(type) {
		case Line:
			r.line[d.Hub] = d.Addr
		case Use:
			r.use[d.Peer] = d
		default:
			r.said = append(r.said, d)
		}
	}
	out := r.said
	r.said = nil
	return out
}

// run advances, answering pings that answer says reach their peer.
func (r *rig) run(d time.Duration, answer func(Send) bool) (sent []Send) {
	end := r.now.Add(d)
	for {
		next := r.e.Advance(r.now)
		for batch := r.take(); len(batch) > 0; batch = r.take() {
			for _, d := range batch {
				s, ok := d.(Send)
				if !ok {
					continue
				}
				sent = append(sent, s)
				if p, ok := s.Message.(wire.Probe); ok && p.Kind == wire.Ping && answer != nil && answer(s) {
					r.pong(s, 20*time.Millisecond)
				}
			}
		}
		if next.After(end) {
			r.now = end
			return sent
		}
		r.now = next
	}
}

func (r *rig) stamp(id wire.ID) wire.Stamp {
	r.counter[id]++
	return wire.Stamp{Epoch: r.epoch[id], Counter: r.counter[id]}
}

// pong answers a ping after a round trip, as if the time had passed.
func (r *rig) pong(s Send, rtt time.Duration) {
	p := s.Message.(wire.Probe)
	r.e.Receive(r.now.Add(rtt), Source{Route: s.Route}, wire.Probe{
		Kind: wire.Pong, Src: s.Peer, Stamp: r.stamp(s.Peer), Nonce: 99, Echo: p.Nonce, Size: p.Size,
	})
}

// ping makes a peer ping us, and returns what we answered.
func (r *rig) ping(id wire.ID, from Route, stamp wire.Stamp, echo uint64, flags wire.Flags) (pongs []wire.Probe) {
	r.e.Receive(r.now, Source{Route: from}, wire.Probe{
		Kind: wire.Ping, Src: id, Stamp: stamp, Nonce: 7, Echo: echo, Flags: flags, Size: wire.ProbeSize,
	})
	for _, d := range r.take() {
		if s, ok := d.(Send); ok {
			if p, ok := s.Message.(wire.Probe); ok && p.Kind == wire.Pong {
				if s.Route != from || p.Echo != 7 {
					r.t.Errorf("answered by %v with echo %d, want by %v with 7", s.Route, p.Echo, from)
				}
				pongs = append(pongs, p)
			}
			if _, ok := s.Message.(wire.Note); ok {
				r.noted = append(r.noted, s)
			}
			continue
		}
		r.said = append(r.said, d)
	}
	return pongs
}

// meet lets a peer prove its epoch, as its agent does when it starts.
func (r *rig) meet(id wire.ID, from Route) {
	r.t.Helper()
	pongs := r.ping(id, from, r.stamp(id), 0, wire.Primary)
	if len(pongs) != 1 || pongs[0].Flags&wire.Challenge == 0 {
		r.t.Fatalf("answered %+v, want one challenge", pongs)
	}
	r.ping(id, from, r.stamp(id), pongs[0].Nonce, wire.Primary)
}

func everything(Send) bool { return true }
