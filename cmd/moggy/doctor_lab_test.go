package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/doctor"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// TestLabDoctor breaks machines one way after the other: the verdict names what
// was broken, and is well again once it is mended. Clocks are table-tested in
// package doctor: the machines of a lab share that of this box.
func TestLabDoctor(t *testing.T) {
	o := newOperator(t, "test-doctor", filepath.Join("testdata", "doctor.hcl"))
	o.must("lab", "up", "--name", o.lab)
	t.Run("before the first apply", func(t *testing.T) {
		o := o.with(t)
		o.diagnosed(o.doctor(1), doctor.Member, "not in the fleet yet", "one", "two", "three")
	})
	o.mustRemote("apply", "--yes", "--accept-new")
	o.until("doctor finds nothing", func() bool { return o.remote("doctor").code == 0 })
	for _, fault := range doctorFaults() {
		t.Run(fault.name, func(t *testing.T) {
			o := o.with(t)
			fault.make(o)
			var r doctor.Report
			started := time.Now()
			for deadline := started.Add(20 * time.Second); ; { // a path that ends is not noticed at once
				r = o.doctor(-1)
				if !r.Healthy && r.Causes[0].Probe == fault.probe || time.Now().After(deadline) {
					break
				}
			}
			o.diagnosed(r, fault.probe, fault.says, fault.nodes...)
			t.Logf("%d ms: %s -> %s", r.TookMs, r.Verdict.Text, r.Verdict.Next)
			fault.mend(o)
			o.until("doctor finds nothing", func() bool { return o.remote("doctor").code == 0 })
		})
	}
	t.Run("one node", func(t *testing.T) {
		r := o.with(t).mustRemote("doctor", "three")
		for _, want := range []string{"  + host key ", "  + agent ", "verdict: "} {
			if !strings.Contains(r.out, want) {
				t.Errorf("doctor three does not say %q:\n%s", want, r.out)
			}
		}
	})
}

// doctor runs moggy doctor; code is what it must exit with, or -1.
func (o *operator) doctor(code int) doctor.Report {
	o.t.Helper()
	res := o.remote("doctor", "--json")
	if code >= 0 && res.code != code {
		o.t.Errorf("doctor: exit code %d, want %d", res.code, code)
	}
	var r doctor.Report
	if err := json.Unmarshal([]byte(res.out), &r); err != nil {
		o.t.Fatalf("doctor --json: %v\n%s%s", err, res.out, res.err)
	}
	if healthy := res.code == 0; r.Healthy != healthy {
		o.t.Errorf("doctor: exit code %d, healthy %v", res.code, r.Healthy)
	}
	return r
}

// diagnosed holds the first cause to a probe on nodes, and the verdict to words.
func (o *operator) diagnosed(r doctor.Report, probe doctor.Name, says string, nodes ...fleet.NodeName) {
	o.t.Helper()
	if r.Healthy || r.Causes[0].Probe != probe || !slices.Equal(r.Causes[0].Nodes, nodes) {
		o.t.Errorf("found %+v, want %s of %s", r.Causes, probe, nodes)
	}
	if !strings.Contains(r.Verdict.Text, says) || r.Verdict.Next == "" {
		o.t.Errorf("verdict %+v, want it to say %q and a next command", r.Verdict, says)
	}
}

// shell runs a line at a machine's own keyboard.
func (o *operator) shell(node, line string) {
	o.t.Helper()
	if r := o.at(node, "sh", "-ec", line); r.code != 0 {
		o.t.Fatalf("%s: %s: exit code %d\n%s%s", node, line, r.code, r.out, r.err)
	}
}

type doctorFault struct {
	name       string
	make, mend func(*operator)
	probe      doctor.Name
	nodes      []fleet.NodeName
	says       string
}

func doctorFaults() []doctorFault {
	at := func(node, line string) func(*operator) { return func(o *operator) { o.shell(node, line) } }
	lab := func(args ...string) func(*operator) {
		return func(o *operator) { o.must(append([]string{"lab", args[0], "--name", o.lab}, args[1:]...)...) }
	}
	nft := func(node string, rules ...string) func(*operator) {
		return func(o *operator) {
			o.t.Helper()
			for _, rule := range rules {
				args := append([]string{"netns", "exec", "moggy-" + o.lab + "-node-" + node, "nft"}, strings.Fields(rule)...)
				if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
					o.t.Fatalf("nft %s: %v\n%s", rule, err, out)
				}
			}
		}
	}
	three := []fleet.NodeName{"three"}
	return []doctorFault{
		{
			"sshd is stopped", at("three", "systemctl stop ssh"), at("three", "systemctl start ssh"),
			doctor.TCP, three, "the machine is up: one, two reach it on the mesh",
		},
		{
			"another host key",
			at("three", "mkdir /root/k; mv /etc/ssh/ssh_host_* /root/k/; ssh-keygen -A; systemctl restart ssh"),
			at("three", "rm /etc/ssh/ssh_host_*; mv /root/k/* /etc/ssh/; systemctl restart ssh"),
			doctor.HostKey, three, "another host key",
		},
		{
			"the agent is stopped", at("three", "systemctl stop moggy-agent"), at("three", "systemctl start moggy-agent"),
			doctor.Agent, three, "moggy-agent.service is stopped",
		},
		{
			"somebody holds the mesh's port",
			at("three", "systemctl stop moggy-agent; systemd-run -q --unit=thief perl -MSocket -e 'socket(S, PF_INET, SOCK_DGRAM, 0) or die; bind(S, sockaddr_in(51877, INADDR_ANY)) or die; sleep'; "+
				"for i in $(seq 50); do grep -q :CAA5 /proc/net/udp && exit; sleep 0.1; done; exit 1"),
			at("three", "systemctl stop thief; systemctl start moggy-agent"),
			doctor.Ports, three, "is held by thief.service",
		},
		{
			"the mesh's port is blocked",
			nft("two", "add table inet wall", "add chain inet wall in { type filter hook input priority 0 ; }", "add chain inet wall out { type filter hook output priority 0 ; }",
				"add rule inet wall in udp dport 51877 drop", "add rule inet wall out udp sport 51877 drop"),
			nft("two", "delete table inet wall"),
			doctor.AllHubs, nil, "two: its agent runs, but nobody reaches it",
		},
		{
			"the disk is full",
			at("three", "mount -t tmpfs -o size=160m,mode=711 tmpfs /mnt; cp -a /var/lib/moggy/. /mnt/; mount --bind /mnt /var/lib/moggy; dd if=/dev/zero of=/var/lib/moggy/ballast bs=1M 2>/dev/null || true"),
			at("three", "umount -l /var/lib/moggy; umount -l /mnt"),
			doctor.Disk, three, "/var/lib/moggy is full",
		},
		{
			"a file is changed by hand", at("three", "chmod 600 $(readlink -f /etc/moggy/mesh.json)"), at("three", "chmod 644 $(readlink -f /etc/moggy/mesh.json)"),
			doctor.Drift, three, "mesh.json has other permissions",
		},
		{
			"the operator's own line", lab("cut", "operator"), lab("heal", "operator"),
			doctor.Network, nil, "it is your own network",
		},
		{
			"a node is off", lab("fail", "three"), lab("heal", "three"),
			doctor.TCP, three, "no node reaches it on the mesh: it is off",
		},
	}
}
