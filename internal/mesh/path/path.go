// Package path chooses, for every peer and at every moment, how packets
// travel: direct over IPv6 or IPv4, or relayed by a hub. It is a state machine:
// frames, traffic and time go in, decisions come out. It opens no socket, reads
// no clock and starts no goroutine; it neither encrypts nor encodes.
//
// # What it knows
//
// A peer has candidate routes: its fixed addresses, addresses it was heard
// from or told us of, and one through every hub. The state of one route is a
// track:
//
//	          echo                  echo, 3 in a row, cheaper than
//	untried ---------> proven -----------------------------> primary
//	   |                 |  ^                                   |
//	   | 3 misses        |  | echo                              | 3 misses and
//	   v                 v  |          hold-down                | silence, or
//	  dead <----------- missed <--------------------------------+ 6 misses
//
// Only an echo of our own nonce over that very route proves it: that something
// was heard from the peer says nothing of whether we reach it.
//
// A peer is awake while there is traffic with it, and for Idle after. Then its
// primary is probed every Active, and every Spare its spare: a proven route that
// shares as little as possible with the primary. Other peers cost nothing, neither
// memory nor a look, but for the hubs.
//
// # Hubs
//
// A node keeps in touch with every hub; with Homes of them where there are more:
// the nearest, for short detours, and the first by a hash of its ID, so that
// whoever wants to talk to it knows where it can be found. Two nodes so always
// have a hub in common: one sends by the other's, which it gets in touch with for
// as long as it does. When they talk they tell each other their hubs, and choose
// the best of all.
//
// # How a break is noticed
//
//	data sent, nothing heard for Suspect   probe the primary at once, then
//	                                       every Burst
//	first of these unanswered              send data on the spare as well
//	third, and still silence               the spare becomes primary, the old
//	                                       primary is held down
//
// so that neither an idle minute nor a one-way stream is taken for a break, and
// a broken path costs some 0.2 s.
//
// Some paths pass small packets and drop full ones. So the primary is probed
// with full packets too, every FullElse, and every FullBulk while there is much
// to send. Two of these unanswered within a second: data goes by the spare as well.
// Four: the route is narrow, and left for one that is proven; it is not used
// again before it echoes a full probe. No route takes the place of one that
// passes full packets before it has passed one itself.
package path

import (
	"net/netip"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Route is one way to a peer. The zero Route is none.
type Route struct {
	Hub  wire.ID        // who relays; zero when direct
	Addr netip.AddrPort // the peer's address when direct; else invalid
}

// IsZero says whether r is no route at all.
func (r Route) IsZero() bool { return r == Route{} }

// Direct says whether no hub is in between.
func (r Route) Direct() bool { return r.Addr.IsValid() }

// Kind names the sort of route for people.
func (r Route) Kind() fleet.PathKind {
	switch {
	case r.IsZero():
		return fleet.PathNone
	case !r.Direct():
		return fleet.PathRelayed
	case r.Addr.Addr().Is6():
		return fleet.PathDirectV6
	default:
		return fleet.PathDirectV4
	}
}

// Source is where a frame came from: the route back to its sender, and our own
// address it was sent to (invalid if unknown or relayed).
type Source struct {
	Route Route
	Local netip.Addr
}

// Peer is another node, as the configuration has it.
type Peer struct {
	ID     wire.ID
	Hub    bool
	Public []netip.AddrPort // fixed endpoints
}

// Decision is something the engine wants done or known: Send, Use, Line, Proven,
// Restarted, Egress, Epoch, Quiet or Serving.
type Decision interface{ decision() }

// Send wants a message sent to Peer by exactly that route.
type Send struct {
	Peer    wire.ID
	Route   Route
	Local   netip.Addr // source address to use; invalid for any
	Message wire.Message
}

// Use says how traffic for Peer travels from now on.
type Use struct {
	Peer  wire.ID
	Route Route // zero: there is no way
	// Spare is where to turn when sending on Route is refused locally; zero if
	// there is none.
	Spare Route
	// Local is the source address to use on Route; invalid for any.
	Local netip.Addr
	// Hedge wants transport data (never handshakes) sent on Spare as well.
	Hedge bool
	// Wide says that full packets were seen to pass by Route, Narrow that they do
	// not; of a route that was not tried yet neither.
	Wide, Narrow bool
	// Why is a constant text for the log.
	Why string
}

// Line says where frames that Hub shall relay are sent; an invalid address: it
// cannot be reached.
type Line struct {
	Hub   wire.ID
	Addr  netip.AddrPort
	Local netip.Addr
}

// Proven says that the route in use for Peer answers, which it had not before,
// or not lately, or that another one that does is used now; RTT is how long it
// takes.
type Proven struct {
	Peer wire.ID
	RTT  time.Duration
}

// Restarted says that Peer's agent started anew: its sessions are void.
type Restarted struct{ Peer wire.ID }

// Egress says where a hub sends what it relays to Peer.
type Egress struct {
	Peer  wire.ID
	Addr  netip.AddrPort
	Local netip.Addr
}

// Epoch says that Peer's frames carry that epoch from now on.
type Epoch struct {
	Peer  wire.ID
	Epoch uint32
}

// Quiet wants Engine.Traffic called when data is next sent to Peer: nothing flows,
// so nobody looks.
type Quiet struct{ Peer wire.ID }

// Serving says that a hub has a device, the one that talks to it last.
type Serving struct{ Hub, Device wire.ID }

func (Send) decision()      {}
func (Serving) decision()   {}
func (Use) decision()       {}
func (Line) decision()      {}
func (Proven) decision()    {}
func (Restarted) decision() {}
func (Egress) decision()    {}
func (Epoch) decision()     {}
func (Quiet) decision()     {}

// The machine's times. Where a number is not explained it was found by
// measuring.
const (
	// Idle is how long a peer stays awake without traffic.
	Idle = 30 * time.Second
	// Active is how often the primary of an awake peer is probed.
	Active = time.Second
	// Spare is how often its spare is: never older than Fresh.
	Spare = 5 * Active / 2
	// Background is how often its other proven routes are.
	Background = 10 * time.Second
	// Look is how often traffic is looked at while it flows: often enough for
	// Suspect to mean something.
	Look = 40 * time.Millisecond
	// Suspect is the silence, beyond a round trip, after which data that was sent
	// should have been answered. TCP answers within 40 ms (delayed ACK).
	Suspect = 60 * time.Millisecond
	// Burst is the time between probes of a suspected route.
	Burst = 50 * time.Millisecond
	// Fresh is how long an echo proves a route to a peer that is awake.
	Fresh = 3 * time.Second
	// Mapping is how long an echo lets us believe in a route of a peer that was
	// asleep: NATs forget UDP after as little as 30 s (RFC 4787, REQ-5, says
	// two minutes; many do not keep to it).
	Mapping = 25 * time.Second
	// KeepaliveMin and KeepaliveMax bound the time between probes that keep a
	// hub in touch, and the NAT in between open.
	KeepaliveMin = 15 * time.Second
	KeepaliveMax = 20 * time.Second
	// Hold is how long a route that failed is not returned to, counted anew from
	// each answer that it loses meanwhile: it must do without for so long. It
	// doubles each time that it fails again soon, up to HoldMax: a good route is
	// used again within a minute, whatever was before.
	Hold    = 10 * time.Second
	HoldMax = 40 * time.Second
	// goodFor is how long after its hold-down a route is not known any more as one
	// that fails.
	goodFor = 5 * time.Minute
	// Trial is how often a route is probed that was left, or that loses some: 32
	// probes say how many (track.loss).
	Trial = Active / 2
	// failedFor is how long after a route failed it is looked for often.
	failedFor = time.Minute
	// Hedged is how long, at most, data is sent on two routes after a change.
	Hedged = 2 * time.Second
	// ServedFor is how long a hub is believed to have a device that it says no more
	// of.
	ServedFor = 30 * time.Second
	// Registered is how long a hub relays to the address a node was last heard
	// from.
	Registered = 3 * KeepaliveMax
	// Forget is how long an address that a peer was heard from, or named, is
	// kept without any sign of life.
	Forget = 5 * time.Minute

	// FullBulk and FullElse are how often the primary of an awake peer is probed
	// with a full packet: while there is much to send to it, and else.
	FullBulk = Active / 4
	FullElse = 15 * Active
	// missedFor is how long after a full probe was not answered others follow every
	// Burst while there is much to send: a path that loses a third answers the next
	// as often as not, and TCP waits longer each time that it loses the same again.
	missedFor = time.Second
	// leftFor is how long after the peer left the primary it is probed so, too: by
	// an end that sends small packets only, a loss of large ones is not noticed.
	leftFor = 2 * time.Second
	// bulkFor is how long after the last of much.
	bulkFor = 2 * time.Second

	// lately is how old an echo may be for a route to be taken into use; a relay that
	// is neither primary nor spare is probed every other Background.
	lately = 2*Background + Fresh

	// settled is how long a route that works is kept before one is taken that
	// is only faster.
	settled = 10 * time.Second

	// flowFor is how long after the last data traffic is said to flow.
	flowFor = 5 * Look

	// guessFor is how long a direct route that was guessed may stay unproven
	// while another is proven.
	guessFor = 300 * time.Millisecond

	missesDead = 3 // and silence
	missesHard = 6 // whatever is heard: the path works one way only
	missesFull = 4 // of probes as large as a full packet, though small ones pass
	echoesGood = 3 // in a row, before a route replaces one that works

	maxLearned    = 24 // addresses kept per peer beyond the fixed ones
	maxAsked      = 16 // pings remembered that a new epoch was to be proven for
	maxDiscovered = 8  // new ones a second that a peer may be heard from
)
