package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/sim"
)

// natHome is a machine behind a NAT of its own, made of nftables.
type natHome struct {
	name string
	kind sim.NAT
	// out is how packets of the machine are translated; the rule gets
	// masquerade's arguments for what leaves. in are rules for what comes to a port
	// that no connection is known for.
	out, in string
	long    bool // only where the long form is wanted
}

// Linux keeps a connection's port where it is free, so one port is seen by all: an
// endpoint-independent mapping. Its connection tracking lets in only what was
// sent to, address and port. Rules that send on what comes to a port make the
// filtering weaker. (Per-port mapping with filtering by address cannot be made of
// them: what is let in by address is let in to every port.)
func natHomes() []natHome {
	const (
		keep    = "masquerade"
		shuffle = "masquerade random,fully-random"
		one     = "udp dport 51877"
		any     = "udp dport 1024-65535" // the port is a different one for each other side
		known   = "ip saddr @talked"     // those that were sent to, from whatever port
	)
	perAddress := "masquerade"
	for i := range 30 {
		perAddress = fmt.Sprintf("ip daddr 203.0.113.%d udp sport 51877 masquerade to :%d\n\t\t", 130-i, 40000+i) + perAddress
	}
	for _, hub := range []int{11, 12} {
		perAddress = fmt.Sprintf("ip daddr 203.0.113.%d udp sport 51877 masquerade to :%d\n\t\t", hub, 41000+hub) + perAddress
	}
	return []natHome{
		{"full", sim.NAT{Mapping: sim.Endpoint, Filtering: sim.Endpoint}, keep, one, false},
		{"restr", sim.NAT{Mapping: sim.Endpoint, Filtering: sim.Address}, keep, known + " " + one, false},
		{"port1", sim.NAT{Mapping: sim.Endpoint, Filtering: sim.AddressAndPort}, keep, "", false},
		{"port2", sim.NAT{Mapping: sim.Endpoint, Filtering: sim.AddressAndPort}, keep, "", false},
		{"sym1", sim.NAT{Mapping: sim.AddressAndPort, Filtering: sim.AddressAndPort}, shuffle, "", false},
		{"sym2", sim.NAT{Mapping: sim.AddressAndPort, Filtering: sim.AddressAndPort}, shuffle, "", false},
		{"addr", sim.NAT{Mapping: sim.Address, Filtering: sim.AddressAndPort}, perAddress, "", true},
		{"symopen", sim.NAT{Mapping: sim.AddressAndPort, Filtering: sim.Endpoint}, shuffle, any, true},
	}
}

// rules are the router's, for one machine behind it.
func (h natHome) rules() string {
	in := ""
	if h.in != "" {
		in = `iifname "wan" ` + h.in + " dnat to 192.168.1.10:51877"
	}
	return fmt.Sprintf(`nft -f - <<'E'
delete table inet home
table ip home {
	set talked { type ipv4_addr; flags dynamic,timeout; timeout 2m; }
	chain in { type nat hook prerouting priority dstnat; %s; }
	chain out { type nat hook postrouting priority srcnat;
		oifname != "wan" accept
		%s
	}
	chain guard { type filter hook forward priority filter; policy accept;
		oifname "wan" update @talked { ip daddr }
		iifname "wan" ct state established,related accept
		iifname "wan" ct status dnat accept
		iifname "wan" drop
	}
	chain own { type filter hook input priority filter; policy accept;
		iifname "wan" meta l4proto udp drop
	}
}
E`, in, h.out)
}

// natPair are two machines that talk.
type natPair struct {
	a, b   *machine
	direct bool // they must, directly
}

func (p natPair) path() fleet.PathKind {
	if p.direct {
		return fleet.PathDirectV4
	}
	return fleet.PathRelayed
}

// TestNetnsNATs puts machines behind NATs of the real kernel, and lets all talk to
// all: the path is direct where the rule, by which the in-memory internet goes
// through all pairs, says that it must be, and else relayed.
func TestNetnsNATs(t *testing.T) {
	w := newWorld(t)
	w.public("hub1", true, "203.0.113.11")
	w.public("hub2", true, "203.0.113.12")
	homes := slices.DeleteFunc(natHomes(), func(h natHome) bool { return h.long && !thorough() })
	for i, h := range homes {
		w.home("r"+h.name, fmt.Sprintf("203.0.113.%d", 101+i), "")
		w.behind(h.name, "r"+h.name, "", 10)
		w.Sh("r"+h.name, h.rules())
	}
	w.startAll()
	begin := time.Now()
	var pairs []natPair
	for i, a := range homes {
		for _, b := range homes[i+1:] {
			p := natPair{w.nodes[a.name], w.nodes[b.name], sim.Direct(a.kind, b.kind)}
			p.a.flow(p.b)
			pairs = append(pairs, p)
		}
	}
	wrong := func() (names []string) {
		for _, p := range pairs {
			ab, ba := p.a.peer(p.b), p.b.peer(p.a)
			if want := p.path(); ab.Path != want || ba.Path != want || !ab.Known() {
				names = append(names, fmt.Sprintf("%s, %s: %s, back %s, want %s", p.a.name, p.b.name, ab.Path, ba.Path, want))
			}
		}
		return names
	}
	var last []string
	for tick := time.NewTicker(200 * time.Millisecond); time.Since(begin) < 60*time.Second; <-tick.C {
		// The last round of calls is after 7 s: what is not direct then will not be.
		if last = wrong(); len(last) == 0 && time.Since(begin) > 10*time.Second {
			tick.Stop()
			break
		}
	}
	if len(last) > 0 {
		t.Errorf("after %v:\n%s", time.Since(begin), strings.Join(last, "\n"))
	}
	direct := 0
	for _, p := range pairs {
		if p.direct {
			direct++
		}
	}
	t.Logf("%d pairs, %d of them direct, as they must be after %v", len(pairs), direct, time.Since(begin).Round(time.Second))
	if len(pairs) < 15 || direct == 0 || direct == len(pairs) {
		t.Errorf("%d pairs, %d direct: too few of a kind", len(pairs), direct)
	}
}
