package mesh

import (
	"testing"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// cats is a fleet like the reference one: two hubs, a node behind IPv6 and
// NAT, one behind NAT without IPv6.
func cats(t *testing.T) (w *world, hub1, hub2, ari, bianco *machine) {
	w = newWorld(t)
	hub1 = w.public("hub1", true, "203.0.113.11", "2001:db8::11")
	hub2 = w.public("hub2", true, "203.0.113.12", "2001:db8::12")
	w.home("london", "203.0.113.101", "2001:db8:a::")
	ari = w.behind("ari", "london", "2001:db8:a::", 10)
	w.home("madrid", "203.0.113.102", "")
	bianco = w.behind("bianco", "madrid", "", 10)
	return w, hub1, hub2, ari, bianco
}

func TestNetnsEveryPairTalks(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	w.startAll()
	all := []*machine{hub1, hub2, ari, bianco}
	for _, a := range all {
		for _, b := range all {
			if a == b {
				continue
			}
			if lost, out := a.ping(b.node.V4, 3, "0.2"); lost > 0 {
				t.Errorf("%s to %s over IPv4: %d of 3 lost\n%s", a.name, b.name, lost, out)
			}
			if lost, out := a.ping(b.node.V6, 3, "0.2"); lost > 0 {
				t.Errorf("%s to %s over IPv6: %d of 3 lost\n%s", a.name, b.name, lost, out)
			}
		}
	}
	for _, c := range []struct {
		a, b *machine
		want fleet.PathKind
	}{
		{hub1, hub2, fleet.PathDirectV6},
		{ari, hub1, fleet.PathDirectV6},
		{bianco, hub1, fleet.PathDirectV4},
	} {
		if got := c.a.path(c.b).Path; got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.a.name, c.b.name, got, c.want)
		}
	}
	t.Logf("bianco to ari: %+v", bianco.path(ari))
	t.Log(w.Run("nsenter", "-t", pidOf(bianco), "-m", "-n", "wg", "show", "moggy0"))
}

// TestNetnsNoIPv6 runs an agent where IPv6 is switched off altogether.
func TestNetnsNoIPv6(t *testing.T) {
	w, _, hub2, ari, bianco := cats(t)
	w.Sh("bianco", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
	w.startAll()
	for _, other := range []*machine{hub2, ari} {
		if lost, out := bianco.ping(other.node.V4, 3, "0.2"); lost > 0 {
			t.Errorf("bianco to %s: %d of 3 lost\n%s", other.name, lost, out)
		}
	}
}
