package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/labtest"
	"github.com/moggyfleet/moggy/internal/status"
)

const serving = `fleet "serving" {
  domain    = "cats.example"
  operators = { nico = "ssh-ed25519 AAAA" }
}
site "rack" { kind = "datacenter" }
site "barn" { kind = "datacenter" }
node "hub" {
  site   = site.rack
  public = ["198.51.100.11", "2001:db8:c0::11"]
}
node "ari" {
  site   = site.rack
  public = ["198.51.100.12", "2001:db8:c0::12"]
  hub    = false
}
node "ziggy" {
  site   = site.barn
  public = ["198.51.100.13", "2001:db8:c0::13"]
  hub    = false
}
service "web" {
  image  = "registry.cats.example/web:1.0"
  env    = { TITLE = "$HOME & \"cats\"" }
  port   = 8080
  count  = 2
  on     = [node.ari, node.ziggy]
  memory = "64M"
  health = "/healthz"
}
service "tool" {
  exec  = "./tool"
  args  = ["a b", "$HOME %h \"x\""]
  env   = { GREETING = "100% of $USER" }
  port  = 8081
  count = 3
}
service "counter" {
  image   = "ghcr.io/cats/counter:1.0"
  port    = 8082
  volumes = { data = "/data" }
  on      = [node.ari]
}
`

// tool is a web server that says what it was started with, in the one language
// that every Debian has.
const tool = `#!/usr/bin/perl
use strict; use IO::Socket::INET;
my $l = IO::Socket::INET->new(LocalAddr => $ENV{MOGGY_ADDRESS}, Listen => 16, ReuseAddr => 1) or die "listen: $!";
$| = 1; print "tool listens on $ENV{MOGGY_ADDRESS}\n";
while (my $c = $l->accept) {
  while (my $line = <$c>) { last if $line =~ /^\r?$/ }
  print $c "HTTP/1.0 200 OK\r\n\r\n$ENV{MOGGY_NODE}|$ENV{GREETING}|", join("|", @ARGV), "|$>\n"; close $c;
}
`

// TestLabServices runs programs and containers on three machines, changes them
// under requests, and breaks them in every way that an owner can.
func TestLabServices(t *testing.T) {
	labtest.Engines(t)
	file := filepath.Join(t.TempDir(), "fleet.hcl")
	if err := os.WriteFile(file, []byte(serving), 0o644); err != nil {
		t.Fatal(err)
	}
	o := newOperator(t, "test-services", file)
	o.write("tool", []byte(tool))
	o.must("lab", "up", "--name", o.lab)
	o.mustRemote("apply", "--yes", "--accept-new")
	o.serving()
	if t.Failed() {
		return
	}
	if d := o.plan(0); d.Changes {
		t.Errorf("there is something to do still: %+v", d.Nodes)
	}
	t.Run("as they are written", func(t *testing.T) { o.with(t).asWritten() })
	t.Run("nobody outside", func(t *testing.T) { o.with(t).nobodyOutside() })
	t.Run("logs", func(t *testing.T) { o.with(t).readLogs() })
	t.Run("a new version, one after the other", func(t *testing.T) { o.with(t).newVersion() })
	for _, bad := range []struct{ tag, says string }{
		{"9.9-sick", `check "service web is well": not within 30s: http://`},
		{"9.9-crash", "keeps crashing"},
	} {
		t.Run("a version that is "+bad.tag, func(t *testing.T) { o.with(t).badVersion("web:1.1", "web:"+bad.tag, bad.says) })
	}
	t.Run("an image that is not there", func(t *testing.T) {
		o.with(t).badVersion("web:1.1", "nothing:1.1", "image registry.cats.example/nothing:1.1")
	})
	t.Run("killed", func(t *testing.T) { o.with(t).killed() })
	t.Run("taken out", func(t *testing.T) { o.with(t).takenOut() })
}

// serving waits until every instance is well.
func (o *operator) serving() {
	o.t.Helper()
	o.until("every service is well", func() bool {
		for _, s := range o.summary().Services {
			if s.Well != s.Want {
				return false
			}
		}
		return true
	})
}

// get asks a service on a node from another.
func (o *operator) get(from, node string, port int) string {
	o.t.Helper()
	v4, _ := o.address(fleet.NodeName(node))
	return o.at(from, "curl", "-s", "-m", "5", fmt.Sprintf("http://%s:%d/", v4, port)).out
}

func (o *operator) asWritten() {
	if got := o.get("hub", "ari", 8080); !strings.Contains(got, `$HOME &amp; &#34;cats&#34;`) || !strings.Contains(got, "version 1.0, on ari") {
		o.t.Errorf("the container says\n%s", got)
	}
	for _, node := range []string{"hub", "ari", "ziggy"} {
		got := strings.Split(strings.TrimSpace(o.get("ari", node, 8081)), "|")
		if len(got) != 5 || got[0] != node || got[1] != "100% of $USER" || got[2] != "a b" || got[3] != `$HOME %h "x"` || got[4] == "0" {
			o.t.Errorf("the program on %s says %q: node, environment, arguments, and no root", node, got)
		}
	}
	if limit := strings.TrimSpace(o.sh("ari", "docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.SecurityOpt}}' moggy-web")); limit != "67108864 [no-new-privileges]" {
		o.t.Errorf("the container's limits are %s", limit)
	}
	if mode := strings.TrimSpace(o.sh("ari", "stat -L -c %a /etc/moggy/services/web.env")); mode != "600" {
		o.t.Errorf("the container's environment has mode %s", mode)
	}
	if left := o.sh("ari", "curl -s -XPOST $(docker inspect -f '{{(index (index .HostConfig.PortBindings \"8082/tcp\") 0).HostIp}}' moggy-counter):8082/"); strings.TrimSpace(left) != "1" {
		o.t.Errorf("the counter counts %q", left)
	}
}

// nobodyOutside asks for services where only the mesh has them.
func (o *operator) nobodyOutside() {
	for _, address := range []string{"198.51.100.12:8080", "198.51.100.12:8081", "198.51.100.12:8082", "[2001:db8:c0::12]:8080"} {
		if r := o.run("lab", "run", "--name", o.lab, "--", "curl", "-s", "-m", "3", "http://"+address+"/"); r.code == 0 {
			o.t.Errorf("a stranger is answered at %s: %s", address, r.out)
		}
	}
}

func (o *operator) readLogs() {
	r := o.mustRemote("logs", "tool")
	for _, node := range []string{"hub", "ari", "ziggy"} {
		if !strings.Contains(r.out, node) {
			o.t.Errorf("the log lacks %s:\n%s", node, r.out)
		}
	}
	if r := o.mustRemote("logs", "web", "--node", "ziggy", "--json"); !strings.Contains(r.out, `"version 1.0: listening`) || strings.Contains(r.out, `"node":"ari"`) {
		o.t.Errorf("the container's log:\n%s", r.out)
	}
	if r := o.remote("exec", "web", "--node", "ari", "--", "/no/such/program"); r.code == 0 {
		o.t.Error("exec of what is not there ends with 0")
	}
	o.mustRemote("restart", "web")
}

// newVersion brings one while both instances are asked without pause: one of them
// always answers, and the counter counts on.
func (o *operator) newVersion() {
	ari, _ := o.address("ari")
	ziggy, _ := o.address("ziggy")
	o.sh("hub", fmt.Sprintf(`systemd-run -q --unit asking sh -c '
ask() { curl -s -m 2 -o /dev/null http://$1:8080/; }
while :; do ask %s || ask %s || ask %s || echo silence; sleep 0.05; done'`, ari, ziggy, ari))
	o.edit(func(f string) string {
		return strings.NewReplacer("web:1.0", "web:1.1", "counter:1.0", "counter:1.1").Replace(f)
	})
	o.mustRemote("apply", "--yes")
	silent := strings.Count(o.sh("hub", "systemctl stop asking; journalctl -q -u asking -o cat | grep silence || true"), "silence")
	if silent > 0 {
		o.t.Errorf("no instance answered %d times", silent)
	}
	for _, node := range []string{"ari", "ziggy"} {
		if got := o.get("hub", node, 8080); !strings.Contains(got, "version 1.1, on "+node) {
			o.t.Errorf("%s says\n%s", node, got)
		}
	}
	if got := strings.TrimSpace(o.get("hub", "ari", 8082)); got != "1" {
		o.t.Errorf("the counter stands at %q, it was at 1", got)
	}
}

// badVersion applies one that does not work: it is named, and what ran runs.
func (o *operator) badVersion(good, bad, says string) {
	before := o.summary()
	o.edit(func(f string) string { return strings.Replace(f, good, bad, 1) })
	defer o.edit(func(f string) string { return strings.Replace(f, bad, good, 1) })
	r := o.remote("apply", "--yes")
	if r.code != 1 || !strings.Contains(r.err, says) {
		o.t.Errorf("exit code %d, want 1 and %q in\n%s", r.code, says, r.err)
	}
	for _, node := range []string{"ari", "ziggy"} {
		if got := o.get("hub", node, 8080); !strings.Contains(got, "version 1.1, on "+node) {
			o.t.Errorf("%s says\n%s", node, got)
		}
	}
	generations := func(s status.Fleet) (out string) {
		for _, n := range s.Nodes {
			out += fmt.Sprint(n.Name, " ", n.Generation, " ")
		}
		return out
	}
	if was, is := generations(before), generations(o.summary()); is != was {
		o.t.Errorf("generations %s, were %s", is, was)
	}
}

// killed ends instances by force: they come back.
func (o *operator) killed() {
	o.sh("ari", "docker kill moggy-web; systemctl kill -s KILL moggy-service-tool; systemctl restart docker")
	o.serving()
}

// takenOut takes two services out of the file: nothing of them is left but data.
func (o *operator) takenOut() {
	o.edit(func(f string) string {
		head, rest, _ := strings.Cut(f, `service "web"`)
		_, rest, _ = strings.Cut(rest, `service "tool"`)
		tool, _, _ := strings.Cut(`service "tool"`+rest, `service "counter"`)
		return head + tool
	})
	o.mustRemote("apply", "--yes")
	left := o.sh("ari", "docker ps -aq; ls /etc/systemd/system /etc/moggy/services /usr/local/lib/moggy 2>/dev/null | grep -E 'web|counter' || true")
	if strings.TrimSpace(left) != "" {
		o.t.Errorf("left on ari:\n%s", left)
	}
	if volumes := o.sh("ari", "docker volume ls -q"); !strings.Contains(volumes, "moggy-counter-data") {
		o.t.Errorf("the counter's data is gone; volumes:\n%s", volumes)
	}
	o.serving()
}
