package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/moggyfleet/moggy/internal/config/source"
)

// meshRange is one of the mesh's ranges, as the file says it.
type meshRange struct {
	prefix netip.Prefix
	at     hcl.Range
}

const (
	exampleV4 = "10.77.0.0/16"
	exampleV6 = "fd7a:6d6f:6767::/48"

	// maxBits4 is the smallest IPv4 range, and maxBits6 and minBits6 bound the
	// IPv6 one: a site prefix of RFC 4193 is a /48, a subnet a /64.
	maxBits4 = 24
	minBits6 = 48
	maxBits6 = 64
)

// meshRanges reads the ranges of the mesh: at most one per family.
func (f fields) meshRanges() []meshRange {
	var out []meshRange
	for _, it := range f.texts("mesh", fmt.Sprintf("mesh = [%q, %q]", exampleV4, exampleV6)) {
		p, ok := f.meshRange(it)
		if !ok {
			continue
		}
		clash := false
		for _, other := range out {
			switch {
			case p == other.prefix:
				f.wrong(it.At, "remove it", "%s is listed twice", p)
			case p.Overlaps(other.prefix):
				f.wrong(it.At, "remove one of them", "%s overlaps %s", p, other.prefix)
			case p.Addr().Is4() == other.prefix.Addr().Is4():
				f.wrong(it.At, "remove one of them", "a second %s range: the mesh has %s already", family(p.Addr()), other.prefix)
			default:
				continue
			}
			clash = true
		}
		if !clash {
			out = append(out, meshRange{p, it.At})
		}
	}
	return out
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func (f fields) meshRange(it source.Item) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(it.Value)
	if err != nil {
		suggestion := fmt.Sprintf("as in %q", exampleV4)
		if a, err := netip.ParseAddr(it.Value); err == nil {
			bits := 16
			if a.Is6() {
				suggestion, bits = fmt.Sprintf("as in %q", exampleV6), minBits6
			}
			if p, err := a.Prefix(bits); err == nil {
				suggestion = fmt.Sprintf("did you mean %q?", p)
			}
			f.wrong(it.At, suggestion, "%s is one address, not a range", a)
			return p, false
		}
		if strings.Contains(it.Value, ":") {
			suggestion = fmt.Sprintf("as in %q", exampleV6)
		}
		f.wrong(it.At, suggestion, "%s is no address range", source.Quoted(it.Value))
		return p, false
	}
	if p != p.Masked() {
		f.wrong(it.At, fmt.Sprintf("did you mean %q?", p.Masked()), "%s is an address in the range %s", p, p.Masked())
		return p, false
	}
	if p.Addr().Is4() {
		return p, f.meshV4(p, it.At)
	}
	return p, f.meshV6(p, it.At)
}

func (f fields) meshV4(p netip.Prefix, at hcl.Range) bool {
	example := fmt.Sprintf("as in %q", exampleV4)
	private := false
	for _, s := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} {
		private = private || covers(netip.MustParsePrefix(s), p)
	}
	switch {
	case p.Overlaps(netip.MustParsePrefix("100.64.0.0/10")):
		f.wrong(at, example, "%s is used by carriers for their NAT (RFC 6598): a node behind one could lose its way out", p)
	case !private:
		f.wrong(at, example, "%s is not private: the mesh takes a range of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 (RFC 1918)", p)
	case p.Bits() > maxBits4:
		f.wrong(at, fmt.Sprintf("did you mean %q?", netip.PrefixFrom(p.Addr(), maxBits4).Masked()), "%s is too small: a /%d at least", p, maxBits4)
	default:
		f.meshWarnings(p, at)
		return true
	}
	return false
}

// meshWarnings warns of ranges that many networks have already.
func (f fields) meshWarnings(p netip.Prefix, at hcl.Range) {
	for _, common := range []struct{ prefix, whose string }{
		{"192.168.0.0/23", "home routers"},
		{"192.168.178.0/24", "home routers"},
		{"172.17.0.0/16", "Docker"},
		{"10.0.0.0/24", "home routers and clouds"},
	} {
		if c := netip.MustParsePrefix(common.prefix); p.Overlaps(c) {
			f.d.Warn(at, fmt.Sprintf("for example %q", exampleV4), "%s: %s holds %s, which %s use: a node there cannot tell them apart",
				f.b, p, c, common.whose)
			return
		}
	}
}

func (f fields) meshV6(p netip.Prefix, at hcl.Range) bool {
	example := fmt.Sprintf("as in %q", exampleV6)
	switch {
	case !covers(netip.MustParsePrefix("fc00::/7"), p):
		f.wrong(at, example, "%s is no ULA: the mesh takes a /48 of fd00::/8 (RFC 4193)", p)
	case p.Bits() < minBits6:
		f.wrong(at, fmt.Sprintf("did you mean %q?", netip.PrefixFrom(p.Addr(), minBits6)), "%s is too large: a ULA is a /%d (RFC 4193)", p, minBits6)
	case p.Bits() > maxBits6:
		f.wrong(at, fmt.Sprintf("did you mean %q?", netip.PrefixFrom(p.Addr(), maxBits6).Masked()), "%s is too small: a /%d at least", p, maxBits6)
	default:
		return true
	}
	return false
}

// covers says whether all of p is in outer.
func covers(outer, p netip.Prefix) bool {
	return outer.Overlaps(p) && outer.Bits() <= p.Bits()
}

// outsideMesh reports an address for ssh that only exists once the mesh does.
func (f fields) outsideMesh(a netip.Addr, at hcl.Range) {
	for _, r := range f.d.ranges {
		if r.prefix.Contains(a.Unmap()) {
			f.wrong(at, "give the address it has without the mesh", "%s is in the mesh's range %s (%s)", a, r.prefix, source.Place(r.at))
		}
	}
}
