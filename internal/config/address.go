package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/moggyfleet/moggy/internal/config/source"
)

// special is a range of addresses that the internet does not carry to one
// machine.
type special struct {
	prefix     netip.Prefix
	why        string
	suggestion string
}

// specials are from the IANA special-purpose address registries (RFC 6890 and
// its updates). The documentation ranges are left out: examples and the lab
// take them as public.
func specials() []special {
	list := []struct{ prefix, why, suggestion string }{
		{"0.0.0.0/8", "is no machine's address (RFC 1122)", ""},
		{"10.0.0.0/8", "is private (RFC 1918): nobody outside its network reaches it", privateAdvice},
		{"100.64.0.0/10", "belongs to carrier NAT (RFC 6598): nobody outside the carrier reaches it", `remove it, and say nat = "cgnat" at the site`},
		{"127.0.0.0/8", "is a loopback address: every machine means itself by it", ""},
		{"169.254.0.0/16", "is link-local: nobody beyond the next router reaches it", ""},
		{"172.16.0.0/12", "is private (RFC 1918): nobody outside its network reaches it", privateAdvice},
		{"192.0.0.0/24", "is reserved for protocols (RFC 6890)", ""},
		{"192.168.0.0/16", "is private (RFC 1918): nobody outside its network reaches it", privateAdvice},
		{"198.18.0.0/15", "is reserved for benchmarks (RFC 2544)", ""},
		{"224.0.0.0/4", "is a multicast address", ""},
		{"240.0.0.0/4", "is reserved (RFC 1112)", ""},
		{"::/128", "is no machine's address", ""},
		{"::1/128", "is a loopback address: every machine means itself by it", ""},
		{"64:ff9b::/32", "belongs to NAT64 (RFC 6052)", "write the IPv4 address itself"},
		{"fc00::/7", "is a ULA (RFC 4193): nobody outside its network reaches it", privateAdvice},
		{"fe80::/10", "is link-local: nobody beyond the next router reaches it", ""},
		{"ff00::/8", "is a multicast address", ""},
	}
	out := make([]special, len(list))
	for i, s := range list {
		out[i] = special{netip.MustParsePrefix(s.prefix), s.why, s.suggestion}
	}
	return out
}

const privateAdvice = "remove it; ssh = \"HOST\" says how you reach the machine"

// globalUnicast is all that has been given out of IPv6 (RFC 4291, 2.4).
func globalUnicast() netip.Prefix { return netip.MustParsePrefix("2000::/3") }

// publicAddress reads an address that the whole internet reaches.
func (f fields) publicAddress(it source.Item) (netip.Addr, bool) {
	a, err := netip.ParseAddr(it.Value)
	if err != nil {
		f.notAnAddress(it)
		return netip.Addr{}, false
	}
	if a.Is4In6() {
		f.wrong(it.At, fmt.Sprintf("did you mean %q?", a.Unmap()), "%s is an IPv4 address in IPv6 form", a)
		return netip.Addr{}, false
	}
	if a.Zone() != "" {
		f.wrong(it.At, "", "%s has a zone: only one machine understands it", a)
		return netip.Addr{}, false
	}
	for _, s := range f.d.specials {
		if s.prefix.Contains(a) {
			f.wrong(it.At, s.suggestion, "%s %s", a, s.why)
			return netip.Addr{}, false
		}
	}
	if a.Is6() && !f.d.global.Contains(a) {
		f.wrong(it.At, "", "%s is not in 2000::/3, of which public IPv6 addresses are given out", a)
		return netip.Addr{}, false
	}
	return a, true
}

func (f fields) notAnAddress(it source.Item) {
	s := strings.TrimSpace(it.Value)
	suggestion := ""
	if p, err := netip.ParsePrefix(s); err == nil {
		suggestion = fmt.Sprintf("did you mean %q?", p.Addr())
	} else if p, err := netip.ParseAddrPort(s); err == nil {
		suggestion = fmt.Sprintf("did you mean %q?", p.Addr())
	} else if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		suggestion = fmt.Sprintf("did you mean %q?", a)
	} else if wrongDomain(s) == "" && strings.Trim(s, "0123456789.") != "" {
		f.wrong(it.At, "write the address it has", "%s is a name, not an address: the mesh works without DNS", source.Quoted(it.Value))
		return
	}
	f.wrong(it.At, suggestion, "%s is no IP address", source.Quoted(it.Value))
}
