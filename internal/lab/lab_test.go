package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab"
	"github.com/moggyfleet/moggy/internal/lab/labtest"
	"github.com/moggyfleet/moggy/internal/lab/machine"
)

// homes has the pairs that are hard to wire: public to home, home to home with
// and without IPv6, two in one home, carriers.
const homes = `
fleet "homes" {}
site "rack" { kind = "datacenter" }
site "attic" { kind = "datacenter" }
site "london" {
  kind = "home"
  nat  = "cgnat"
}
site "madrid" {
  kind = "home"
  nat  = "cgnat"
  ipv6 = false
}
node "cosmo" {
  site   = site.rack
  public = ["198.51.100.11", "2001:db8:c0::11"]
}
node "miki" {
  site   = site.attic
  public = ["203.0.113.21"]
}
node "maco" {
  site   = site.attic
  public = ["9.1.2.3", "2001:db8:e1::22"]
}
node "ari"    { site = site.london }
node "ziggy"  { site = site.london }
node "bianco" { site = site.madrid }
node "nube"   { site = site.madrid }
`

// small boots fastest.
const small = `
fleet "small" {}
site "rack" { kind = "datacenter" }
site "home" { kind = "home" }
node "hub" {
  site   = site.rack
  public = ["198.51.100.11", "2001:db8:c0::11"]
}
node "box" {
  site = site.home
  ssh  = "nico@203.0.113.77:2201"
}
`

// TestLab puts one lab through everything that leaves it as it was.
func TestLab(t *testing.T) {
	l := labtest.Up(t, labtest.Fleet(t, homes))
	t.Run("machines", func(t *testing.T) { testMachines(t, l) })
	t.Run("keyboard", func(t *testing.T) { testKeyboard(t, l) })
	t.Run("operator", func(t *testing.T) { testOperator(t, l) })
	t.Run("packages", func(t *testing.T) { testPackages(t, l) })
	t.Run("ways", func(t *testing.T) { testWays(t, l) })
	t.Run("ipv6", func(t *testing.T) { testIPv6(t, l) })
	t.Run("nat", func(t *testing.T) { testNAT(t, l) })
	t.Run("punching", func(t *testing.T) { testPunching(t, l) })
	t.Run("faults", func(t *testing.T) { testFaults(t, l) })
	t.Run("fail and heal", func(t *testing.T) { testFailHeal(t, l) })
	t.Run("reboot", func(t *testing.T) { testReboot(t, l) })
	t.Run("up again", func(t *testing.T) { testUpAgain(t, l) })
	t.Run("drill", func(t *testing.T) { testDrill(t, l) })
}

func testMachines(t *testing.T, l *lab.Lab) {
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range st.Nodes {
		if !n.On {
			t.Errorf("%s is off", n.Node)
		}
		if got := labtest.Exec(t, l, n.Node, "hostname"); got != string(n.Node) {
			t.Errorf("%s calls itself %q", n.Node, got)
		}
		if got := labtest.Exec(t, l, n.Node, "systemctl", "--failed", "--no-legend"); got != "" {
			t.Errorf("%s: failed units: %s", n.Node, got)
		}
		if got := labtest.Exec(t, l, n.Node, "sh", "-c", "command -v nft wg; true"); got != "" {
			t.Errorf("%s has %q already, so no first contact would install it", n.Node, got)
		}
	}
	link := labtest.Exec(t, l, "ari", "ip", "-o", "link", "show", "eth0")
	if !strings.Contains(link, "mtu 1500") {
		t.Errorf("eth0: %s", link)
	}
	// What a machine may not touch: the kernel's settings are this box's.
	if out, code := labtest.TryExec(t, l, "ari", "sh", "-c", "echo 1 >/proc/sys/kernel/sysrq"); code == 0 {
		t.Errorf("a machine could change this box's settings: %s", out)
	}
	labtest.Exec(t, l, "ari", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	labtest.Exec(t, l, "ari", "sh", "-c", "exec 3<>/dev/net/tun")
}

func testKeyboard(t *testing.T, l *lab.Lab) {
	var out strings.Builder
	code, err := l.Exec(t.Context(), "bianco", []string{"sh", "-c", "cat; pwd; env | sort; exit 7"},
		lab.Stdio{In: strings.NewReader("typed\n"), Out: &out, Err: &out})
	if err != nil || code != 7 {
		t.Errorf("exit code %d, %v; want 7", code, err)
	}
	if !strings.HasPrefix(out.String(), "typed\n/root\n") {
		t.Errorf("stdin, directory: %q", out.String())
	}
	if strings.Contains(out.String(), "MOGGY") || strings.Contains(out.String(), "SSH_") {
		t.Errorf("the caller's environment got in: %q", out.String())
	}
	file := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho carried\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := l.Copy(t.Context(), file, "bianco", "/root/tool"); err != nil {
		t.Fatal(err)
	}
	if got := labtest.Exec(t, l, "bianco", "/root/tool"); got != "carried" {
		t.Errorf("the copied tool says %q", got)
	}
	if err := l.Copy(t.Context(), file, "bianco", "/no/such/place"); err == nil {
		t.Error("a copy to a directory that is not there was no error")
	}
	if _, err := l.Exec(t.Context(), "nobody", []string{"true"}, lab.Stdio{}); err == nil || len(hint.All(err)) == 0 {
		t.Errorf("an unknown node: %v, %d hints", err, len(hint.All(err)))
	}
}

func testOperator(t *testing.T, l *lab.Lab) {
	out, code := labtest.Run(t, l, "", "sh", "-c", "ip -br address show eth0; ssh-add -l; pwd; exit 5")
	if code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"192.0.2.10", "2001:db8::10", "owner of lab", dir} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the operator's place: %s", want, out)
		}
	}
	if out, code = labtest.Run(t, l, "", "sh", "-c", "kill -TERM $$"); code != 128+15 {
		t.Errorf("a command ended by SIGTERM gave %d: %s", code, out)
	}
	ssh := []string{"ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}
	for from, to := range map[fleet.SiteName]string{"": "198.51.100.11", "london": "192.168.1.12", "rack": "9.1.2.3", "madrid": "203.0.113.21"} {
		out, code := labtest.Run(t, l, from, append(ssh, "root@"+to, "hostname")...)
		if want := map[string]string{"198.51.100.11": "cosmo", "192.168.1.12": "ziggy", "9.1.2.3": "maco", "203.0.113.21": "miki"}[to]; out != want {
			t.Errorf("ssh from %q to %s: %q (%d), want %q", from, to, out, code, want)
		}
	}
	var said strings.Builder
	code, err = l.SSH(t.Context(), "bianco", []string{"hostname"}, lab.Stdio{In: strings.NewReader(""), Out: &said, Err: &said})
	if err != nil || code != 0 || strings.TrimSpace(said.String()) != "bianco" {
		t.Errorf("lab ssh bianco: %q, %d, %v", said.String(), code, err)
	}
	if entries, _ := filepath.Glob("/run/moggy-lab/" + l.Name() + "/agent-*"); len(entries) > 0 {
		t.Errorf("agents left: %v", entries)
	}
}

func testPackages(t *testing.T, l *lab.Lab) {
	for _, n := range []fleet.NodeName{"bianco", "cosmo", "nube"} {
		labtest.Exec(t, l, n, "apt-get", "-q", "update")
		labtest.Exec(t, l, n, "sh", "-c", "DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends nftables wireguard-tools && nft list ruleset && wg show")
	}
}

// reaches says whether a TCP connection from a node gets anywhere.
func reaches(t *testing.T, l *lab.Lab, from fleet.NodeName, to string) bool {
	t.Helper()
	err := l.Within(from, func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(to, "22"), 700*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	})
	return err == nil
}

func testWays(t *testing.T, l *lab.Lab) {
	for _, c := range []struct {
		from fleet.NodeName
		to   string
		want bool
	}{
		{"cosmo", "203.0.113.21", true},  // rack to rack
		{"miki", "9.1.2.3", true},        // neighbours in a rack
		{"ari", "198.51.100.11", true},   // home to rack
		{"bianco", "9.1.2.3", true},      // any public address, also a foreign one
		{"ari", "192.168.1.12", true},    // neighbours at home
		{"cosmo", "192.0.2.104", false},  // rack to whom the carrier translates
		{"cosmo", "192.168.1.11", false}, // the internet knows no private addresses
		{"ari", "8.8.8.8", false},        // nor real ones
		{"bianco", "192.0.2.80", false},  // the mirror has no sshd
		{"cosmo", "100.64.2.2", false},   // nor the carriers' own
	} {
		if got := reaches(t, l, c.from, c.to); got != c.want {
			t.Errorf("%s to %s: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

func testIPv6(t *testing.T, l *lab.Lab) {
	if out := labtest.Exec(t, l, "bianco", "ip", "-6", "address", "show", "dev", "eth0"); out != "" {
		t.Errorf("a site without IPv6 has some: %s", out)
	}
	labtest.Exec(t, l, "bianco", "sh", "-c", "test $(cat /proc/sys/net/ipv6/conf/default/disable_ipv6) = 0") // a mesh may have it
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v6 := map[fleet.NodeName]string{}
	for _, n := range st.Nodes {
		for _, a := range n.Inside {
			if a.Is6() {
				v6[n.Node] = a.String()
			}
		}
	}
	if !reaches(t, l, "ari", v6["cosmo"]) {
		t.Error("a home does not reach a rack over IPv6")
	}
	if reaches(t, l, "cosmo", v6["ari"]) {
		t.Error("a home router let an IPv6 connection in that nobody asked for")
	}
	if !reaches(t, l, "ziggy", v6["ari"]) {
		t.Error("neighbours at home do not reach each other over IPv6")
	}
}

// socket opens a UDP socket in a machine.
func socket(t *testing.T, l *lab.Lab, node fleet.NodeName, port int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := l.Within(node, func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// seen sends from one socket to another and returns where it came from.
func seen(t *testing.T, from, at *net.UDPConn, to netip.AddrPort) (netip.AddrPort, bool) {
	t.Helper()
	text := fmt.Sprint(time.Now().UnixNano())
	if _, err := from.WriteToUDPAddrPort([]byte(text), to); err != nil {
		return netip.AddrPort{}, false
	}
	if err := at.SetReadDeadline(time.Now().Add(400 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for {
		buf := make([]byte, 100)
		n, src, err := at.ReadFromUDPAddrPort(buf)
		if err != nil {
			return netip.AddrPort{}, false
		}
		if string(buf[:n]) == text {
			return netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), true
		}
	}
}

func testNAT(t *testing.T, l *lab.Lab) {
	a, b := socket(t, l, "cosmo", 7000), socket(t, l, "miki", 7000)
	ap, bp := netip.MustParseAddrPort("198.51.100.11:7000"), netip.MustParseAddrPort("203.0.113.21:7000")
	mapping := func() (netip.AddrPort, netip.AddrPort) {
		s := socket(t, l, "ari", 0)
		x, okA := seen(t, s, a, ap)
		y, okB := seen(t, s, b, bp)
		if !okA || !okB {
			t.Fatalf("ari's packets do not arrive: %v %v", okA, okB)
		}
		return x, y
	}
	x, y := mapping()
	if x != y || x.Addr() != netip.MustParseAddr("192.0.2.104") {
		t.Errorf("behind a cone NAT two peers see %s and %s; want the carrier's address, and one port", x, y)
	}
	if err := l.NAT(t.Context(), "ari", lab.Symmetric); err != nil {
		t.Fatal(err)
	}
	if x, y = mapping(); x.Port() == y.Port() || x.Addr() != y.Addr() {
		t.Errorf("behind a symmetric NAT two peers see %s and %s; want two ports of one address", x, y)
	}
	s := socket(t, l, "ziggy", 0)
	x, _ = seen(t, s, a, ap)
	if y, _ = seen(t, s, b, bp); x != y || !x.IsValid() {
		t.Errorf("ari's neighbour got a symmetric NAT too: %s, %s", x, y)
	}
	if err := l.NAT(t.Context(), "london", lab.Cone); err != nil {
		t.Fatal(err)
	}
	if x, y = mapping(); x != y {
		t.Errorf("a cone NAT again, but %s and %s", x, y)
	}
	if err := l.NAT(t.Context(), "cosmo", lab.Symmetric); err == nil {
		t.Error("a machine without NAT was given one")
	}
	if err := l.NAT(t.Context(), "ari", "conical"); err == nil {
		t.Error("an unknown kind of NAT was no error")
	}
}

// punched opens a hole between two machines behind carriers, as a mesh would,
// and says whether packets go through both ways.
func punched(t *testing.T, l *lab.Lab, x, y fleet.NodeName, port int) (there, back bool) {
	t.Helper()
	outside := map[fleet.NodeName]string{"ari": "192.0.2.104", "ziggy": "192.0.2.104", "bianco": "192.0.2.105", "nube": "192.0.2.105"}
	at := func(n fleet.NodeName) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(outside[n]), uint16(port))
	}
	a, b := socket(t, l, x, port), socket(t, l, y, port)
	defer a.Close()
	defer b.Close()
	seen(t, a, b, at(y)) // arrives nowhere, but opens the way back
	_, back = seen(t, b, a, at(x))
	_, there = seen(t, a, b, at(y))
	return there, back
}

func testPunching(t *testing.T, l *lab.Lab) {
	if there, back := punched(t, l, "ari", "bianco", 7100); !there || !back {
		t.Errorf("two carriers with cone NATs cannot be punched through: %v %v", there, back)
	}
	if err := l.NAT(t.Context(), "bianco", lab.Symmetric); err != nil {
		t.Fatal(err)
	}
	if there, back := punched(t, l, "ari", "bianco", 7101); there || back {
		t.Errorf("a symmetric NAT was punched through: %v %v", there, back)
	}
	if err := l.NAT(t.Context(), "bianco", lab.Cone); err != nil {
		t.Fatal(err)
	}
}

func testFaults(t *testing.T, l *lab.Lab) {
	cut := func(a, b string) {
		t.Helper()
		if err := l.Lose(t.Context(), a, b, 1000); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want map[string]bool) {
		t.Helper()
		got := map[string]bool{}
		for pair := range want {
			from, to, _ := strings.Cut(pair, " ")
			got[pair] = reaches(t, l, fleet.NodeName(from), to)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	cut("ari", "cosmo")
	check("ari and cosmo cut", map[string]bool{
		"ari 198.51.100.11": false, "ari 2001:db8:c0::11": false, "ziggy 198.51.100.11": true, "ari 203.0.113.21": true,
	})
	cut("ari", "ziggy")
	cut("miki", "maco")
	check("neighbours cut", map[string]bool{"ari 192.168.1.12": false, "ari 203.0.113.21": true, "miki 9.1.2.3": false, "cosmo 9.1.2.3": true})
	cut("ari", "bianco")
	for i, c := range []struct {
		x, y fleet.NodeName
		want bool
	}{{"ari", "bianco", false}, {"ari", "nube", true}, {"ziggy", "bianco", true}} {
		if there, back := punched(t, l, c.x, c.y, 7200+i); there != c.want || back != c.want {
			t.Errorf("ari and bianco cut, behind two shared addresses: %s and %s: %v %v, want %v", c.x, c.y, there, back, c.want)
		}
	}
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"cut cosmo", "cut ziggy", "cut bianco"}; !cmp.Equal(want, st.Nodes[3].Faults) {
		t.Errorf("status of ari: %v, want %v", st.Nodes[3].Faults, want)
	}
	if err := l.Heal(t.Context(), "ari", labtest.Progress{T: t}); err != nil {
		t.Fatal(err)
	}
	if err := l.HealBetween(t.Context(), "maco", "miki"); err != nil {
		t.Fatal(err)
	}
	check("healed", map[string]bool{"ari 198.51.100.11": true, "ari 192.168.1.12": true, "miki 9.1.2.3": true})
	cut("london", "")
	check("london's line cut", map[string]bool{"ari 198.51.100.11": false, "ari 192.168.1.12": true})
	cut("operator", "cosmo")
	if out, code := labtest.Run(t, l, "", "ping", "-c1", "-W1", "198.51.100.11"); code == 0 {
		t.Errorf("the operator still reaches cosmo: %s", out)
	}
	for _, name := range []string{"london", "cosmo"} {
		if err := l.Heal(t.Context(), name, labtest.Progress{T: t}); err != nil {
			t.Fatal(err)
		}
	}
	testLoss(t, l)
	if err := l.Lose(t.Context(), "ari", "ari", 1000); err == nil {
		t.Error("a node was cut from itself")
	}
}

func testLoss(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.Lose(t.Context(), "cosmo", "miki", 300); err != nil {
		t.Fatal(err)
	}
	a, b := socket(t, l, "cosmo", 7300), socket(t, l, "miki", 7300)
	const sent, batch = 1000, 100 // a batch fits the socket's buffer
	arrived := 0
	for range sent / batch {
		for range batch {
			if _, err := a.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort("203.0.113.21:7300")); err != nil {
				t.Fatal(err)
			}
		}
		for buf := make([]byte, 10); ; arrived++ {
			if err := b.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := b.ReadFromUDPAddrPort(buf); err != nil {
				break
			}
		}
	}
	// Six standard deviations of a binomial distribution.
	if arrived < 700-87 || arrived > 700+87 {
		t.Errorf("of %d packets at 30 %% loss %d arrived", sent, arrived)
	}
	if err := l.Lose(t.Context(), "miki", "cosmo", 0); err != nil {
		t.Fatal(err)
	}
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range st.Nodes {
		if len(n.Faults) > 0 {
			t.Errorf("%s: %v", n.Node, n.Faults)
		}
	}
}

func testFailHeal(t *testing.T, l *lab.Lab) {
	card := labtest.Exec(t, l, "nube", "cat", "/sys/class/net/eth0/address")
	router := labtest.Exec(t, l, "bianco", "sh", "-c", "ping -qc1 192.168.1.1 >/dev/null; ip neigh show 192.168.1.1 | cut -d' ' -f5")
	labtest.Exec(t, l, "nube", "sh", "-c", "echo kept >/root/kept; echo gone >/run/gone; ip tuntap add wg0 mode tun; nft add table inet mine")
	if err := l.Fail(t.Context(), "nube"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Exec(t.Context(), "nube", []string{"true"}, lab.Stdio{}); !errors.Is(err, machine.ErrOff) || len(hint.All(err)) != 1 {
		t.Errorf("exec in a machine that is off: %v, hints %v", err, hint.All(err))
	}
	if reaches(t, l, "bianco", "192.168.1.12") {
		t.Error("nube still answers")
	}
	if err := l.Fail(t.Context(), "nube"); err != nil {
		t.Errorf("pulled the plug twice: %v", err)
	}
	if err := l.Heal(t.Context(), "nube", labtest.Progress{T: t}); err != nil {
		t.Fatal(err)
	}
	if got := labtest.Exec(t, l, "nube", "sh", "-c", "cat /root/kept; ls /run/gone 2>/dev/null; nft list tables"); got != "kept" {
		t.Errorf("after a power cut: %q, want only what was on the disk", got)
	}
	if !reaches(t, l, "bianco", "192.168.1.12") {
		t.Error("nube does not answer after it was healed")
	}
	if got := labtest.Exec(t, l, "nube", "ip", "-br", "link", "show", "eth0"); !strings.Contains(got, card) {
		t.Errorf("nube came back with another network card: %q, it had %q", got, card)
	}
	if got := labtest.Exec(t, l, "bianco", "ip", "neigh", "show", "192.168.1.1"); !strings.Contains(got, router) || router == "" {
		t.Errorf("the router changed its address when a port came and went: %q, it was %q", got, router)
	}
}

// testReboot has a machine reboot itself: it comes back, with its disk and
// without what its kernel held.
func testReboot(t *testing.T, l *lab.Lab) {
	labtest.Exec(t, l, "nube", "sh", "-c", "nft add table inet mine; ip tuntap add wg0 mode tun; ip rule add pref 5 table 5")
	boot := labtest.Exec(t, l, "nube", "cat", "/proc/sys/kernel/random/boot_id")
	labtest.Exec(t, l, "nube", "systemctl", "reboot", "--no-block")
	waitFor(t, "nube to be back", func() bool {
		var out strings.Builder
		code, err := l.Exec(t.Context(), "nube", []string{"cat", "/proc/sys/kernel/random/boot_id"}, lab.Stdio{Out: &out})
		return err == nil && code == 0 && strings.TrimSpace(out.String()) != boot && out.Len() > 0 && reaches(t, l, "bianco", "192.168.1.12")
	})
	if got := labtest.Exec(t, l, "nube", "sh", "-c", "cat /root/kept; nft list tables; ip link show wg0 2>/dev/null; ip rule | grep ^5: || true"); got != "kept" {
		t.Errorf("after a reboot: %q", got)
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func testUpAgain(t *testing.T, l *lab.Lab) {
	if err := l.Fail(t.Context(), "miki"); err != nil {
		t.Fatal(err)
	}
	took, err := l.Up(t.Context(), labtest.Fleet(t, homes), labtest.Progress{T: t})
	if err != nil || took.Fresh || took.Booted != 1 {
		t.Errorf("up on a lab that is up: %+v, %v; want one machine booted", took, err)
	}
	const more = homes + `
site "annex" {
  kind = "home"
}
node "gato" { site = site.madrid }
node "tom"  { site = site.annex }
node "felix" {
  site   = site.rack
  public = ["198.51.100.19"]
}
`
	took, err = l.Up(t.Context(), labtest.Fleet(t, more), labtest.Progress{T: t})
	if err != nil || took.Fresh || took.Booted != 3 {
		t.Errorf("up with three nodes more: %+v, %v", took, err)
	}
	for from, to := range map[fleet.NodeName]string{"gato": "198.51.100.19", "tom": "198.51.100.19", "felix": "203.0.113.21", "bianco": "192.168.1.13"} {
		if !reaches(t, l, from, to) {
			t.Errorf("%s does not reach %s", from, to)
		}
	}
	if _, err := l.Up(t.Context(), labtest.Fleet(t, small), labtest.Progress{T: t}); err == nil || len(hint.All(err)) == 0 {
		t.Errorf("up with another fleet: %v", err)
	}
	if got := labtest.Exec(t, l, "miki", "hostname"); got != "miki" {
		t.Errorf("miki is %q", got)
	}
}

func testDrill(t *testing.T, l *lab.Lab) {
	addrs := map[fleet.NodeName]netip.Addr{
		"cosmo": netip.MustParseAddr("198.51.100.11"), "miki": netip.MustParseAddr("203.0.113.21"),
		"maco": netip.MustParseAddr("9.1.2.3"),
	}
	d, err := l.Drill(t.Context(), addrs, []fleet.NodeName{"maco"}, labtest.Progress{T: t})
	if err != nil {
		t.Fatal(err)
	}
	if !d.Passed() || len(d.Rounds) != 1 || d.Rounds[0].Pairs != 2 || time.Duration(d.Rounds[0].Silence) > time.Second {
		t.Errorf("maco failed, which nobody needs: %+v", d)
	}
	text, err := json.Marshal(d)
	if err != nil || !strings.Contains(string(text), `"back_s":`) {
		t.Errorf("%s, %v", text, err)
	}
	if err := l.Lose(t.Context(), "cosmo", "miki", 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Drill(t.Context(), addrs, nil, labtest.Progress{T: t}); err == nil {
		t.Error("a drill of a fleet that is broken already was no error")
	}
	if err := l.HealBetween(t.Context(), "cosmo", "miki"); err != nil {
		t.Fatal(err)
	}
}
