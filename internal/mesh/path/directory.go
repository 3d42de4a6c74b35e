package path

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/aead/siphash"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Directory is who is in the fleet. It never changes, so that any number of
// engines may share one.
type Directory struct {
	peers map[wire.ID]Peer
	hubs  []wire.ID
}

// NewDirectory returns the directory of those peers; an engine's own node may be
// among them.
func NewDirectory(peers []Peer) *Directory {
	d := &Directory{peers: make(map[wire.ID]Peer, len(peers))}
	for _, p := range peers {
		d.peers[p.ID] = p
		if p.Hub {
			d.hubs = append(d.hubs, p.ID)
		}
	}
	slices.SortFunc(d.hubs, compareID)
	return d
}

// ranked returns the hubs other than id in the order in which they are to relay to
// id. Every node reckons the same, so a sender knows where id can be found
// before it heard anything of it. Those that machines of either family reach come
// first; the rest is a hash (rendezvous hashing), so that all hubs get their
// share, and nodes of a hub that is lost do not all turn to the same one.
func (d *Directory) ranked(id wire.ID) []wire.ID {
	type scored struct {
		id    wire.ID
		both  bool
		score uint64
	}
	all := make([]scored, 0, len(d.hubs))
	for _, h := range d.hubs {
		if h != id {
			all = append(all, scored{h, d.peers[h].bothFamilies(), siphash.Sum64(append(id[:], h[:]...), &[siphash.KeySize]byte{})})
		}
	}
	slices.SortFunc(all, func(a, b scored) int {
		if a.both != b.both {
			if a.both {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.score, b.score), compareID(a.id, b.id))
	})
	out := make([]wire.ID, len(all))
	for i, s := range all {
		out[i] = s.id
	}
	return out
}

// bothFamilies says whether p has fixed endpoints of IPv4 and of IPv6.
func (p Peer) bothFamilies() bool {
	var v4, v6 bool
	for _, a := range p.Public {
		v4 = v4 || a.Addr().Is4()
		v6 = v6 || a.Addr().Is6()
	}
	return v4 && v6
}

func compareID(a, b wire.ID) int { return bytes.Compare(a[:], b[:]) }
