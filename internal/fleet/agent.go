package fleet

import (
	"net/netip"
	"time"
)

// Where a node keeps what the agent needs.
const (
	AgentConfigPath = "/etc/moggy/mesh.json"
	AgentSocket     = "/run/moggy/agent.sock" // HTTP over a unix socket, root only
	MeshInterface   = "moggy0"
)

// AgentConfig is /etc/moggy/mesh.json: all that a node's agent must know to
// find the others, without DNS, without the operator, without any other node.
// It is the same on every node, byte for byte (so that planning a fleet is
// linear in its nodes): an agent finds itself in it by its own public key.
type AgentConfig struct {
	Version int          `json:"version"` // 1
	Fleet   Name         `json:"fleet"`
	Port    uint16       `json:"port"`
	V4      netip.Prefix `json:"v4"` // the mesh's ranges
	V6      netip.Prefix `json:"v6"`
	MTU     int          `json:"mtu"`
	// Awaited are the nodes of the file whose keys nobody knows yet, sorted: hubs
	// let in no other that is not among Nodes.
	Awaited []NodeName `json:"awaited,omitempty"`
	// Gateway is what devices with plain WireGuard know every hub by; nil for none.
	// Devices are those, sorted by name.
	Gateway *Gateway   `json:"gateway,omitempty"`
	Devices []Device   `json:"devices,omitempty"`
	Nodes   []MeshNode `json:"nodes"` // everyone whose key is known, sorted by name
}

// Gateway is one identity for all hubs, separate from the nodes' own: a device
// has one profile, and any hub serves it.
type Gateway struct {
	Key  Key    `json:"key"`
	Port uint16 `json:"port"` // UDP, the same on every hub
}

// Device is a machine that is no node and speaks plain WireGuard: a phone.
type Device struct {
	Name string     `json:"name"`
	Key  Key        `json:"key"`
	V4   netip.Addr `json:"v4"` // within the mesh's ranges
	V6   netip.Addr `json:"v6"`
}

// MeshNode is one member of the mesh as every other sees it.
type MeshNode struct {
	Name NodeName `json:"name"`
	Site SiteName `json:"site"`
	Key  Key      `json:"key"`
	// Next and Old are there while the node's key is being rotated, at most one of
	// them: the key it will have, or the one it had. Both keys are the node then,
	// for all the others; the node itself goes by Key.
	Next   Key              `json:"next,omitzero"`
	Old    Key              `json:"old,omitzero"`
	V4     netip.Addr       `json:"v4"`
	V6     netip.Addr       `json:"v6"`
	Public []netip.AddrPort `json:"public,omitempty"` // fixed endpoints
	Hub    bool             `json:"hub,omitempty"`
}

// Keys are all keys that are the node, Key first.
func (n MeshNode) Keys() []Key {
	if other := n.Other(); !other.IsZero() {
		return []Key{n.Key, other}
	}
	return []Key{n.Key}
}

// Other is the second key of a node that is being rotated; else zero.
func (n MeshNode) Other() Key {
	if !n.Next.IsZero() {
		return n.Next
	}
	return n.Old
}

// PathKind says how packets to a peer travel.
type PathKind string

// The kinds of path, best first.
const (
	PathDirectV6 PathKind = "direct-v6"
	PathDirectV4 PathKind = "direct-v4"
	PathRelayed  PathKind = "relayed"
	PathNone     PathKind = "none"
)

// MeshStatus is what an agent says of itself and its peers, over AgentSocket.
type MeshStatus struct {
	Version int          `json:"version"` // 1
	Self    NodeName     `json:"self"`
	Key     Key          `json:"key"`
	Agent   string       `json:"agent"` // moggy's version
	Peers   []PeerStatus `json:"peers"` // sorted by name
	Joined  []Joined     `json:"joined,omitempty"`
}

// PeerStatus is one peer as an agent sees it.
type PeerStatus struct {
	Name     NodeName       `json:"name"`
	Path     PathKind       `json:"path"`
	Via      NodeName       `json:"via,omitempty"`      // the hub, when relayed
	Endpoint netip.AddrPort `json:"endpoint,omitzero"`  // where packets go
	RTTMicro int64          `json:"rtt_us,omitempty"`   // µs, over that path; 0 = not measured yet
	HeardMs  int64          `json:"heard_ms,omitempty"` // how old that is: ms since the last answer by that path
	Loss     float64        `json:"loss,omitempty"`     // 0 to 1, of the last probes by that path, at most 32
	SinceSec int64          `json:"since_s,omitempty"`  // seconds on this path
	Why      string         `json:"why,omitempty"`      // this path came into use
	RxBytes  uint64         `json:"rx_bytes,omitempty"`
	TxBytes  uint64         `json:"tx_bytes,omitempty"`
	// What this node relayed as a hub, in bytes: frames that came from that peer,
	// and frames that were for it.
	RelayedFrom uint64 `json:"relayed_from_bytes,omitempty"`
	RelayedTo   uint64 `json:"relayed_to_bytes,omitempty"`
	// Ways are all ways to the peer, best first; only where they were asked for.
	Ways []Way `json:"ways,omitempty"`
}

// Stale is how old what is known of a path may be to be shown as the present: a
// peer that nobody talks to is not probed, but for hubs.
const Stale = 25 * time.Second

// Known says whether the peer answered by its path lately enough.
func (p PeerStatus) Known() bool {
	return p.Path != PathNone && p.RTTMicro > 0 && time.Duration(p.HeardMs)*time.Millisecond <= Stale
}

// Way is one way to a peer, as an agent sees it.
type Way struct {
	Path     PathKind       `json:"path"`
	Via      NodeName       `json:"via,omitempty"`
	Endpoint netip.AddrPort `json:"endpoint,omitzero"`
	State    WayState       `json:"state"`
	RTTMicro int64          `json:"rtt_us,omitempty"`   // the best of the last; 0: never answered
	HeardMs  int64          `json:"heard_ms,omitempty"` // since the last answer
	Loss     float64        `json:"loss,omitempty"`
	HeldSec  int64          `json:"held_s,omitempty"` // not returned to for so long
	// Of a relay: what it carried of the traffic with the peer since the agent
	// started, in bytes of WireGuard's messages.
	RxBytes uint64 `json:"rx_bytes,omitempty"`
	TxBytes uint64 `json:"tx_bytes,omitempty"`
	Tried   int64  `json:"tried,omitempty"` // Unix seconds of the last attempt to punch through; 0: never
	Why     string `json:"why,omitempty"`   // it cannot be used, as far as is known
}

// WayState says what one way is worth.
type WayState string

// The states of a way, best first.
const (
	WayUsed   WayState = "in use"
	WaySpare  WayState = "next in line"
	WayProven WayState = "proven"
	WayNarrow WayState = "narrow" // passes small packets only
	WayLost   WayState = "lost"   // answered once, and does not now
	WayUntold WayState = "no answer"
	WayNone   WayState = "none" // there is no such way
)

// Invitation lets one machine join as one node, once. A hub holds the public
// half, the token the private one.
type Invitation struct {
	Node    NodeName   `json:"node"`
	Key     Key        `json:"key"`     // public half of the token's key
	Expires int64      `json:"expires"` // Unix seconds, by the hub's clock
	V4      netip.Addr `json:"v4"`
	V6      netip.Addr `json:"v6"`
	Site    SiteName   `json:"site"`
	Joined  *Joined    `json:"joined,omitempty"` // set once it is used
}

// Joined is a node that took up an invitation at a hub and waits for an apply.
type Joined struct {
	Node    NodeName `json:"node"`
	Key     Key      `json:"key"`      // its mesh public key
	HostKey string   `json:"host_key"` // its SSH host key, authorized_keys format
	At      int64    `json:"at"`       // Unix seconds
	// Invitation is the one it took up: two keys under one mean two machines.
	Invitation Key `json:"invitation,omitzero"`
}

// Self returns the member that holds the key: the node whose agent asks.
func (c *AgentConfig) Self(own Key) (MeshNode, bool) {
	for _, n := range c.Nodes {
		if n.Key == own {
			return n, true
		}
	}
	return MeshNode{}, false
}
