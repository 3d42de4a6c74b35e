package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const closing = `fleet "closing" {
  operators = { nico = "ssh-ed25519 AAAA" }
}
site "rack" { kind = "datacenter" }
node "hub" {
  site   = site.rack
  public = ["198.51.100.11", "2001:db8:c0::11"]
}
node "web" {
  site   = site.rack
  public = ["198.51.100.12", "2001:db8:c0::12"]
  hub    = false
}
node "ari" {
  site   = site.rack
  public = ["198.51.100.13", "2001:db8:c0::13"]
  hub    = false
}
`

const allowWeb = `
allow "web" {
  from  = [node.ari]
  to    = [node.web]
  ports = ["tcp/8080"]
}
`

// TestLabAllow closes a node but for one port and one other node, by an apply;
// keeps it so against nftables' own unit; and opens it again.
func TestLabAllow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fleet.hcl")
	if err := os.WriteFile(file, []byte(closing), 0o644); err != nil {
		t.Fatal(err)
	}
	o := newOperator(t, "test-allow", file)
	o.must("lab", "up", "--name", o.lab)
	o.mustRemote("apply", "--yes", "--accept-new")
	v4, v6 := o.address("web")
	o.sh("web", "systemd-run -q /usr/sbin/sshd -D -p 8080; systemd-run -q /usr/sbin/sshd -D -p 8081")
	reaches := func(from, to string, port int) bool {
		return strings.Contains(o.at(from, "timeout", "5", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d; head -c3 <&3", to, port)).out, "SSH")
	}
	o.until("the open node answers", func() bool { return reaches("ari", v4, 8081) && reaches("hub", v6, 8080) })
	if r := o.at("web", "systemctl", "cat", "moggy-firewall"); r.code == 0 {
		t.Error("without an allow block there is a unit for one")
	}

	o.edit(func(file string) string { return file + allowWeb })
	o.mustRemote("apply", "--yes")
	judged := func(when string) {
		t.Helper()
		for _, addr := range []string{v4, v6} {
			for _, c := range []struct {
				from string
				port int
				want bool
			}{{"ari", 8080, true}, {"ari", 8081, false}, {"ari", 22, false}, {"hub", 8080, false}, {"hub", 22, true}} {
				if got := reaches(c.from, addr, c.port); got != c.want {
					t.Errorf("%s: %s reaches %s port %d: %v, want %v", when, c.from, addr, c.port, got, c.want)
				}
			}
		}
	}
	judged("after apply")
	if r := o.at("hub", "systemctl", "cat", "moggy-firewall"); r.code == 0 {
		t.Error("a node that no allow leads to has the unit")
	}
	if d := o.plan(0); d.Changes {
		t.Errorf("there is something to do still: %+v", d.Nodes)
	}
	if uid := strings.Fields(o.sh("web", "grep -E '^(Uid|CapEff|CapBnd)' /proc/$(systemctl show -P MainPID moggy-firewall)/status")); uid[1] == "0" || uid[6] != "0000000000001000" || uid[8] != "0000000000001000" {
		t.Errorf("the firewall may more than CAP_NET_ADMIN: %v", uid)
	}

	o.sh("web", "systemctl restart nftables")
	o.until("the rules are back", func() bool { return o.at("web", "nft", "list", "table", "inet", "moggy").code == 0 })
	judged("after nftables' own unit has emptied the rules")

	o.edit(func(file string) string { return strings.Replace(file, `"tcp/8080"`, `"tcp/8080", "tcp/8081"`, 1) })
	pid := o.sh("web", "systemctl show -P MainPID moggy-firewall")
	o.mustRemote("apply", "--yes")
	if !reaches("ari", v4, 8081) || reaches("hub", v4, 8081) {
		t.Error("the port that was added is not judged as it should be")
	}
	if now := o.sh("web", "systemctl show -P MainPID moggy-firewall"); now != pid {
		t.Error("other rules restarted the unit: it should reload them")
	}

	left := o.sh("web", "for i in $(seq 20); do systemctl stop moggy-firewall; nft list tables; systemctl start moggy-firewall; done")
	if n := strings.Count(left, "inet moggy"); n > 0 {
		t.Errorf("stopped 20 times, the firewall left its table behind %d times", n)
	}
	o.edit(func(file string) string { return strings.Split(file, "\nallow ")[0] })
	o.mustRemote("apply", "--yes")
	if !reaches("hub", v4, 8080) {
		t.Error("without an allow block the node is closed still")
	}
	if o.at("web", "nft", "list", "table", "inet", "moggy").code == 0 {
		t.Error("the table stays when the last allow block goes")
	}
}
