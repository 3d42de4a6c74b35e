package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// defaultV4 is the mesh's IPv4 range where the file names none: private (RFC
// 1918), away from what home routers hand out, and never 100.64.0.0/10, which
// carriers use (RFC 6598).
func defaultV4() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, 0}), 16) }

// uniqueLocal is the mesh's IPv6 /48 where the file names none: a unique local
// prefix (RFC 4193) whose 40 bits come from the fleet's names, so that two
// fleets meeting on one machine hardly ever share one.
func uniqueLocal(f *fleet.Fleet) netip.Prefix {
	sum := sha256.Sum256([]byte("moggy mesh " + string(f.Name) + " " + f.Domain))
	a := [16]byte{0: 0xfd}
	copy(a[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

// Allocate returns the lock with a range for the mesh and an address for every
// node of the file. What the lock holds stays, whoever comes and goes, as long
// as it lies in the ranges; a new node takes the number after the highest one
// given. Nodes that left the file keep their entry until an apply has removed
// them. The error says that a range is full.
func Allocate(f *fleet.Fleet, l *fleet.Lock) (*fleet.Lock, error) {
	out := l.Clone()
	out.Version, out.Fleet = 1, f.Name
	out.Mesh = fleet.Ranges{
		V4: firstValid(f.Mesh.V4, l.Mesh.V4, defaultV4()),
		V6: firstValid(f.Mesh.V6, l.Mesh.V6, uniqueLocal(f)),
	}
	n := numbering{room: hosts(out.Mesh.V4), taken: make(map[uint32]bool, len(f.Nodes))}
	entries := make(map[fleet.NodeName]fleet.NodeLock, len(l.Nodes)+len(f.Nodes))
	for _, e := range l.Nodes {
		n.keep(out.Mesh.V4, e.V4)
		entries[e.Name] = e
	}
	for _, node := range f.Nodes {
		e := entries[node.Name]
		e.Name = node.Name
		num, ok := offset(out.Mesh.V4, e.V4)
		if !ok {
			if num, ok = n.next(); !ok {
				return nil, fmt.Errorf("node %s: the mesh range %s is full", node.Name, out.Mesh.V4)
			}
		}
		e.V4, e.V6 = at(out.Mesh.V4, num), at(out.Mesh.V6, num)
		entries[node.Name] = e
	}
	out.Nodes = out.Nodes[:0]
	for _, e := range entries {
		out.Nodes = append(out.Nodes, e)
	}
	slices.SortFunc(out.Nodes, func(a, b fleet.NodeLock) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// numbering hands out host numbers from 1 to room.
type numbering struct {
	room, highest uint32
	taken         map[uint32]bool
}

func (n *numbering) keep(r netip.Prefix, a netip.Addr) {
	if num, ok := offset(r, a); ok {
		n.taken[num] = true
		n.highest = max(n.highest, num)
	}
}

// next is the number after the highest; once the range has been walked to its
// end, the lowest that is free.
func (n *numbering) next() (uint32, bool) {
	num := n.highest + 1
	if num > n.room {
		for num = 1; n.taken[num]; num++ {
		}
		if num > n.room {
			return 0, false
		}
	}
	n.taken[num] = true
	n.highest = max(n.highest, num)
	return num, true
}

// hosts is how many numbers an IPv4 range has, its first and last address left
// out.
func hosts(r netip.Prefix) uint32 { return uint32(1)<<(32-r.Bits()) - 2 }

// offset is a's number in r.
func offset(r netip.Prefix, a netip.Addr) (uint32, bool) {
	if !a.Is4() || !r.Contains(a) {
		return 0, false
	}
	base, addr := r.Masked().Addr().As4(), a.As4()
	num := binary.BigEndian.Uint32(addr[:]) - binary.BigEndian.Uint32(base[:])
	return num, num >= 1 && num <= hosts(r)
}

// at is the address of that number in r. An IPv6 range is wider than any
// number, so the last 32 bits carry it.
func at(r netip.Prefix, num uint32) netip.Addr {
	if r.Addr().Is4() {
		b := r.Masked().Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+num)
		return netip.AddrFrom4(b)
	}
	b := r.Masked().Addr().As16()
	binary.BigEndian.PutUint32(b[12:], num)
	return netip.AddrFrom16(b)
}

func firstValid(prefixes ...netip.Prefix) netip.Prefix {
	i := slices.IndexFunc(prefixes, netip.Prefix.IsValid)
	return prefixes[i]
}
