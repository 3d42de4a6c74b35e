package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// helloSource is a service's program: it says on which node it runs.
const helloSource = `package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello from", os.Getenv("MOGGY_NODE")) })
	fmt.Fprintln(os.Stderr, "cannot listen:", http.ListenAndServe(os.Getenv("MOGGY_ADDRESS"), nil))
	os.Exit(1)
}
`

const helloService = `
service "hello" {
  exec  = "./hello"
  port  = 8080
  count = 2
}
`

// How long a service may lack an instance after a machine died, on a test machine
// that is busy with other things. The bars for an idle one are 6 and 12 s; the log
// has what it was.
const (
	slowMove       = time.Minute
	slowMoveLeader = 2 * time.Minute
)

// TestLabNomad puts the reference fleet on Nomad and a service on it, kills the
// machine of an instance, then the one that leads.
func TestLabNomad(t *testing.T) {
	o := newOperator(t, "test-nomad", filepath.Join("..", "..", "examples", "cats", "fleet.hcl"))
	if out, err := exec.Command(filepath.Join("..", "..", "scripts", "engine.sh"), "nomad").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o.buildHello()
	o.edit(func(file string) string {
		return strings.Replace(withoutServices(file), "  domain ", "  scheduler = \"nomad\"\n  domain ", 1) + helloService
	})
	o.must("lab", "up", "--name", o.lab)
	o.mustRemote("apply", "--yes", "--accept-new")
	o.join(t)
	o.until("every node is a client that is ready", func() bool {
		return len(regexp.MustCompile(`(?m)\bready$`).FindAllString(o.remote("nomad", "node", "status").out, -1)) == 6
	})
	if out := o.mustRemote("nomad", "operator", "raft", "list-peers").out; strings.Count(out, "true") != 3 || strings.Count(out, "leader") != 1 {
		t.Errorf("not three servers that vote, one of them the leader:\n%s", out)
	}
	t.Run("closed to strangers", func(t *testing.T) { o.with(t).nomadIsClosed() })
	if t.Failed() {
		return
	}
	where := o.instances("", 2, slowMove)
	t.Logf("instances on %v", where)
	o.plan(0)
	if r := o.mustRemote("apply", "--yes"); !strings.Contains(r.out+r.err, "Nothing to do") {
		t.Errorf("a second apply does something:\n%s%s", r.out, r.err)
	}

	leader := o.leader()
	victim := where[0]
	if victim == leader {
		victim = where[1]
	}
	t.Logf("%s dies: two instances again after %s", victim, o.kill(victim, slowMove))
	o.must("lab", "heal", "--name", o.lab, victim)
	o.until("exactly two run", func() bool {
		return strings.Count(o.remote("nomad", "job", "status", "hello").out, " running ") == 2 && len(o.listening()) == 2
	})
	leader = o.leader()
	t.Logf("%s dies, which leads: two instances again after %s", leader, o.kill(leader, slowMoveLeader))
}

func (o *operator) buildHello() {
	o.t.Helper()
	dir := o.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hello.go"), []byte(helloSource), 0o644); err != nil {
		o.t.Fatal(err)
	}
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(o.dir, "hello"), filepath.Join(dir, "hello.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		o.t.Fatalf("%v\n%s", err, out)
	}
}

// nomadIsClosed: no port of Nomad's is open but on the mesh, and there not without
// a certificate, nor without a token.
func (o *operator) nomadIsClosed() {
	o.t.Helper()
	v4, _ := o.address("cosmo")
	for line := range strings.Lines(o.sh("cosmo", "ss -Hltn 'sport >= 4640 and sport <= 4650'")) {
		if at := strings.Fields(line)[3]; !strings.HasPrefix(at, v4+":") {
			o.t.Errorf("open beyond the mesh: %s", line)
		}
	}
	api := "https://" + v4 + ":4646/v1/jobs"
	if out := o.sh("cosmo", "curl -sk -m 5 "+api+" || echo refused"); !strings.Contains(out, "refused") {
		o.t.Errorf("without a certificate: %s", out)
	}
	with := "curl -s -m 5 --cacert /etc/moggy/nomad-roots.pem --cert /var/lib/moggy-certs/nomad.pem " + api
	if out := o.sh("cosmo", with); !strings.Contains(out, "Permission denied") {
		o.t.Errorf("without a token: %s", out)
	}
	if out := o.sh("ari", "ls /var/lib/moggy/keys/shared 2>&1 || true"); !strings.Contains(out, "No such file") {
		o.t.Errorf("a node that is no server has the servers' secrets: %s", out)
	}
	secret := o.sh("cosmo", "cat /var/lib/moggy/keys/shared/nomad-token")
	for _, place := range []string{"journalctl --no-pager", "cat /proc/*/cmdline"} {
		if strings.Contains(o.sh("cosmo", place+" 2>/dev/null || true"), secret) {
			o.t.Errorf("%s shows the token", place)
		}
	}
	if strings.Contains(o.lockText(), secret) {
		o.t.Error("the lock has the token")
	}
}

func (o *operator) leader() string {
	o.t.Helper()
	for line := range strings.Lines(o.mustRemote("nomad", "operator", "raft", "list-peers").out) {
		if strings.Contains(line, "leader") {
			return strings.SplitN(line, ".", 2)[0]
		}
	}
	o.t.Fatal("no leader")
	return ""
}

// listening are the nodes where an instance answers, as cosmo or maco sees it.
func (o *operator) listening() []string {
	return strings.Fields(o.at("bianco", "sh", "-c", o.asking("")+"echo $found").out)
}

// asking is a shell's line that fills $found with the nodes where an instance
// answers, but for one.
func (o *operator) asking(but string) string {
	var b strings.Builder
	b.WriteString("found=; ")
	for _, n := range []string{"cosmo", "maco", "miki", "ari", "ziggy", "bianco"} {
		if n == but {
			continue
		}
		v4, _ := o.address(fleet.NodeName(n))
		fmt.Fprintf(&b, "curl -s -m 0.5 http://%s:8080/ | grep -q 'hello from %s' && found=\"$found %s\"; ", v4, n, n)
	}
	return b.String()
}

// instances waits until that many answer, on other nodes than one.
func (o *operator) instances(but string, n int, patience time.Duration) []string {
	o.t.Helper()
	from := "bianco"
	if but == from {
		from = "ziggy"
	}
	script := fmt.Sprintf("end=$(( $(date +%%s) + %d )); while [ $(date +%%s) -lt $end ]; do %s set -- $found; [ $# -ge %d ] && { date +%%s.%%N; echo $found; exit 0; }; done; exit 1",
		int(patience.Seconds()), o.asking(but), n)
	r := o.at(from, "sh", "-c", script)
	if r.code != 0 {
		o.t.Fatalf("not %d instances within %s\n%s", n, patience, o.remote("nomad", "job", "status", "hello").out)
	}
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	o.t.Logf("at %s", lines[0])
	return strings.Fields(lines[len(lines)-1])
}

// kill pulls a machine's plug and says how long there were fewer than two
// instances.
func (o *operator) kill(node string, patience time.Duration) time.Duration {
	o.t.Helper()
	started := time.Now()
	o.must("lab", "fail", "--name", o.lab, node)
	o.instances(node, 2, patience)
	return time.Since(started).Round(100 * time.Millisecond)
}
