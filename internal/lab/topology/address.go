package topology

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/moggyfleet/moggy/internal/fleet"
)

var (
	// transit is where addresses come from that the file does not name
	// (TEST-NET-1, RFC 5737).
	transit = netip.MustParsePrefix("192.0.2.0/24")

	// gateway4 and gateway6 are what every machine with a public address calls
	// its router, as rented servers know it.
	gateway4 = netip.MustParseAddr("169.254.0.1")
	gateway6 = netip.MustParseAddr("fe80::1")
	// customer6 is the other end of such a line.
	customer6 = netip.MustParseAddr("fe80::2")

	any4 = netip.MustParsePrefix("0.0.0.0/0")
	any6 = netip.MustParsePrefix("::/0")

	errTooManySites = errors.New("too many sites for 192.0.2.0/24")
)

// homeNets are what home routers give out, the commonest first. As in real
// life every home has the same.
func homeNets() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("192.168.1.0/24"),
		netip.MustParsePrefix("192.168.178.0/24"),
		netip.MustParsePrefix("192.168.0.0/24"),
		netip.MustParsePrefix("10.0.0.0/24"),
	}
}

// book hands out addresses that nobody else has.
type book struct {
	taken map[netip.Addr]bool
	next4 netip.Addr
	next6 int
}

func newBook(f *fleet.Fleet) *book {
	b := &book{taken: map[netip.Addr]bool{}, next4: netip.MustParseAddr("192.0.2.100")}
	for _, n := range f.Nodes {
		for _, a := range n.Public {
			b.taken[a] = true
		}
		if a, err := netip.ParseAddr(n.SSH.Host); err == nil {
			b.taken[a] = true
		}
	}
	return b
}

// wish returns the address, or the next one after it that is free.
func (b *book) wish(s string) netip.Addr {
	a := netip.MustParseAddr(s)
	for b.taken[a] {
		a = a.Next()
	}
	b.taken[a] = true
	return a
}

// public returns a fresh public IPv4 address.
func (b *book) public() (netip.Addr, error) {
	for ; transit.Contains(b.next4); b.next4 = b.next4.Next() {
		if !b.taken[b.next4] {
			b.taken[b.next4] = true
			return b.next4, nil
		}
	}
	return netip.Addr{}, errTooManySites
}

// prefix returns a fresh IPv6 /48, as a provider delegates it to a site:
// 2001:db8:f000::/48 and on.
func (b *book) prefix() netip.Prefix {
	for {
		raw := netip.MustParseAddr("2001:db8:f000::").As16()
		raw[4] = 0xf0 | byte(b.next6>>8)
		raw[5] = byte(b.next6)
		b.next6++
		p := netip.PrefixFrom(netip.AddrFrom16(raw), 48)
		free := true
		for a := range b.taken {
			free = free && !p.Contains(a)
		}
		if free {
			return p
		}
	}
}

// homeNet picks the LAN range of homes: the first that the mesh does not use.
func homeNet(mesh netip.Prefix) netip.Prefix {
	for _, p := range homeNets() {
		if !mesh.IsValid() || !p.Overlaps(mesh) {
			return p
		}
	}
	return homeNets()[0]
}

// host returns the n-th address of the prefix.
func host(p netip.Prefix, n int) netip.Addr {
	raw := p.Masked().Addr().AsSlice()
	raw[len(raw)-1] += byte(n)
	raw[len(raw)-2] += byte(n >> 8)
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// single is the prefix that holds only a.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// maxDevice is the longest name of a device: IFNAMSIZ less the final zero
// (linux/if.h).
const maxDevice = 15

// device names a device after what is at its other end. Long names are cut
// and told apart by a hash.
func device(prefix, name string) string {
	if len(prefix)+len(name) <= maxDevice {
		return prefix + name
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	return prefix + name[:maxDevice-len(prefix)-7] + fmt.Sprintf("-%06x", h.Sum32()&0xffffff)
}

// MAC is the hardware address of a device in a space. It follows from the
// names, so that a machine that is switched on again is to its neighbours the
// one they knew, and a bridge keeps its own whatever its ports do; else they
// would send into the void until their memory of it ends.
func MAC(space, dev string) [6]byte {
	h := fnv.New64a()
	h.Write([]byte(space + "/" + dev))
	sum := h.Sum(nil)
	return [6]byte{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]} // 02: administered locally (IEEE 802)
}
