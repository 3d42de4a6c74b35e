package mesh

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// lines takes everybody off the internet's bridge and gives each a line of its
// own, so that it is a router that finds a packet too large for a line:
//
//	hub1 ──1500── inet ──N── london ──1500── ari      IPv4 by a symmetric NAT, and IPv6
//	hub2 ──1500──  |  └──N── madrid ──1500── bianco   IPv4 by a symmetric NAT
func (w *world) lines(prefixes map[string]string, ends map[string]string) {
	w.t.Helper()
	w.Sh("inet", "ip link del br0")
	for name, dev := range ends {
		w.Sh("inet", fmt.Sprintf("ip addr add 203.0.113.1/32 dev p%[1]s; ip addr add 2001:db8::1/128 dev p%[1]s nodad", name))
		for _, a := range w.addresses(name, dev) {
			ip := "ip"
			gate := "203.0.113.1"
			if a.Addr().Is6() {
				ip, gate = "ip -6", "2001:db8::1"
			}
			w.Sh(name, fmt.Sprintf("ip addr del %s dev %s; ip addr add %s/%d dev %s%s", a, dev, a.Addr(), a.Addr().BitLen(), dev, nodad(a.Addr())))
			w.Sh(name, fmt.Sprintf("%[1]s route replace %[2]s dev %[3]s; %[1]s route replace default via %[2]s dev %[3]s", ip, gate, dev))
			w.Sh("inet", fmt.Sprintf("%s route replace %s dev p%s", ip, a.Addr(), name))
			if prefix := prefixes[name]; prefix != "" && a.Addr().Is6() {
				w.Sh("inet", fmt.Sprintf("ip -6 route replace %s/64 via %s dev p%s", prefix, a.Addr(), name))
			}
		}
	}
}

func nodad(a netip.Addr) string {
	if a.Is6() {
		return " nodad"
	}
	return ""
}

// addresses are the global ones of an interface.
func (w *world) addresses(ns, dev string) (out []netip.Prefix) {
	w.t.Helper()
	for text := range strings.FieldsSeq(w.Sh(ns, "ip -o addr show dev "+dev+" scope global | awk '{print $4}'")) {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// narrow gives homes' lines an MTU.
func (w *world) narrow(mtu int, homes ...string) {
	w.t.Helper()
	for _, name := range homes {
		w.Sh("inet", fmt.Sprintf("ip link set p%s mtu %d", name, mtu))
		w.Sh(name, fmt.Sprintf("ip link set wan mtu %d", mtu))
	}
}

// carrier is a router that takes no fragments, and does not tell when a packet
// is too large.
const carrier = `nft -f - <<'E'
table inet carrier {
	chain fragments { type filter hook prerouting priority -450; policy accept;
		ip frag-off & 0x3fff != 0 drop
		exthdr frag exists drop
	}
	chain silent { type filter hook output priority filter; policy accept;
		icmp type destination-unreachable drop
		icmpv6 type packet-too-big drop
	}
}
E`

// TestNetnsMTU sends a MiB of TCP both ways over lines of every size: where what
// is too large is cut into fragments, and where these are lost, as are the
// messages that would tell (many home routers, mobile networks and clouds are
// like that).
func TestNetnsMTU(t *testing.T) {
	w, hub1, _, ari, bianco := cats(t)
	w.symmetric("madrid") // so that the pair stays relayed
	w.symmetric("london")
	w.lines(map[string]string{"london": "2001:db8:a::"},
		map[string]string{"hub1": "eth0", "hub2": "eth0", "london": "wan", "madrid": "wan"})
	w.startAll()
	w.wait("all talk", 20*time.Second, func() bool {
		return bianco.path(ari).RTTMicro > 0 && ari.path(bianco).RTTMicro > 0 && bianco.path(hub1).RTTMicro > 0 &&
			ari.path(hub1).Path == fleet.PathDirectV6 && hub1.path(ari).Path == fleet.PathDirectV6
	})
	for _, lost := range []bool{false, true} {
		if lost {
			for _, ns := range []string{"inet", "london", "madrid"} {
				w.Sh(ns, carrier)
			}
		}
		for _, mtu := range []int{1492, 1400, 1300, 1280} {
			w.narrow(mtu, "london", "madrid")
			for _, pair := range []struct {
				name string
				a, b *machine
				kind fleet.PathKind
			}{
				{"direct by IPv4", bianco, hub1, fleet.PathDirectV4},
				{"direct by IPv6", ari, hub1, fleet.PathDirectV6},
				{"relayed", bianco, ari, fleet.PathRelayed},
			} {
				name := fmt.Sprintf("%d, %s", mtu, pair.name)
				if lost {
					name += ", fragments lost"
				}
				t.Run(name, func(t *testing.T) {
					for _, way := range [][2]*machine{{pair.a, pair.b}, {pair.b, pair.a}} {
						for _, to := range []netip.Addr{way[1].node.V4, way[1].node.V6} {
							took, err := way[0].transfer(to, way[1], 1<<20, 10*time.Second)
							p := way[0].peer(way[1])
							t.Logf("%s to %s: %v by %s (%s)", way[0].name, to, took, p.Path, p.Why)
							if err != nil {
								t.Errorf("%s to %s: %v", way[0].name, to, err)
							}
							if p.Path != pair.kind && !lost { // else another way may be better
								t.Errorf("%s to %s goes %s, want %s", way[0].name, way[1].name, p.Path, pair.kind)
							}
						}
					}
				})
			}
		}
	}
	if !thorough() {
		return
	}
	// That every way takes small packets only is known now; the direct one is the
	// best of them, and is returned to.
	w.wait("bianco and hub1 talk directly again", 60*time.Second, func() bool {
		_, err := bianco.transfer(hub1.node.V4, hub1, 64<<10, 10*time.Second)
		return err == nil && bianco.peer(hub1).Path == fleet.PathDirectV4 && hub1.peer(bianco).Path == fleet.PathDirectV4
	})
	for _, to := range []netip.Addr{hub1.node.V4, hub1.node.V6} {
		if took, err := bianco.transfer(to, hub1, 1<<20, 10*time.Second); err != nil || bianco.peer(hub1).Path != fleet.PathDirectV4 {
			t.Errorf("bianco to %s, directly, fragments lost: %v, %v", to, took, err)
		}
	}
}
