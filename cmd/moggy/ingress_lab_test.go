package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/labtest"
)

const public = `fleet "public" {
  domain    = "cats.example"
  operators = { nico = "ssh-ed25519 AAAA" }
}
site "rack" { kind = "datacenter" }
node "cosmo" {
  site   = site.rack
  public = ["198.51.100.11", "2001:db8:c0::11"]
}
node "maco" {
  site   = site.rack
  public = ["198.51.100.12", "2001:db8:c0::12"]
}
node "ari" {
  site    = site.rack
  public  = ["198.51.100.13", "2001:db8:c0::13"]
  hub     = false
  ingress = false
}
node "ziggy" {
  site    = site.rack
  public  = ["198.51.100.14", "2001:db8:c0::14"]
  hub     = false
  ingress = false
}
service "web" {
  exec   = "./tool"
  port   = 8080
  count  = 2
  on     = [node.ari, node.ziggy]
  expose = { host = "cats.example" }
}
service "blog" {
  static = "./blog"
  expose = { host = "blog.cats.example" }
}
`

// asking asks for a page again and again, from four places, and says each failure.
const asking = `for i in 1 2 3 4; do (
  while [ ! -e "$0" ]; do curl -sf -m 15 -o /dev/null https://cats.example/ && echo well || echo failed $?; done
) & done; wait`

// TestLabIngress is a website as strangers see it: two ingress nodes with one
// certificate, backends that are killed, restarted and unplugged under requests, and
// an ingress node that is lost.
func TestLabIngress(t *testing.T) {
	labtest.Engines(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "fleet.hcl")
	if err := os.WriteFile(file, []byte(public), 0o644); err != nil {
		t.Fatal(err)
	}
	o := newOperator(t, "test-ingress", file)
	o.write("tool", []byte(tool))
	if err := os.MkdirAll(filepath.Join(o.dir, "blog"), 0o755); err != nil {
		t.Fatal(err)
	}
	o.write("blog/index.html", []byte("the blog"))
	o.must("lab", "up", "--name", o.lab)
	o.mustRemote("apply", "--yes", "--accept-new")
	o.until("both hosts have a certificate on both nodes", func() bool {
		for _, n := range []string{"198.51.100.11", "198.51.100.12"} {
			if o.ask("cats.example", n).code != 0 || o.ask("blog.cats.example", n).out != "the blog" {
				return false
			}
		}
		return true
	})
	if n := o.issued("cosmo") + o.issued("maco"); n != 2 {
		t.Errorf("two hosts, two ingress nodes, %d certificates made", n)
	}
	t.Run("strangers", func(t *testing.T) {
		if r := o.with(t).ask("other.cats.example", "198.51.100.11"); r.code == 0 {
			t.Errorf("a host of nobody answers %q", r.out)
		}
	})
	t.Run("backends", func(t *testing.T) { o.with(t).losesBackends() })
	t.Run("restart", func(t *testing.T) {
		o := o.with(t)
		o.shell("cosmo", "systemctl restart moggy-ingress")
		o.until("cosmo answers again", func() bool { return o.ask("cats.example", "198.51.100.11").code == 0 })
		if n := o.issued("cosmo") + o.issued("maco"); n != 2 {
			t.Errorf("a restart cost a certificate: %d made", n)
		}
	})
	t.Run("an ingress node is lost", func(t *testing.T) {
		o := o.with(t)
		o.must("lab", "fail", "--name", o.lab, "cosmo")
		o.until("the other address answers", func() bool { return o.ask("cats.example", "198.51.100.12").code == 0 })
	})
}

// ask asks an ingress node for a host, as a stranger.
func (o *operator) ask(host, at string) result {
	return o.run("lab", "run", "--name", o.lab, "--", "curl", "-sf", "-m", "10", "--resolve", host+":443:"+at, "https://"+host+"/")
}

// issued is how many certificates a node had made.
func (o *operator) issued(node string) (n int) {
	log := o.at(node, "journalctl", "-u", "moggy-ingress", "-o", "cat", "--no-pager").out
	return strings.Count(log, `"msg":"certificate obtained successfully"`)
}

// losesBackends takes each backend away in another manner, and expects that nobody
// outside notices.
func (o *operator) losesBackends() {
	o.t.Helper()
	end := filepath.Join(o.t.TempDir(), "end")
	done := make(chan result, 1)
	go func() { done <- o.run("lab", "run", "--name", o.lab, "--", "bash", "-c", asking, end) }()
	backend := func(node string, want fleet.BackendState) {
		o.t.Helper()
		begun := time.Now()
		o.until(fmt.Sprintf("the one on %s is %s", node, want), func() bool {
			var s fleet.IngressStatus
			if err := json.Unmarshal([]byte(o.at("maco", "moggy", "ingress", "status").out), &s); err != nil {
				return false
			}
			for _, service := range s.Services {
				for _, b := range service.Backends {
					if string(b.Node) == node {
						return b.State == want
					}
				}
			}
			return false
		})
		o.t.Logf("%s %s after %v", node, want, time.Since(begun).Round(100*time.Millisecond))
	}
	backend("ari", fleet.BackendUp)
	backend("ziggy", fleet.BackendUp)
	o.shell("ari", "systemctl kill -s KILL moggy-service-web")
	backend("ari", fleet.BackendUp)
	o.shell("ziggy", "systemctl restart moggy-service-web")
	backend("ziggy", fleet.BackendUp)
	o.shell("ari", "systemctl stop moggy-service-web")
	backend("ari", fleet.BackendDown)
	o.shell("ari", "systemctl start moggy-service-web")
	backend("ari", fleet.BackendUp)
	o.must("lab", "fail", "--name", o.lab, "ziggy")
	backend("ziggy", fleet.BackendDown)
	if err := os.WriteFile(end, nil, 0o600); err != nil {
		o.t.Fatal(err)
	}
	r := <-done
	if well := strings.Count(r.out, "well"); strings.Contains(r.out, "failed") || well < 20 {
		o.t.Errorf("%d answers, and %d failures: %.300s", well, strings.Count(r.out, "failed"), strings.ReplaceAll(r.out, "well\n", ""))
	}
}
