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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// The promise under test: whatever happens in the middle of a change, every node
// stays reachable on a whole generation, and a plain moggy apply converges.
//
// MOGGY_FAULTS=all makes every fault happen (make test-faults); without it, as in
// make test, those that stand for the others.

// fault is something that happens to the fleet while it changes.
type fault struct {
	name  string
	brief bool // happens in make test, too
	run   func(o *operator)
}

// withoutServices is the example's file without what runs on its nodes: it has
// tests of its own.
func withoutServices(file string) string {
	head, _, _ := strings.Cut(file, "\n# What runs on them")
	return head
}

func TestLabFaults(t *testing.T) {
	o := newOperator(t, "test-faults", filepath.Join("..", "..", "examples", "cats", "fleet.hcl"))
	o.edit(withoutServices)
	o.must("lab", "up", "--name", o.lab)
	t.Run("the fleet", func(t *testing.T) {
		o.with(t).mustRemote("apply", "--yes", "--accept-new")
		o.join(t)
		o.with(t).settled()
	})
	if t.Failed() {
		return
	}
	all := allFaults()
	only := os.Getenv("MOGGY_FAULT") // a part of a name, to look into one
	for _, f := range slices.Concat(calmFaults(), stepFaults(o.with(t)), diskFaults(), operatorFaults(), buildFaults(), fleetFaults()) {
		if only != "" && !strings.Contains(f.name, only) || only == "" && !all && !f.brief {
			continue
		}
		ok := t.Run(f.name, func(t *testing.T) {
			started := time.Now()
			o := o.with(t)
			f.run(o)
			faultTook := time.Since(started)
			o.aftermath()
			t.Logf("took %.1f s, mended %.1f s later", faultTook.Seconds(), (time.Since(started) - faultTook).Seconds())
		})
		if !ok {
			t.Logf("the fleet after %q:\n%s", f.name, o.with(t).remote("status").out)
		}
	}
}

// allFaults says whether every fault shall happen: make test-faults.
func allFaults() bool { return os.Getenv("MOGGY_FAULTS") == "all" }

// aftermath is the promise: every node reachable, on a whole generation, and a
// plain apply converges.
func (o *operator) aftermath() {
	o.t.Helper()
	o.until("every node can be reached", func() bool { return o.summary().Up == 6 })
	for _, n := range o.observed() {
		if n.seen.Activation != nil && !n.seen.Activation.Running && n.seen.Activation.Step == "unknown" {
			o.t.Errorf("%s: an activation that nobody can read: %+v", n.name, n.seen.Activation)
		}
	}
	r := o.remote("apply", "--yes")
	if r.code != 0 {
		o.t.Errorf("a plain apply: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	o.settled()
}

// settled waits until all is well, and checks that there is nothing to do and
// nothing under way.
func (o *operator) settled() {
	o.t.Helper()
	o.allWell()
	o.plan(0)
	for _, n := range o.observed() {
		s := n.seen
		if s.Activation != nil || s.Probation != nil || !s.Current.Confirmed || len(s.Drift) > 0 {
			o.t.Errorf("%s: confirmed %v, activation %+v, probation %+v, drift %+v", n.name, s.Current.Confirmed, s.Activation, s.Probation, s.Drift)
		}
	}
}

type observedNode struct {
	name string
	seen fleet.Observed
}

// observed asks each node at its own keyboard, whatever became of ssh.
func (o *operator) observed() []observedNode {
	o.t.Helper()
	var out []observedNode
	for _, name := range []string{"cosmo", "maco", "miki", "ari", "ziggy", "bianco"} {
		out = append(out, observedNode{name, o.seen(name)})
	}
	return out
}

func (o *operator) seen(name string) fleet.Observed {
	o.t.Helper()
	r := o.at(name, "moggy", "node", "observe")
	var s fleet.Observed
	if err := json.Unmarshal([]byte(r.out), &s); err != nil {
		o.t.Fatalf("%s: observe: %v\n%s%s", name, err, r.out, r.err)
	}
	return s
}

// sh runs a line at a machine's keyboard.
func (o *operator) sh(node, line string) string {
	o.t.Helper()
	r := o.at(node, "sh", "-c", line)
	if r.code != 0 {
		o.t.Fatalf("%s: %s: exit code %d\n%s%s", node, line, r.code, r.out, r.err)
	}
	return r.out
}

// change makes every node's next generation another than the one in force: a
// file that nothing is restarted for.
func (o *operator) change() {
	o.t.Helper()
	o.edit(func(file string) string {
		key := o.newKeyOf(fmt.Sprintf("guest%d", time.Now().UnixNano()))
		file = regexp.MustCompile(`\n *guest = "[^"]*"`).ReplaceAllString(file, "")
		return regexp.MustCompile(`nico = "[^"]*"`).ReplaceAllString(file, "$0\n    guest = \""+key+`"`)
	})
}

// changeMesh makes the mesh's configuration another: a node that will join one
// day, or the same no more.
func (o *operator) changeMesh() {
	o.t.Helper()
	const spare = "node \"spare\" { site = site.london }\n"
	o.edit(func(file string) string {
		if strings.Contains(file, spare) {
			return strings.Replace(file, spare, "", 1)
		}
		return file + spare
	})
}

func (o *operator) fleetFile() string {
	o.t.Helper()
	b, err := os.ReadFile(filepath.Join(o.dir, "fleet.hcl"))
	if err != nil {
		o.t.Fatal(err)
	}
	return string(b)
}

func (o *operator) edit(change func(string) string) {
	o.t.Helper()
	before := o.fleetFile()
	after := change(before)
	if after == before {
		o.t.Fatalf("the change did not change the file:\n%s", before)
	}
	o.write("fleet.hcl", []byte(after))
}

// newKeyOf makes a key that nobody uses, and returns its public half.
func (o *operator) newKeyOf(name string) string {
	o.t.Helper()
	defer os.Remove(filepath.Join(o.dir, name))
	defer os.Remove(filepath.Join(o.dir, name+".pub"))
	return o.newKey(name)
}

// underway is a moggy that runs while the test does something else.
type underway struct {
	o    *operator
	cmd  *exec.Cmd
	out  bytes.Buffer
	args []string
	done chan struct{}
}

// start runs moggy as the operator in the lab's internet, in a process group of
// its own.
func (o *operator) start(args ...string) *underway {
	o.t.Helper()
	u := &underway{o: o, args: args, done: make(chan struct{})}
	u.cmd = exec.Command(o.moggy, append([]string{"lab", "run", "--name", o.lab, "--", o.moggy}, args...)...)
	u.cmd.Dir = o.dir
	u.cmd.Stdout, u.cmd.Stderr = &u.out, &u.out
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := u.cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	go func() {
		u.cmd.Wait()
		close(u.done)
	}()
	return u
}

// signal is sent to moggy and the ssh commands it runs, as a terminal does.
func (u *underway) signal(s syscall.Signal) {
	if err := syscall.Kill(-u.cmd.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		u.o.t.Error(err)
	}
}

// end waits until it has ended.
func (u *underway) end(within time.Duration) (code int, out string) {
	u.o.t.Helper()
	select {
	case <-u.done:
	case <-time.After(within):
		u.signal(syscall.SIGKILL)
		<-u.done
		u.o.t.Errorf("moggy %s: still at it after %s\n%s", strings.Join(u.args, " "), within, u.out.String())
	}
	return u.cmd.ProcessState.ExitCode(), u.out.String()
}

// patience bounds every apply under a fault: staging, activation, probation and
// the way back of one wave after the other.
const patience = 4 * time.Minute

// steps are an activation's, as the code names them.
func (o *operator) steps() []string {
	o.t.Helper()
	var steps []string
	r := o.at("ari", "moggy", "node", "steps")
	if err := json.Unmarshal([]byte(r.out), &steps); err != nil || len(steps) < 10 {
		o.t.Fatalf("moggy node steps: %v\n%s%s", err, r.out, r.err)
	}
	return steps
}

// holdAt makes the node's next activation stop at a step.
func (o *operator) holdAt(node, step string) {
	o.t.Helper()
	o.sh(node, "mkdir -p -m 0700 /run/moggy-node && echo "+step+" >/run/moggy-node/hold-at")
}

func (o *operator) release(node string) {
	o.t.Helper()
	o.sh(node, "rm -f /run/moggy-node/hold-at")
}

// reached waits until the node stands at the step: an activation says so in its
// report, the others have the lock.
func (o *operator) reached(node, step string, u *underway) {
	o.t.Helper()
	for {
		if o.at(node, "sh", "-c", "tail -qn 1 $(ls -t /run/moggy-node/*.jsonl | head -n 1) | grep -qs 'waits at "+step+" ' || grep -qs '\"what\":\""+step+"' /var/lib/moggy/lock").code == 0 {
			return
		}
		select {
		case <-u.done:
			o.t.Fatalf("moggy %s ended before %s stood at %s\n%s", strings.Join(u.args, " "), node, step, u.out.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// flows are pings, twenty a second, from every node to every other.
type flows struct {
	o     *operator
	nodes map[string]string // and their mesh addresses
}

func (o *operator) pingAll() flows {
	o.t.Helper()
	f := flows{o, make(map[string]string)}
	for _, n := range o.summary().Nodes {
		f.nodes[string(n.Name)] = n.V4
	}
	for from := range f.nodes {
		var line strings.Builder
		line.WriteString("rm -rf /tmp/flows; mkdir /tmp/flows; ")
		for to, address := range f.nodes {
			if to != from {
				fmt.Fprintf(&line, "setsid ping -i 0.05 -W 2 %s >/tmp/flows/%s 2>&1 & ", address, to)
			}
		}
		o.sh(from, line.String()+"true")
	}
	return f
}

// stop ends the pings, and names each that was lost. The last of a flow may be on
// its way when ping is told to end.
func (f flows) stop() (lost []string, sent int) {
	f.o.t.Helper()
	for from := range f.nodes {
		f.o.sh(from, "pkill -INT -x ping; while pgrep -x ping >/dev/null; do sleep 0.1; done")
		for to := range f.nodes {
			if to == from {
				continue
			}
			var tx, rx int
			out := f.o.sh(from, "cat /tmp/flows/"+to)
			i := strings.Index(out, "statistics ---")
			if i < 0 {
				f.o.t.Fatalf("%s to %s: %q", from, to, out)
			}
			if _, err := fmt.Sscanf(out[i:], "statistics ---\n%d packets transmitted, %d received", &tx, &rx); err != nil {
				f.o.t.Fatalf("%s to %s: %q: %v", from, to, out, err)
			}
			sent += tx
			if rx == 0 {
				f.o.t.Fatalf("%s to %s: no answer at all", from, to)
			}
			for seq := range tx {
				if n := seq + 1; n < tx && !strings.Contains(out, fmt.Sprintf("icmp_seq=%d ttl", n)) {
					lost = append(lost, fmt.Sprintf("%s to %s: number %d of %d", from, to, n, tx))
				}
			}
		}
	}
	return lost, sent
}
