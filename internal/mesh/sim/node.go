package sim

import (
	"net/netip"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/relay"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Port is the mesh's, on every machine.
const Port = 51877

// padTo is as large as a full packet at an MTU of 1280, with what WireGuard adds.
const padTo = 1280 + 32

// lookEvery is how often an agent looks at traffic that flows.
const lookEvery = 40 * time.Millisecond

// Node is one machine with an agent.
type Node struct {
	w      *World
	Name   string
	net    *Network
	addrs  []netip.Addr // its own, of either family
	hub    bool
	public []netip.AddrPort
	key    wire.PrivateKey
	id     wire.ID

	// State of the agent: lost when it stops.
	up      bool
	run     int // how often it was started
	engine  *path.Engine
	ring    *wire.Keyring
	relay   *relay.Forwarder
	peers   map[wire.ID]*traffic
	advance time.Time // when it will next

	streams map[uint64]listener
	asleep  bool
	slept   time.Duration // what its clock, which stands still meanwhile, does not know of
	// Refuse, if set, says what this machine does not send: its own firewall
	// answers EPERM.
	Refuse func(to netip.AddrPort) bool

	// Changes are the switches of path, for people.
	Changes []Change
}

// Change is one switch of path.
type Change struct {
	At   time.Time
	Peer string
	Use  path.Use
}

// traffic is what a Bind keeps for one peer.
type traffic struct {
	node    *Node
	use     path.Use
	line    path.Line
	counter uint64
	quiet   bool // the engine wants to be told of the next data
	path.Traffic
}

// Machine adds a machine to a network, with an agent that is not started. A hub
// has fixed endpoints at its addresses.
func (w *World) Machine(name string, net *Network, hub bool, addrs ...netip.Addr) *Node {
	n := &Node{w: w, Name: name, net: net, addrs: addrs, hub: hub, streams: make(map[uint64]listener)}
	for i := range n.key {
		n.key[i] = byte(w.random.Uint64())
	}
	n.id = wire.IDOf(n.key.Public())
	for _, a := range addrs {
		net.devices[a] = n
		if hub {
			n.public = append(n.public, netip.AddrPortFrom(a, Port))
		}
	}
	w.nodes[name] = n
	return n
}

// Start starts the agents, anew if they ran, with all machines as peers.
func (w *World) Start(nodes ...*Node) {
	for _, n := range nodes {
		n.start()
	}
}

// All returns every machine, by name.
func (w *World) All() []*Node {
	var out []*Node
	for _, n := range w.nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *Node) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

func (n *Node) start() {
	n.up = true
	n.run++
	n.engine = path.New(path.Config{Self: n.id, Random: n.w.random.Uint64, PadTo: padTo})
	n.relay = relay.New(n.engine.Epoch())
	n.peers = make(map[wire.ID]*traffic)
	n.advance = time.Time{}
	ring := wire.NewKeyring(n.key)
	var keys []fleet.Key
	var peers []path.Peer
	for _, o := range n.w.All() {
		if o == n {
			continue
		}
		keys = append(keys, o.key.Public())
		peers = append(peers, path.Peer{ID: o.id, Hub: o.hub, Public: o.public})
		n.peers[o.id] = &traffic{node: o}
	}
	n.ring, _ = ring.With(keys)
	var pairs []*wire.Pair
	for _, p := range peers {
		if pair, ok := n.ring.Pair(p.ID); ok {
			pairs = append(pairs, pair)
		}
	}
	if n.hub {
		n.relay.SetMembers(pairs)
	}
	n.engine.SetLocal(n.local())
	n.engine.SetPeers(n.now(), peers)
	n.work()
}

func (n *Node) local() (out []netip.AddrPort) {
	for _, a := range n.addrs {
		out = append(out, netip.AddrPortFrom(a, Port))
	}
	return out
}

// noticedAfter is how long the agent takes to see that its machine's addresses
// changed, or that it slept.
const noticedAfter = time.Second

// Move gives the machine other addresses, in the same network or another.
func (n *Node) Move(net *Network, addrs ...netip.Addr) {
	for _, a := range n.addrs {
		delete(n.net.devices, a)
	}
	n.net, n.addrs = net, addrs
	for _, a := range addrs {
		net.devices[a] = n
	}
	n.w.After(noticedAfter, n.noticed)
}

// Suspend lets the machine sleep.
func (n *Node) Suspend(d time.Duration) {
	n.asleep = true
	n.w.After(d, func() {
		n.slept += d
		n.asleep, n.advance = false, time.Time{}
		n.work()
		n.w.After(noticedAfter, n.noticed)
	})
}

func (n *Node) noticed() {
	n.engine.SetLocal(n.local())
	n.engine.Moved(n.now())
	n.work()
}

// Stop kills the agent, and takes the machine off the network.
func (n *Node) Stop() { n.up = false }

// Drain stops the agent the way a service is stopped.
func (n *Node) Drain() {
	n.engine.Drain(n.now())
	n.work()
	run := n.run
	n.w.After(300*time.Millisecond, func() {
		if n.run == run {
			n.Stop()
		}
	})
}

// now is the machine's own clock.
func (n *Node) now() time.Time { return n.w.now.Add(-n.slept) }

// work carries out decisions and advances the engine, now and when it is due.
func (n *Node) work() {
	if !n.up || n.asleep {
		return
	}
	n.carryOut()
	soon := false
	for id, flowing := range n.engine.Awake(n.now()) {
		t := n.peers[id]
		n.engine.Traffic(n.now(), id, t.Traffic)
		t.quiet = !flowing
		soon = soon || flowing
	}
	next := n.engine.Advance(n.now())
	n.carryOut()
	if soon && next.Sub(n.now()) > lookEvery {
		next = n.now().Add(lookEvery)
	}
	if !n.advance.After(n.now()) || next.Before(n.advance) {
		n.advance = next
		run := n.run
		n.w.At(next.Add(n.slept), func() {
			if n.run == run && n.advance.Equal(next) {
				n.work()
			}
		})
	}
}

func (n *Node) carryOut() {
	for d := range n.engine.Decisions() {
		switch d := d.(type) {
		case path.Send:
			if !n.sendFrame(d.Peer, d.Route, d.Local, n.seal(d)) && d.Route.Direct() {
				n.engine.Failed(n.now(), d.Peer, d.Route)
			}
		case path.Use:
			t := n.peers[d.Peer]
			if d.Route != t.use.Route {
				n.Changes = append(n.Changes, Change{n.w.now, t.node.Name, d})
			}
			t.use = d
		case path.Line:
			n.peers[d.Hub].line = d
		case path.Egress:
			n.relay.SetHop(d.Peer, relay.Hop{Addr: d.Addr, Local: d.Local})
		case path.Epoch:
			n.relay.SetEpoch(d.Peer, d.Epoch)
		}
	}
}

type randomReader struct{ w *World }

func (r randomReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.w.random.Uint64())
	}
	return len(b), nil
}

func (n *Node) seal(d path.Send) []byte {
	pair, ok := n.ring.Pair(d.Peer)
	if !ok {
		return nil
	}
	switch m := d.Message.(type) {
	case wire.Probe:
		return pair.SealProbe(nil, m)
	case wire.Note:
		return pair.SealNote(nil, m)
	case wire.CallMe:
		b, err := pair.SealCall(nil, m, randomReader{n.w})
		if err == nil {
			return b
		}
	}
	return nil
}

// sendFrame sends by exactly that route; false means that this machine cannot.
func (n *Node) sendFrame(id wire.ID, r path.Route, local netip.Addr, b []byte) bool {
	if r.Direct() {
		return n.send(r.Addr, local, b)
	}
	hub := n.peers[r.Hub]
	if hub == nil || !hub.line.Addr.IsValid() {
		return false
	}
	pair, _ := n.ring.Pair(r.Hub)
	hub.counter++
	frame := append(make([]byte, wire.RelaySize), b...)
	pair.PutForward(frame, b, id, wire.Stamp{Epoch: n.engine.Epoch(), Counter: hub.counter}, 1)
	return n.send(hub.line.Addr, hub.line.Local, frame)
}

// send sends from the address local, or from any that fits if it is invalid.
func (n *Node) send(to netip.AddrPort, local netip.Addr, b []byte) bool {
	if n.Refuse != nil && n.Refuse(to) {
		return false
	}
	for _, a := range n.addrs {
		if a == local || !local.IsValid() && a.Is4() == to.Addr().Is4() {
			n.w.Sent.Packets++
			n.w.Sent.Bytes += len(b)
			n.net.carry(Packet{netip.AddrPortFrom(a, Port), to, b})
			return true
		}
	}
	return false
}

// receive implements device.
func (n *Node) receive(p Packet) {
	if n.up && !n.asleep && p.Dst.Port() == Port {
		n.frame(p.Data, path.Source{Route: path.Route{Addr: p.Src}, Local: p.Dst.Addr()})
	}
}

func (n *Node) frame(b []byte, from path.Source) {
	switch wire.Classify(b) {
	case wire.WireGuard:
		n.data(b, from.Route)
	case wire.Deliver:
		f, payload, err := n.ring.OpenDeliver(b)
		if err != nil {
			return
		}
		n.frame(payload, path.Source{Route: path.Route{Hub: f.Hub}})
	case wire.Forward:
		hop, f, verdict := n.relay.Forward(n.now(), b)
		switch verdict {
		case relay.Sent:
			n.send(hop.Addr, hop.Local, b)
		case relay.Unknown:
			n.engine.Meet(n.now(), f.From, from)
			n.carryOut()
		case relay.Unreachable:
			n.engine.Refuse(n.now(), f.From, f.To)
			n.carryOut()
		case relay.Drop, relay.Limited:
		}
	case wire.Ping, wire.Pong, wire.Call, wire.Notice:
		if m, err := n.ring.Open(b); err == nil {
			n.engine.Receive(n.now(), from, m)
			n.work()
		}
	case wire.Foreign, wire.JoinRequest, wire.JoinReply:
	}
}

// Path is how this machine sends to another.
func (n *Node) Path(to *Node) path.Use { return n.peers[to.id].use }

// Proven says whether an echo came by the path in use within the last seconds.
func (n *Node) Proven(to *Node) bool {
	v, ok := n.engine.View(n.now(), to.id)
	return ok && !v.Current().LastEcho.IsZero() && v.Current().Misses == 0 &&
		n.now().Sub(v.Current().LastEcho) < path.Fresh
}
