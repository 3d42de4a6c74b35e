package mesh

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// TestNetnsPlainWireGuard has the unmodified wireguard-go, set up by wg(8), for a
// phone behind a NAT: it talks to any node by way of a hub, and they to it; it roams,
// and moves to another hub with the same profile but for the address.
func TestNetnsPlainWireGuard(t *testing.T) {
	stock := filepath.Join(t.TempDir(), "wireguard-go")
	if out, err := exec.Command("go", "build", "-o", stock, "golang.zx2c4.com/wireguard").CombinedOutput(); err != nil {
		t.Fatalf("wireguard-go: %v\n%s", err, out)
	}
	w, hub1, hub2, ari, bianco := cats(t)
	gateway, own := newTestKey(t), newTestKey(t)
	phone := &machine{w: w, name: "phone", node: fleet.MeshNode{V4: netip.MustParseAddr("10.77.1.1"), V6: netip.MustParseAddr("fd77::101")}}
	w.conf.Gateway = &fleet.Gateway{Key: gateway.Public(), Port: 51820}
	w.conf.Devices = []fleet.Device{{Name: "phone", Key: own.Public(), V4: phone.node.V4, V6: phone.node.V6}}
	for _, hub := range []*machine{hub1, hub2} {
		if err := os.WriteFile(filepath.Join(hub.dir, "gateway.key"), gateway.Encode(), 0o600); err != nil {
			t.Fatal(err)
		}
		w.Sh(hub.name, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	}
	w.startAll()

	w.home("cafe", "203.0.113.103", "")
	w.Add("phone")
	w.Run("ip", "link", "add", "eth0", "netns", w.Name("phone"), "type", "veth", "peer", "name", "lphone", "netns", w.Name("cafe"))
	w.Sh("cafe", "ip link set lphone master lan up")
	w.Sh("phone", "ip link set eth0 up; ip addr add 192.168.1.20/24 dev eth0; ip route add default via 192.168.1.1")
	phone.ns = w.Name("phone")
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, own.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	dev := "wg" + strings.ReplaceAll(w.Name(""), "-", "") // its socket is not apart by namespace
	cmd := exec.Command("ip", "netns", "exec", phone.ns, stock, "-f", dev)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.Remove("/var/run/wireguard/" + dev + ".sock")
	})
	w.wait("wireguard-go is there", 5*time.Second, func() bool {
		return exec.Command("ip", "netns", "exec", phone.ns, "wg", "show", dev).Run() == nil
	})
	peer := gateway.Public().String()
	at := func(hub string) { // as a client does that connects anew; else WireGuard tries the old session for 15 s
		w.Sh("phone", "wg set "+dev+" peer "+peer+" remove; wg set "+dev+" private-key "+key+" peer "+peer+" endpoint "+hub+":51820 allowed-ips 10.77.0.0/16,fd77::/48")
	}
	at("203.0.113.11")
	w.Sh("phone", "ip link set "+dev+" up mtu 1280; ip addr add 10.77.1.1/32 dev "+dev+"; ip -6 addr add fd77::101/128 dev "+dev+
		" nodad; ip route add 10.77.0.0/16 dev "+dev+"; ip -6 route add fd77::/48 dev "+dev)

	talk := func(when string) {
		t.Helper()
		begin := time.Now()
		var all sync.WaitGroup
		reach := func(from, to *machine, addr netip.Addr) {
			all.Go(func() {
				for lost, out := 1, ""; lost > 0; {
					if lost, out = from.ping(addr, 1, "0.2"); lost > 0 && time.Since(begin) > 8*slack*time.Second {
						t.Errorf("%s: %s does not reach %s:\n%s", when, from.name, to.name, out)
						return
					}
				}
			})
		}
		for _, m := range []*machine{hub1, hub2, ari, bianco} {
			reach(phone, m, m.node.V4)
			reach(phone, m, m.node.V6)
			reach(m, phone, phone.node.V4)
			reach(m, phone, phone.node.V6)
		}
		all.Wait()
		t.Logf("%s: everybody reaches the phone, and it everybody, after %v", when, time.Since(begin))
	}
	talk("at hub1")
	w.Sh("phone", "wg set "+dev+" listen-port 5555")
	talk("from another port")
	at("203.0.113.12")
	talk("at hub2")
	if out := w.Run("ip", "netns", "exec", hub1.ns, "ip", "route", "get", "10.77.1.1"); strings.Contains(out, fleet.MeshInterface+"-gw") {
		t.Errorf("hub1 still has the phone: %s", out)
	}
	at("203.0.113.11")
	talk("back at hub1")

	w.conf.Devices = nil
	w.tell(hub1, hub2, ari, bianco)
	if lost, _ := phone.ping(hub1.node.V4, 3, "0.2"); lost < 3 {
		t.Errorf("the phone was removed, and %d of 3 pings are answered", 3-lost)
	}
}

func newTestKey(t *testing.T) wire.PrivateKey {
	t.Helper()
	k, err := wire.NewPrivateKey(randomReader{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}
