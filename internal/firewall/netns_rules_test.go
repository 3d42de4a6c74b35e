package firewall

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// others are rules of a user's, as iptables makes them, and of Docker's: a port
// that is published, translated before anything is judged, and a chain for what
// is forwarded that drops by default.
const others = `
table ip filter {
	chain INPUT { type filter hook input priority filter; policy accept; tcp dport 8443 counter drop; }
	chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER; ct state established,related accept; iifname "docker0" accept; }
	chain DOCKER { ip daddr 172.17.0.2 oifname "docker0" tcp dport 80 accept; }
}
table ip nat {
	chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local tcp dport { 9443, 9080 } dnat to 172.17.0.2:80; }
	chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; ip saddr 172.17.0.0/16 oifname != "docker0" masquerade; }
}
table ip6 nat {
	chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local tcp dport { 9443, 9080 } dnat to [fd99::2]:80; }
	chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; ip6 saddr fd99::/64 oifname != "docker0" masquerade; }
}
`

// TestNetnsRules says who reaches what, in both families, with Docker's and a
// user's rules and without.
func TestNetnsRules(t *testing.T) {
	w := newWorld(t)
	for _, addr := range families() {
		for _, port := range []uint16{22, 443, 8080} {
			w.echo("node", "tcp", netip.AddrPortFrom(addr(cosmo), port))
		}
		for _, port := range []uint16{53, 54} {
			w.echo("node", "udp", netip.AddrPortFrom(addr(cosmo), port))
		}
		w.echo("mesh", "tcp", netip.AddrPortFrom(addr(bianco), 80))
	}
	w.echo("node", "tcp", netip.MustParseAddrPort("172.17.0.1:443"))
	w.echo("node", "tcp", netip.AddrPortFrom(v4(cosmo), 8443))
	w.echo("box", "tcp", netip.MustParseAddrPort("172.17.0.2:80"))
	w.echo("box", "tcp", netip.MustParseAddrPort("172.17.0.2:443"))
	w.echo("box", "tcp", netip.MustParseAddrPort("[fd99::2]:80"))
	w.echo("box", "tcp", netip.MustParseAddrPort("[fd99::2]:443"))

	for _, addr := range families() { // without rules
		w.expect(true, "tcp", addr(bianco), netip.AddrPortFrom(addr(cosmo), 8080))
	}
	w.load()
	w.judged()

	// Docker and a user with iptables: their rules stay, and hold beside ours.
	w.Sh("node", "nft -f - <<'E'\n"+others+"E")
	before := w.foreign()
	w.load()
	w.judged()
	for _, addr := range families() {
		w.expect(true, "tcp", addr(ari), netip.AddrPortFrom(addr(cosmo), 9443))
		w.expect(false, "tcp", addr(bianco), netip.AddrPortFrom(addr(cosmo), 9443))
		w.expect(false, "tcp", addr(ari), netip.AddrPortFrom(addr(cosmo), 9080))
		w.expect(false, "tcp", addr(hub), netip.AddrPortFrom(addr(cosmo), 9080))
	}
	if c, err := w.dial("mesh", "tcp", v4(ari), netip.AddrPortFrom(v4(cosmo), 8443), 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("what a user's own rule drops passes")
	}
	// A container's own connections, and their answers.
	for _, addr := range families() {
		c, err := w.dial("box", "tcp", netip.Addr{}, netip.AddrPortFrom(addr(bianco), 80), 5*time.Second)
		if err == nil {
			err = talk(c, 5*time.Second)
			c.Close()
		}
		if err != nil {
			t.Errorf("a container to %s: %v", addr(bianco), err)
		}
	}
	if after := w.foreign(); after != before {
		t.Errorf("others' rules were\n%s\nand are\n%s", before, after)
	}
}

// judged checks what the allow block says.
func (w *world) judged() {
	w.t.Helper()
	for _, addr := range families() {
		at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(addr(cosmo), port) }
		w.expect(true, "tcp", addr(ari), at(443))
		w.expect(true, "udp", addr(ari), at(53))
		w.expect(false, "tcp", addr(ari), at(8080))
		w.expect(false, "udp", addr(ari), at(54))
		w.expect(false, "tcp", addr(ari), at(22))
		w.expect(false, "tcp", addr(bianco), at(443))
		w.expect(false, "udp", addr(bianco), at(53))
		w.expect(false, "tcp", addr(hub), at(443))
		w.expect(true, "tcp", addr(hub), at(22)) // the operators' way in
		w.Sh("mesh", "ping -nqc1 -W5 -I "+addr(bianco).String()+" "+addr(cosmo).String())

		// What cosmo asks others for is answered.
		c, err := w.dial("node", "tcp", addr(cosmo), netip.AddrPortFrom(addr(bianco), 80), 5*time.Second)
		if err == nil {
			err = talk(c, 5*time.Second)
			c.Close()
		}
		if err != nil {
			w.t.Errorf("cosmo to %s: %v", addr(bianco), err)
		}
	}
	// Another address of this machine, or one behind it, at a port that is allowed.
	w.expect(false, "tcp", v4(ari), netip.MustParseAddrPort("172.17.0.1:443"))
	w.expect(false, "tcp", v4(ari), netip.MustParseAddrPort("172.17.0.2:443"))
	w.expect(false, "tcp", v6(ari), netip.MustParseAddrPort("[fd99::2]:443"))
}

// foreign are the rules that are not ours, without what they count.
func (w *world) foreign() string {
	w.t.Helper()
	var out strings.Builder
	for _, table := range []string{"ip filter", "ip nat", "ip6 nat"} {
		out.WriteString(w.Sh("node", "nft -s list table "+table))
	}
	return out.String()
}

// TestNetnsIptables has the real iptables make a user's rules.
func TestNetnsIptables(t *testing.T) {
	w := newWorld(t)
	w.echo("node", "tcp", netip.AddrPortFrom(v4(cosmo), 443))
	w.Sh("node", "iptables -A INPUT -s 10.77.0.3 -p tcp --dport 443 -j REJECT --reject-with icmp-host-prohibited")
	saved := w.Sh("node", "iptables -S")
	p := w.keep()
	w.expect(false, "tcp", v4(ari), netip.AddrPortFrom(v4(cosmo), 443))
	w.Sh("node", "iptables -F INPUT; iptables -A INPUT -p tcp --dport 1 -j DROP; iptables -D INPUT 1")
	w.expect(true, "tcp", v4(ari), netip.AddrPortFrom(v4(cosmo), 443))
	w.Sh("node", "iptables -A INPUT -s 10.77.0.3 -p tcp --dport 443 -j REJECT --reject-with icmp-host-prohibited")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.await("table gone", func() bool { return !w.standing() })
	if now := w.Sh("node", "iptables -S"); now != saved {
		t.Errorf("iptables said\n%s\nand says\n%s", saved, now)
	}
	if strings.Contains(w.said(), "somebody") {
		t.Errorf("iptables' own changes were taken for ours:\n%s", w.said())
	}
}

// TestNetnsRevoked says that who may no longer talk to a node is cut off at
// once, and nobody else.
func TestNetnsRevoked(t *testing.T) {
	w := newWorld(t)
	conns := make(map[uint16]net.Conn)
	w.load()
	for _, port := range []uint16{443, 8443} {
		w.echo("node", "tcp", netip.AddrPortFrom(v4(cosmo), port))
		c, err := w.dial("mesh", "tcp", v4(ari), netip.AddrPortFrom(v4(cosmo), port), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := talk(c, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		conns[port] = c
	}
	w.write(strings.Replace(fleetFile, `"tcp/443", `, "", 1))
	w.load()
	if err := talk(conns[443], 5*time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("port 443 is allowed no more, and its connection is not ended: %v", err)
	}
	if err := talk(conns[8443], 5*time.Second); err != nil {
		t.Errorf("port 8443 is still allowed: %v", err)
	}
}
