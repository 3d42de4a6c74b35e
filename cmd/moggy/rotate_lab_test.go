package main

import (
	"bytes"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// TestLabRotate gives a node behind NAT a new key while everybody pings everybody
// every 50 ms. In its long form so does the only hub there is; then an operator is
// killed on the way of a third, and another goes on.
func TestLabRotate(t *testing.T) {
	o := newFew(t, "test-rotate")
	o.mustRemote("apply", "--yes", "--accept-new")
	for _, node := range []string{"ari", "bianco"} {
		token := o.mustRemote("token", node).out
		if r := o.runWith(token, "lab", "exec", "--name", o.lab, node, "--", "/root/moggy", "join", "--yes", "-"); r.code != 0 {
			t.Fatalf("join %s: %s%s", node, r.out, r.err)
		}
	}
	o.mustRemote("apply", "--yes")
	o.until("all is well", func() bool { s := o.summary(); return s.Up == 3 && len(s.Problems) == 0 })

	nodes := []string{"ari"}
	if allFaults() {
		nodes = append(nodes, "hub")
	}
	for _, node := range nodes {
		old := o.meshKey(node)
		stop := o.pingPairs()
		r := o.mustRemote("rotate", node, "--yes")
		all := stop()
		most, longest := 2, time.Second // what a pair loses that it is nothing to is the busy machine's
		for pair, p := range all {
			if !strings.Contains(pair, node) {
				most, longest = max(most, 2+p.lost), max(longest, p.gap)
			}
		}
		for pair, p := range all {
			t.Logf("rotate %s (%s): %s: %d of %d pings lost, longest gap %s", node, r.took.Round(100*time.Millisecond), pair, p.lost, p.sent, p.gap)
			if p.lost > max(most, p.sent/20) || p.gap > 3*longest || p.sent < 20 {
				t.Errorf("%s while %s got a new key: %d of %d pings lost, longest gap %s", pair, node, p.lost, p.sent, p.gap)
				for end := range strings.SplitSeq(pair, " to ") {
					t.Logf("the agent of %s:\n%s", end, o.at(end, "journalctl", "-u", "moggy-agent", "-n", "60", "--no-pager").out)
				}
			}
		}
		o.rotated(node, old)
	}
	if allFaults() {
		o.rotateKilled("bianco")
	}
}

// meshKey is a node's key as its own WireGuard says.
func (o *operator) meshKey(node string) string {
	o.t.Helper()
	return strings.TrimSpace(o.sh(node, "wg show "+fleet.MeshInterface+" public-key"))
}

// rotated looks whether a node has another key than old, on which all agree.
func (o *operator) rotated(node, old string) {
	o.t.Helper()
	now := o.meshKey(node)
	if now == old {
		o.t.Errorf("%s has the key that it had", node)
	}
	for _, other := range []string{"hub", "ari", "bianco"} {
		if other == node {
			continue
		}
		peers := o.sh(other, "wg show "+fleet.MeshInterface+" peers; cat "+fleet.AgentConfigPath)
		if strings.Contains(peers, old) || !strings.Contains(peers, now) {
			o.t.Errorf("%s knows %s by its old key, or not by the new one", other, node)
		}
	}
	if text := o.lockText(); strings.Contains(text, old) || regexp.MustCompile(`(next|old|gone)_key`).MatchString(text) {
		o.t.Errorf("the lock is in a rotation still:\n%s", text)
	}
	if n := strings.TrimSpace(o.sh(node, "wc -l </var/lib/moggy/keys/mesh.key")); n != "1" {
		o.t.Errorf("%s keeps %s private keys", node, n)
	}
	if d := o.plan(0); d.Changes || len(d.Rotations) > 0 {
		o.t.Errorf("there is something to do still: %+v", d)
	}
}

// rotateKilled kills the operator when the node is about to go by its new key.
func (o *operator) rotateKilled(node string) {
	o.t.Helper()
	old := o.meshKey(node)
	cmd := exec.Command(o.moggy, "lab", "run", "--name", o.lab, "--", o.moggy, "rotate", node, "--yes")
	cmd.Dir = o.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	told := &teller{text: "2 of 3", said: make(chan struct{})}
	cmd.Stderr = told
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-told.said:
	case err := <-ended:
		o.t.Fatalf("rotate ended by itself: %v\n%s", err, told.all.String())
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		o.t.Fatal(err)
	}
	<-ended
	next := "moggy rotate " + node
	found := false
	for _, p := range o.summary().Problems {
		found = found || p.Next == next
	}
	if !found {
		o.t.Errorf("status says nothing of the rotation of %s: %+v", node, o.summary().Problems)
	}
	if r := o.remote("plan"); !strings.Contains(r.out, next) {
		o.t.Errorf("plan says nothing of the rotation:\n%s%s", r.out, r.err)
	}
	v4, _ := o.address(fleet.NodeName(node))
	o.until("the hub reaches "+node+" by either key", func() bool { return o.at("hub", "ping", "-c1", "-W2", v4).code == 0 })
	o.until("nobody holds the nodes", func() bool { return o.remote("rotate", node, "--yes", "--json").code == 0 })
	o.rotated(node, old)
}

// teller closes said when it reads a text.
type teller struct {
	all  bytes.Buffer
	text string
	said chan struct{}
	done bool
}

func (s *teller) Write(b []byte) (int, error) {
	n, err := s.all.Write(b)
	if !s.done && strings.Contains(s.all.String(), s.text) {
		s.done = true
		close(s.said)
	}
	return n, err
}

type pings struct {
	sent, lost int
	gap        time.Duration
}

// pingPairs pings between all pairs every 50 ms; what it returns stops that.
func (o *operator) pingPairs() (stop func() map[string]pings) {
	o.t.Helper()
	var cmds []*exec.Cmd
	outs := make(map[string]*bytes.Buffer)
	for _, pair := range [][2]string{{"ari", "bianco"}, {"hub", "ari"}, {"hub", "bianco"}} {
		v4, _ := o.address(fleet.NodeName(pair[1]))
		cmd := exec.Command(o.moggy, "lab", "exec", "--name", o.lab, pair[0], "--", "ping", "-D", "-n", "-i", "0.05", "-w", "400", v4)
		cmd.Dir = o.dir
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			o.t.Fatal(err)
		}
		cmds, outs[pair[0]+" to "+pair[1]] = append(cmds, cmd), &out
	}
	o.until("all pings are answered", func() bool {
		for _, node := range []string{"ari", "bianco"} {
			if v4, _ := o.address(fleet.NodeName(node)); o.at("hub", "ping", "-c2", "-i0.2", "-W1", v4).code != 0 {
				return false
			}
		}
		v4, _ := o.address("bianco")
		return o.at("ari", "ping", "-c2", "-i0.2", "-W1", v4).code == 0
	})
	begun := time.Now()
	return func() map[string]pings {
		for _, node := range []string{"ari", "hub"} {
			o.at(node, "pkill", "-INT", "-x", "ping")
		}
		got := make(map[string]pings)
		for _, cmd := range cmds {
			cmd.Wait()
		}
		for pair, out := range outs {
			got[pair] = pingsSince(out.String(), begun)
		}
		return got
	}
}

// pingsSince reads the output of ping -D: what was lost between two answers, and the
// longest time between two.
func pingsSince(output string, since time.Time) (p pings) {
	answered := regexp.MustCompile(`(?m)^\[([0-9.]+)\] \d+ bytes from .* icmp_seq=(\d+)`)
	var last float64
	var seq int
	for _, m := range answered.FindAllStringSubmatch(output, -1) {
		at, err := strconv.ParseFloat(m[1], 64)
		n, err2 := strconv.Atoi(m[2])
		if err != nil || err2 != nil || at < float64(since.UnixMilli())/1000 {
			continue
		}
		if last > 0 {
			p.gap = max(p.gap, time.Duration((at-last)*float64(time.Second)).Round(time.Millisecond))
			p.sent += n - seq
			p.lost += n - seq - 1
		}
		last, seq = at, n
	}
	return p
}
