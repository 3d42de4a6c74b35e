package sim

import (
	"net/netip"
	"slices"
	"strings"
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

// Node is one machine with an agent.
type Node struct {
	w      *World
	Name   string
	net    *Network
	addrs  []netip.Addr // its own, of either family
	hub    bool
	public []netip.AddrPort
	key    fleet.Key
	ownKey *wire.Keyring // without peers
	id     wire.ID

	// State of the agent: lost when it stops.
	up      bool
	run     int // how often it was started
	engine  *path.Engine
	keys    map[wire.ID]*wire.Keyring // of one peer each, made when first needed
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
	// Control is what it sent that is no data, its own and what it relayed.
	Control Tally
}

// Tally counts what was sent; bytes are of UDP payload.
type Tally struct{ Packets, Bytes int }

func (t *Tally) add(b []byte) {
	t.Packets++
	t.Bytes += len(b)
}

// isData says whether b carries what users send, relayed or not.
func isData(b []byte) bool {
	kind := wire.Classify(b)
	if (kind == wire.Forward || kind == wire.Deliver) && len(b) > wire.RelaySize {
		kind = wire.Classify(b[wire.RelaySize:])
	}
	return kind == wire.WireGuard
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
	var key wire.PrivateKey
	for i := range key {
		key[i] = byte(w.random.Uint64())
	}
	n.key, n.ownKey = key.Public(), wire.NewKeyring(key)
	n.id = wire.IDOf(n.key)
	w.byID[n.id], w.dir = n, nil
	for _, a := range addrs {
		net.devices[a] = n
		w.owners[a] = n
		if hub {
			n.public = append(n.public, netip.AddrPortFrom(a, Port))
		}
	}
	at, _ := slices.BinarySearchFunc(w.nodes, name, func(n *Node, name string) int { return strings.Compare(n.Name, name) })
	w.nodes = slices.Insert(w.nodes, at, n)
	return n
}

// Start starts the agents, anew if they ran, with all machines as peers.
func (w *World) Start(nodes ...*Node) {
	for _, n := range nodes {
		n.start()
	}
}

// All returns every machine, by name.
func (w *World) All() []*Node { return slices.Clone(w.nodes) }

// directory is who there is: one for all, as every machine has the same file.
func (w *World) directory() *path.Directory {
	if w.dir == nil {
		var peers []path.Peer
		for _, n := range w.nodes {
			peers = append(peers, path.Peer{ID: n.id, Hub: n.hub, Public: n.public})
		}
		w.dir = path.NewDirectory(peers)
	}
	return w.dir
}

func (n *Node) start() {
	n.up = true
	n.run++
	n.engine = path.New(path.Config{
		Self: n.id, Random: n.w.random.Uint64, PadTo: padTo,
		Traffic: func(_ time.Time, id wire.ID) path.Traffic { return n.with(id).Traffic },
	})
	n.relay = relay.New(n.engine.Epoch())
	n.peers = make(map[wire.ID]*traffic)
	n.advance = time.Time{}
	n.keys = make(map[wire.ID]*wire.Keyring)
	if n.hub {
		var pairs []*wire.Pair
		for _, o := range n.w.nodes {
			if o != n {
				pairs = append(pairs, n.pair(o.id))
			}
		}
		n.relay.SetMembers(pairs)
	}
	n.engine.SetLocal(n.local())
	n.engine.SetPeers(n.now(), n.w.directory())
	n.work()
}

// with is what is kept for one peer.
func (n *Node) with(id wire.ID) *traffic {
	t := n.peers[id]
	if t == nil {
		t = &traffic{node: n.w.byID[id], quiet: true}
		n.peers[id] = t
	}
	return t
}

// ring has the keys shared with one peer; nil if there is no such node.
func (n *Node) ring(id wire.ID) *wire.Keyring {
	ring := n.keys[id]
	if o := n.w.byID[id]; ring == nil && o != nil {
		ring, _ = n.ownKey.With([]fleet.Key{o.key})
		n.keys[id] = ring
	}
	return ring
}

func (n *Node) pair(id wire.ID) *wire.Pair {
	pair, _ := n.ring(id).Pair(id)
	return pair
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
	next := n.engine.Advance(n.now())
	n.carryOut()
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
			t := n.with(d.Peer)
			if d.Route != t.use.Route {
				n.Changes = append(n.Changes, Change{n.w.now, t.node.Name, d})
				n.w.note(note{at: n.w.now, from: n, text: n.w.going(t.node, d)})
			}
			t.use = d
		case path.Line:
			n.with(d.Hub).line = d
		case path.Egress:
			n.relay.SetHop(d.Peer, relay.Hop{Addr: d.Addr, Local: d.Local})
		case path.Quiet:
			n.with(d.Peer).quiet = true
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
	pair := n.pair(d.Peer)
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
	hub := n.with(r.Hub)
	if !hub.line.Addr.IsValid() {
		return false
	}
	hub.counter++
	frame := append(make([]byte, wire.RelaySize), b...)
	n.pair(r.Hub).PutForward(frame, b, id, wire.Stamp{Epoch: n.engine.Epoch(), Counter: hub.counter}, 1)
	return n.send(hub.line.Addr, hub.line.Local, frame)
}

// send sends from the address local, or from any that fits if it is invalid.
func (n *Node) send(to netip.AddrPort, local netip.Addr, b []byte) bool {
	if n.Refuse != nil && n.Refuse(to) {
		return false
	}
	for _, a := range n.addrs {
		if a == local || !local.IsValid() && a.Is4() == to.Addr().Is4() {
			n.w.Sent.add(b)
			if !isData(b) {
				n.Control.add(b)
			}
			p := Packet{Src: netip.AddrPortFrom(a, Port), Dst: to, Data: b}
			p.note = n.w.notePacket(n, p)
			n.net.carry(p)
			return true
		}
	}
	return false
}

// receive implements device.
func (n *Node) receive(p Packet) {
	if n.up && !n.asleep && p.Dst.Port() == Port {
		if p.note != nil {
			p.note.to, p.note.got = n, true
		}
		n.frame(p.Data, path.Source{Route: path.Route{Addr: p.Src}, Local: p.Dst.Addr()})
	}
}

// senderAt is where a frame that is not relayed says who sent it.
const senderAt = 4

func (n *Node) frame(b []byte, from path.Source) {
	switch wire.Classify(b) {
	case wire.WireGuard:
		n.data(b, from.Route)
	case wire.Deliver:
		hub, err := wire.RelaySender(b)
		if err != nil || n.ring(hub) == nil {
			return
		}
		f, err := n.pair(hub).OpenRelay(b)
		if err != nil {
			return
		}
		n.frame(b[wire.RelaySize:], path.Source{Route: path.Route{Hub: f.Hub}})
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
		if len(b) < senderAt+len(wire.ID{}) {
			return
		}
		ring := n.ring(wire.ID(b[senderAt:]))
		if ring == nil {
			return
		}
		if m, err := ring.Open(b); err == nil {
			n.engine.Receive(n.now(), from, m)
			n.work()
		}
	case wire.Foreign, wire.JoinRequest, wire.JoinReply:
	}
}

// Path is how this machine sends to another.
func (n *Node) Path(to *Node) path.Use { return n.with(to.id).use }

// Proven says whether an echo came by the path in use within the last seconds.
func (n *Node) Proven(to *Node) bool {
	v, ok := n.engine.View(n.now(), to.id)
	return ok && !v.Current().LastEcho.IsZero() && v.Current().Misses == 0 &&
		n.now().Sub(v.Current().LastEcho) < path.Fresh
}
