package mesh

import (
	"net/netip"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/link"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// roster is who there is besides us, as each part of the agent wants it. A node
// that is being rotated is in it twice, once for each key, with the other one as
// Next; one of them is silent, and has no addresses.
type roster struct {
	ring, former *wire.Keyring
	bad          []fleet.Key
	ids          []wire.ID
	pairs        []*wire.Pair
	nodes        map[wire.ID]fleet.MeshNode
	members      []link.Member
	candidates   []path.Peer
	speaks       map[fleet.NodeName]wire.ID // of every node
	silent       map[wire.ID]bool
}

func (a *Agent) roster(peers []fleet.MeshNode) roster {
	r := roster{
		nodes: make(map[wire.ID]fleet.MeshNode, len(peers)), speaks: make(map[fleet.NodeName]wire.ID, len(peers)),
		silent: make(map[wire.ID]bool),
	}
	keys := make([]fleet.Key, 0, len(peers))
	for _, n := range peers {
		keys = append(keys, n.Keys()...)
	}
	ring := a.ring
	if ring.Self() != a.key.Public() {
		ring = wire.NewKeyring(a.key)
	}
	r.ring, r.bad = ring.With(keys)
	if a.two {
		r.former, _ = wire.NewKeyring(a.other).With(keys)
	}
	for _, n := range peers {
		speaks := a.speaking(n)
		r.speaks[n.Name] = speaks
		for _, key := range n.Keys() {
			id := wire.IDOf(key)
			pair, ok := r.ring.Pair(id)
			if !ok {
				continue
			}
			m := link.Member{Key: key}
			if id == speaks {
				m.Allowed = []netip.Prefix{netip.PrefixFrom(n.V4, n.V4.BitLen()), netip.PrefixFrom(n.V6, n.V6.BitLen())}
				m.Allowed = append(m.Allowed, a.servedBy(id)...)
			} else {
				r.silent[id] = true
			}
			one := n
			one.Key, one.Next, one.Old = key, fleet.Key{}, fleet.Key{}
			if other := n.Other(); key == other {
				one.Next = n.Key
			} else {
				one.Next = other
			}
			r.nodes[id] = one
			r.ids = append(r.ids, id)
			r.pairs = append(r.pairs, pair)
			r.candidates = append(r.candidates, path.Peer{ID: id, Hub: n.Hub, Public: n.Public})
			r.members = append(r.members, m)
		}
	}
	return r
}

// speaking is which of its keys a node uses, as far as we know: the one that it
// used before, or else the one that the file has it go by.
func (a *Agent) speaking(n fleet.MeshNode) wire.ID {
	for _, key := range n.Keys() {
		if id := wire.IDOf(key); a.speaks[n.Name] == id {
			return id
		}
	}
	return wire.IDOf(n.Key)
}

// twin is the identity of n under its other key; zero if it has but one. n is one
// of a roster's.
func twin(n fleet.MeshNode) wire.ID {
	if n.Next.IsZero() {
		return wire.ID{}
	}
	return wire.IDOf(n.Next)
}
