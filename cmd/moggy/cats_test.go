package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/labtest"
	"github.com/moggyfleet/moggy/internal/plan"
	"github.com/moggyfleet/moggy/internal/status"
)

// slow is what a status and an apply with nothing to do may take on a machine
// that is busy with other things. The bar for an idle one is 3 s; the log has
// what it was.
const slow = 8 * time.Second

// lostHub bounds the silence when a hub is lost, on a machine that is busy with
// other things. It is a fraction of a second on an idle one.
const lostHub = 5 * time.Second

// operator is somebody with a checkout of the reference fleet and a lab to
// rehearse it in. Everything is done by commands, as a user would.
type operator struct {
	t     *testing.T
	moggy string // the binary under test
	dir   string // where fleet.hcl is
	lab   string
}

// TestLabCats takes the reference fleet from nothing to six machines that talk,
// then changes, breaks and mends it.
func TestLabCats(t *testing.T) {
	o := newOperator(t, "test-cats", filepath.Join("..", "..", "examples", "cats", "fleet.hcl"))
	up := o.must("lab", "up", "--name", o.lab)
	t.Logf("lab up took %s", up.took.Round(100*time.Millisecond))
	t.Run("plan before anything", o.planFresh)
	t.Run("first contact", o.firstContact)
	t.Run("join by token", o.join)
	if t.Failed() {
		return // there is no fleet to go on with
	}
	t.Run("every pair talks", o.everyPair)
	t.Run("the website", o.website)
	t.Run("wg sees the mesh", o.wgShow)
	t.Run("nothing to do", o.nothingToDo)
	t.Run("status", o.status)
	t.Run("drift", o.drift)
	t.Run("operators log in, strangers do not", o.logIn)
	t.Run("one host key for ever", o.hostKey)
	t.Run("the agent may little", o.mayLittle)
	t.Run("symmetric NATs are relayed", o.relayed)
	for _, hub := range []string{"cosmo", "maco", "miki"} {
		t.Run("loss of "+hub, func(t *testing.T) { o.with(t).loseHub(hub) })
	}
	t.Run("a node leaves the file", o.leave)
}

// newOperator takes an example and gives it keys that exist. It skips the test
// where there can be no lab.
func newOperator(t *testing.T, lab, file string) *operator {
	t.Helper()
	labtest.Need(t)
	o := &operator{t: t, moggy: buildMoggy(t), dir: t.TempDir(), lab: lab}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(o.dir, os.DirFS(filepath.Dir(file))); err != nil {
		t.Fatal(err)
	}
	o.write("fleet.hcl", regexp.MustCompile(`"ssh-ed25519 [^"]*"`).ReplaceAll(content, []byte(strconv.Quote(o.newKey("nico")))))
	o.newKey("stranger")
	o.run("lab", "down", "--name", lab) // what an earlier run left when it was killed
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(o.run("lab", "status", "--name", lab).out)
		}
		o.with(t).must("lab", "down", "--name", lab)
	})
	return o
}

// newKey makes an ssh key of that name, and returns its public half.
func (o *operator) newKey(name string) string {
	o.t.Helper()
	file := filepath.Join(o.dir, name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file).CombinedOutput(); err != nil {
		o.t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		o.t.Fatal(err)
	}
	return strings.TrimSpace(string(public))
}

// buildMoggy builds the binary as it is released.
func buildMoggy(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "moggy")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=0.0.0-test", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

func (o *operator) with(t *testing.T) *operator {
	c := *o
	c.t = t
	return &c
}

func (o *operator) write(name string, content []byte) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), content, 0o644); err != nil {
		o.t.Fatal(err)
	}
}

type result struct {
	out, err string
	code     int
	took     time.Duration
}

// run runs moggy on the machine that hosts the lab.
func (o *operator) run(args ...string) result { return o.runWith("", args...) }

func (o *operator) runWith(stdin string, args ...string) result {
	o.t.Helper()
	cmd := exec.Command(o.moggy, args...)
	cmd.Dir = o.dir
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	started := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		o.t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode(), time.Since(started)}
}

// must is run, of a command that may not fail.
func (o *operator) must(args ...string) result {
	o.t.Helper()
	r := o.run(args...)
	if r.code != 0 {
		o.t.Fatalf("moggy %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r
}

// remote runs moggy as the operator in the lab's internet.
func (o *operator) remote(args ...string) result {
	o.t.Helper()
	return o.run(append([]string{"lab", "run", "--name", o.lab, "--", o.moggy}, args...)...)
}

func (o *operator) mustRemote(args ...string) result {
	o.t.Helper()
	return o.must(append([]string{"lab", "run", "--name", o.lab, "--", o.moggy}, args...)...)
}

// at runs a command at a machine's own keyboard.
func (o *operator) at(node string, args ...string) result {
	o.t.Helper()
	return o.run(append([]string{"lab", "exec", "--name", o.lab, node, "--"}, args...)...)
}

func (o *operator) summary() status.Fleet {
	o.t.Helper()
	r := o.remote("status", "--json")
	var s status.Fleet
	if err := json.Unmarshal([]byte(r.out), &s); err != nil {
		o.t.Fatalf("status --json: %v\n%s%s", err, r.out, r.err)
	}
	return s
}

func (o *operator) plan(wantCode int) plan.Document {
	o.t.Helper()
	r := o.remote("plan", "--json")
	if r.code != wantCode {
		o.t.Errorf("plan: exit code %d, want %d\n%s", r.code, wantCode, r.err)
	}
	var d plan.Document
	if err := json.Unmarshal([]byte(r.out), &d); err != nil {
		o.t.Fatalf("plan --json: %v\n%s%s", err, r.out, r.err)
	}
	return d
}

func (o *operator) planFresh(t *testing.T) {
	want := map[fleet.NodeName]plan.Action{
		"cosmo": plan.ActionContact, "maco": plan.ActionContact, "miki": plan.ActionContact,
		"ari": plan.ActionJoin, "ziggy": plan.ActionJoin, "bianco": plan.ActionJoin,
	}
	for _, n := range o.with(t).plan(2).Nodes {
		if n.Action != want[n.Node] {
			t.Errorf("%s: %s, want %s", n.Node, n.Action, want[n.Node])
		}
	}
	if _, err := os.Stat(filepath.Join(o.dir, "fleet.lock.hcl")); err == nil {
		t.Error("plan wrote a lock")
	}
}

func (o *operator) firstContact(t *testing.T) {
	o = o.with(t)
	if r := o.remote("apply", "--yes"); r.code == 0 || !strings.Contains(r.err, "--accept-new") {
		t.Errorf("apply with nobody to ask about host keys: exit code %d, want a refusal that names --accept-new\n%s", r.code, r.err)
	}
	r := o.mustRemote("apply", "--yes", "--accept-new")
	t.Logf("first apply of three nodes took %s", r.took.Round(100*time.Millisecond))
	if s := o.summary(); s.Up != 3 {
		t.Errorf("%d nodes up, want 3: %+v", s.Up, s.Problems)
	}
	if r := o.at("cosmo", "wg", "--version"); r.code != 0 {
		t.Errorf("wireguard-tools was not installed: %s", r.err)
	}
}

func (o *operator) join(t *testing.T) {
	o = o.with(t)
	var token string
	for _, node := range []string{"ari", "ziggy", "bianco"} {
		token = o.mustRemote("token", node).out
		o.must("lab", "copy", "--name", o.lab, o.moggy, node+":/root/moggy")
		r := o.runWith(token, "lab", "exec", "--name", o.lab, node, "--", "/root/moggy", "join", "--yes", "-")
		if r.code != 0 {
			t.Fatalf("join %s: exit code %d\n%s%s", node, r.code, r.out, r.err)
		}
		if leak := strings.TrimSpace(token); strings.Contains(r.out+r.err, leak) || strings.Contains(o.at(node, "journalctl", "--no-pager").out, leak) {
			t.Errorf("join of %s shows the token", node)
		}
	}
	r := o.mustRemote("apply", "--yes")
	t.Logf("apply of six nodes took %s", r.took.Round(100*time.Millisecond))
	started := time.Now()
	o.allWell()
	t.Logf("after apply, all was well within %s", time.Since(started).Round(100*time.Millisecond))
}

// allWell waits until everybody is up and nothing is wrong.
func (o *operator) allWell() {
	o.t.Helper()
	o.until("all is well", func() bool {
		s := o.summary()
		return s.Up == 6 && len(s.Problems) == 0
	})
}

// address is a node's mesh address in each family.
func (o *operator) address(node fleet.NodeName) (v4, v6 string) {
	for _, n := range o.summary().Nodes {
		if n.Name == node {
			return n.V4, n.V6
		}
	}
	o.t.Fatalf("no node %s in status", node)
	return "", ""
}

// website asks for the fleet's public hosts as a stranger does: what answers is a
// container behind a carrier's NAT, and a folder.
func (o *operator) website(t *testing.T) {
	o = o.with(t)
	started := time.Now()
	for host, want := range map[string]string{"cats.example": "answering from a container", "blog.cats.example": "The cats' blog"} {
		o.until("https://"+host+" answers", func() bool {
			return strings.Contains(o.run("lab", "curl", "--name", o.lab, "https://"+host+"/", "-m", "10").out, want)
		})
	}
	t.Logf("certificates were there after %s", time.Since(started).Round(100*time.Millisecond))
	for _, address := range []string{"198.51.100.11", "198.51.100.12", "203.0.113.21"} {
		r := o.run("lab", "curl", "--name", o.lab, "https://cats.example/", "-m", "10", "--resolve", "cats.example:443:"+address)
		if !strings.Contains(r.out, "answering from a container") {
			t.Errorf("by %s the website is not there: %s", address, r.err)
		}
	}
}

func (o *operator) everyPair(t *testing.T) {
	o = o.with(t)
	nodes := o.summary().Nodes
	for _, from := range nodes {
		for _, to := range nodes {
			if from.Name == to.Name {
				continue
			}
			for _, address := range []string{to.V4, to.V6} {
				if r := o.at(string(from.Name), "ping", "-c", "2", "-i", "0.2", "-w", "5", address); r.code != 0 {
					t.Errorf("%s does not reach %s at %s\n%s", from.Name, to.Name, address, r.out)
				}
			}
		}
	}
	for _, n := range o.summary().Nodes {
		for _, p := range n.Paths {
			if p.Path == fleet.PathNone {
				t.Errorf("%s says it has no path to %s", n.Name, p.Name)
			}
		}
	}
	if p := o.path("ari", "cosmo"); p.Path != fleet.PathDirectV6 && p.Path != fleet.PathDirectV4 {
		t.Errorf("ari reaches the hub cosmo by %s, want it direct", p.Path)
	}
}

// relayed makes the homes' NATs such that no hole can be punched, so that only
// a hub connects bianco and the others.
func (o *operator) relayed(t *testing.T) {
	o = o.with(t)
	for _, n := range []string{"ari", "ziggy", "bianco"} {
		o.must("lab", "nat", "--name", o.lab, n, "symmetric")
	}
	ari, _ := o.address("ari")
	o.until("bianco reaches ari through a hub", func() bool {
		o.at("bianco", "ping", "-c", "3", "-i", "0.2", "-w", "5", ari)
		p := o.path("bianco", "ari")
		return p.Path == fleet.PathRelayed && p.Via != "" && p.RTTMicro > 0
	})
}

// path is how one node says it reaches another; the zero PeerStatus where it
// does not say.
func (o *operator) path(from, to fleet.NodeName) fleet.PeerStatus {
	o.t.Helper()
	for _, n := range o.summary().Nodes {
		for _, p := range n.Paths {
			if n.Name == from && p.Name == to {
				return p
			}
		}
	}
	return fleet.PeerStatus{}
}

func (o *operator) wgShow(t *testing.T) {
	r := o.with(t).at("cosmo", "wg", "show", fleet.MeshInterface, "peers")
	if got := len(strings.Fields(r.out)); r.code != 0 || got != 5 {
		t.Errorf("wg show: %d peers, want 5\n%s%s", got, r.out, r.err)
	}
}

func (o *operator) nothingToDo(t *testing.T) {
	o = o.with(t)
	var took []time.Duration
	for range 3 {
		r := o.mustRemote("apply", "--yes")
		if !strings.Contains(r.out, "Nothing to do") {
			t.Fatalf("a second apply has something to do:\n%s%s", r.out, r.err)
		}
		took = append(took, r.took)
	}
	slices.Sort(took)
	t.Logf("apply with nothing to do: median %s of %d", took[1].Round(10*time.Millisecond), len(took))
	if took[1] > slow {
		t.Errorf("apply with nothing to do took %s", took[1])
	}
}

func (o *operator) status(t *testing.T) {
	o = o.with(t)
	o.allWell()
	r := o.mustRemote("status")
	t.Logf("status took %s\n%s", r.took.Round(10*time.Millisecond), r.out)
	if r.took > slow {
		t.Errorf("status took %s", r.took)
	}
	for _, want := range []string{"6 of 6", "bianco", "direct v6"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("status does not say %q", want)
		}
	}
}

func (o *operator) drift(t *testing.T) {
	o = o.with(t)
	before := o.at("ari", "sha256sum", fleet.AgentConfigPath).out
	o.at("ari", "sh", "-c", "cp --remove-destination $(readlink -f "+fleet.AgentConfigPath+") /root/x; echo ' ' >>/root/x; mv -f /root/x "+fleet.AgentConfigPath)
	s := o.summary()
	if !slices.ContainsFunc(s.Problems, func(p status.Problem) bool {
		return p.Node == "ari" && strings.Contains(p.What, fleet.AgentConfigPath)
	}) {
		t.Errorf("status does not show the drift: %+v", s.Problems)
	}
	d := o.plan(2)
	i := slices.IndexFunc(d.Nodes, func(n plan.NodePlan) bool { return n.Node == "ari" })
	if n := d.Nodes[i]; n.Action != plan.ActionRestore || len(n.Files) != 1 || !n.Files[0].Drift || n.Files[0].Diff == "" {
		t.Errorf("plan for ari: %+v, want it to restore one drifted file with its difference", n)
	}
	o.mustRemote("apply", "--yes")
	if after := o.at("ari", "sha256sum", fleet.AgentConfigPath).out; after != before {
		t.Errorf("after apply the file is %s, want %s", after, before)
	}
	o.allWell()
}

// logIn tries the operator's own key, not the one the machine's owner left
// there, and a key that nobody named.
func (o *operator) logIn(t *testing.T) {
	o = o.with(t)
	for name, want := range map[string]int{"nico": 0, "stranger": 255} {
		r := o.run("lab", "run", "--name", o.lab, "--", "env", "-u", "SSH_AUTH_SOCK",
			"ssh", "-F", "/dev/null", "-i", filepath.Join(o.dir, name), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "root@198.51.100.11", "true")
		if r.code != want {
			t.Errorf("ssh with the key of %s: exit code %d, want %d\n%s", name, r.code, want, r.err)
		}
	}
}

// hostKey has somebody else answer at maco's address.
func (o *operator) hostKey(t *testing.T) {
	o = o.with(t)
	const keys = "/etc/ssh/ssh_host_ed25519_key"
	o.at("maco", "sh", "-c", "cp "+keys+" /root/key; cp "+keys+".pub /root/key.pub; rm "+keys+"*; ssh-keygen -q -t ed25519 -N '' -f "+keys+"; systemctl restart ssh; pkill -f 'sshd: root@'")
	defer o.at("maco", "sh", "-c", "cp /root/key "+keys+"; cp /root/key.pub "+keys+".pub; systemctl restart ssh")
	if r := o.remote("ssh", "maco", "--", "true"); r.code == 0 || !strings.Contains(r.err, "another host key") {
		t.Errorf("another host key: exit code %d, want a refusal that says so\n%s", r.code, r.err)
	}
}

// loseHub pulls the plug on a hub while bianco and ari talk.
func (o *operator) loseHub(hub string) {
	t := o.t
	ari, _ := o.address("ari")
	stop := o.pinging("bianco", ari)
	o.must("lab", "fail", "--name", o.lab, hub)
	o.until("status shows that one of six is away", func() bool {
		r := o.remote("status", "--json")
		var s status.Fleet
		if err := json.Unmarshal([]byte(r.out), &s); err != nil {
			t.Fatalf("status --json: %v\n%s", err, r.out)
		}
		if r.took > slow {
			t.Errorf("status with %s down took %s", hub, r.took)
		}
		t.Logf("status with %s down took %s", hub, r.took.Round(10*time.Millisecond))
		return s.Up == 5 && r.code == 2
	})
	for _, pair := range [][2]fleet.NodeName{{"bianco", "ari"}, {"ari", "ziggy"}, {"ziggy", "bianco"}} {
		to, _ := o.address(pair[1])
		if r := o.at(string(pair[0]), "ping", "-c", "1", "-i", "0.2", "-w", "8", to); r.code != 0 {
			t.Errorf("without %s, %s does not reach %s\n%s", hub, pair[0], pair[1], r.out)
		}
	}
	if r := o.run("lab", "curl", "--name", o.lab, "https://cats.example/", "-m", "20"); !strings.Contains(r.out, "answering from a container") {
		t.Errorf("without %s, the website is not there: %s", hub, r.err)
	}
	gap := stop()
	t.Logf("without %s: bianco to ari was silent for %s at most", hub, gap)
	if gap > lostHub {
		t.Errorf("without %s bianco and ari were silent for %s", hub, gap)
	}
	o.must("lab", "heal", "--name", o.lab, hub)
	o.allWell()
}

// until waits for a condition that the fleet comes to by itself.
func (o *operator) until(what string, holds func() bool) {
	o.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			o.t.Fatalf("waited 90 s until %s\n%s", what, o.remote("status").out)
		}
	}
}

// pinging pings ten times a second from a node; what it returns stops it and
// tells the longest time without an answer.
func (o *operator) pinging(node, address string) (stop func() time.Duration) {
	o.t.Helper()
	cmd := exec.Command(o.moggy, "lab", "exec", "--name", o.lab, node, "--", "ping", "-D", "-i", "0.1", "-w", "400", address)
	cmd.Dir = o.dir
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	return func() time.Duration {
		ended := time.Now()
		o.at(node, "pkill", "-INT", "-x", "ping")
		cmd.Wait()
		gap, answers := longestGap(out.String(), ended)
		if answers == 0 {
			o.t.Fatalf("no ping from %s to %s was answered\n%s", node, address, out.String())
		}
		return gap
	}
}

// longestGap is the longest time between two answers in the output of ping -D,
// or from the last to the end.
func longestGap(output string, ended time.Time) (gap time.Duration, answers int) {
	var last float64
	var longest float64
	for _, m := range regexp.MustCompile(`(?m)^\[([0-9.]+)\] \d+ bytes`).FindAllStringSubmatch(output, -1) {
		at, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			continue
		}
		if last > 0 {
			longest = max(longest, at-last)
		}
		last = at
		answers++
	}
	longest = max(longest, float64(ended.UnixNano())/1e9-last)
	return time.Duration(longest * float64(time.Second)).Round(10 * time.Millisecond), answers
}

// mayLittle reads of the running agent, on a hub and on a worker, that it is
// nobody's root, has CAP_NET_ADMIN alone (linux/capability.h: bit 12), gets no
// more by any program, and is in a seccomp filter.
func (o *operator) mayLittle(t *testing.T) {
	for _, node := range []string{"cosmo", "bianco"} {
		status := o.with(t).sh(node, "cat /proc/$(systemctl show -P MainPID moggy-agent)/status")
		for _, want := range []string{`Uid:\t[1-9]\d*\t`, `CapEff:\t0000000000001000`, `CapBnd:\t0000000000001000`, `NoNewPrivs:\t1`, `Seccomp:\t2`} {
			if !regexp.MustCompile(want).MatchString(status) {
				t.Errorf("%s: no %s in\n%s", node, want, status)
			}
		}
	}
}

func (o *operator) leave(t *testing.T) {
	o = o.with(t)
	file, err := os.ReadFile(filepath.Join(o.dir, "fleet.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	without := regexp.MustCompile(`(?m)^node "ziggy".*\n`).ReplaceAll(file, nil)
	if bytes.Equal(without, file) {
		t.Fatal("the example has no line for ziggy")
	}
	o.write("fleet.hcl", without)
	before := o.lock("ari")
	o.mustRemote("apply", "--yes")
	if r := o.at("cosmo", "wg", "show", fleet.MeshInterface, "peers"); len(strings.Fields(r.out)) != 4 {
		t.Errorf("peers after ziggy left: %s", r.out)
	}
	if strings.Contains(o.lockText(), `"ziggy"`) {
		t.Error("ziggy is still in the lock")
	}
	if after := o.lock("ari"); after != before {
		t.Errorf("ari's address changed from %s to %s when ziggy left", before, after)
	}
}

func (o *operator) lockText() string {
	o.t.Helper()
	b, err := os.ReadFile(filepath.Join(o.dir, "fleet.lock.hcl"))
	if err != nil {
		o.t.Fatal(err)
	}
	return string(b)
}

// lock is a node's mesh address in the lock.
func (o *operator) lock(node string) string {
	o.t.Helper()
	m := regexp.MustCompile(fmt.Sprintf(`(?s)node %q \{.*?v4\s*=\s*"([0-9.]+)"`, node)).FindStringSubmatch(o.lockText())
	if m == nil {
		o.t.Fatalf("%s is not in the lock", node)
	}
	return m[1]
}
