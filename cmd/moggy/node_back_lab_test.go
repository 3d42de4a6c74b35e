package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// backNode is a machine whose generations bring moggy and the guard along.
type backNode struct {
	onNode
	next *int // the number of the next generation
	good *int // the one confirmed last
}

// TestLabNodeBack proves on a real machine that a change can be taken back: by
// time, by crashes, killed at every step, and without power at every step. In
// make test some steps stand for the others.
func TestLabNodeBack(t *testing.T) {
	o := newOperator(t, "test-back", filepath.Join("..", "..", "examples", "one", "fleet.hcl"))
	o.must("lab", "up", "--name", o.lab)
	next, good := 1, 0
	n := backNode{onNode{o, "solo"}, &next, &good}
	n.must("lab", "copy", "--name", n.lab, n.moggy, n.name+":/root/moggy")
	n.node(nil, "init")
	type part struct {
		name string
		run  func(backNode)
	}
	parts := []part{
		{"confirmed", backNode.confirmed},
		{"nobody confirms", backNode.deadline},
		{"crashes after 10 s", backNode.crashes},
		{"says that it is not well", backNode.unwell},
		{"killed at every step", backNode.killed},
		{"killed at every step of the way back", backNode.killedOnTheWayBack},
		{"killed on probation", backNode.killedOnProbation},
		{"no power at any step", backNode.powerless},
		{"two operators", backNode.twoOperators},
		{"our directory a mount of its own", backNode.mountedApart},
	}
	if allFaults() {
		parts = append(parts, part{"needs five minutes", backNode.minutes})
	}
	for _, part := range parts {
		ok := t.Run(part.name, func(t *testing.T) {
			part.run(backNode{onNode{n.with(t), n.name}, &next, &good})
		})
		if !ok {
			break
		}
	}
}

// guarded is a generation with moggy, its guard, and a unit of that line.
func (n backNode) guarded(exec string, checks ...fleet.Check) (int, fleet.Manifest, map[fleet.Digest][]byte) {
	n.t.Helper()
	number := *n.next
	*n.next++
	m, content := demo(number, fmt.Sprint("config ", number), prepare)
	m.Checks = checks
	put := func(path string, mode uint32, b []byte) {
		f := fleet.NewFile(path, mode, b)
		m.Files = slices.DeleteFunc(m.Files, func(f fleet.ManifestFile) bool { return f.Path == path })
		m.Files = append(m.Files, fleet.ManifestFile{Path: path, Mode: mode, Digest: f.Digest})
		content[f.Digest] = b
	}
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			n.t.Fatal(err)
		}
		return b
	}
	put("/usr/local/bin/moggy", 0o755, read(n.moggy))
	put("/etc/systemd/system/"+protocol.GuardUnit, 0o644, read("../../internal/engine/agent/moggy-guard.service"))
	put("/etc/systemd/system/demo.service", 0o644, fmt.Appendf(nil,
		"[Service]\nType=exec\nExecStartPre=%s\n%s\n[Install]\nWantedBy=multi-user.target\n", prepare, exec))
	m.Units = append(m.Units, fleet.Unit{Name: protocol.GuardUnit})
	return number, m, content
}

const (
	sound = "ExecStart=/bin/sleep infinity"
	// broken does not start.
	broken = "ExecStart=/bin/sh -c 'echo it broke; exit 7'\nExecStartPost=/bin/sleep 1"
)

// bring stages a generation, and returns its number.
func (n backNode) bring(exec string, checks ...fleet.Check) int {
	n.t.Helper()
	number, m, content := n.guarded(exec, checks...)
	n.send(m, content)
	return number
}

// stands fails the test unless that generation is in force, confirmed, and runs.
func (n backNode) stands(number int) {
	n.t.Helper()
	o := n.observe()
	if o.Current.Number != number || !o.Current.Confirmed || len(o.Drift) > 0 || o.Activation != nil || o.Probation != nil {
		n.t.Errorf("generation %+v, drift %+v, activation %+v, probation %+v; want %d and nothing else",
			o.Current, o.Drift, o.Activation, o.Probation, number)
	}
	for _, u := range o.Units {
		if u.Active != "active" {
			n.t.Errorf("unit %s is %s", u.Name, u.Active)
		}
	}
	if got, want := n.mustSh("cat /etc/moggy/demo.conf"), fmt.Sprint("config ", number); got != want {
		n.t.Errorf("the file shows %q, want %q", got, want)
	}
	log := n.mustSh("journalctl -q -o cat -u demo.service _TRANSPORT=stdout _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID demo)")
	if want := fmt.Sprint("config ", number); !strings.HasSuffix(log, want) {
		n.t.Errorf("the service started with %q, want %q", log, want)
	}
}

// keep activates and confirms.
func (n backNode) keep(number int) {
	n.t.Helper()
	answer[protocol.Event](n.onNode, nil, "activate", fmt.Sprint(number), "--confirm-within", "30s", "--commit", "c0ffee")
	answer[protocol.Standing](n.onNode, nil, "confirm", fmt.Sprint(number))
	n.ended(number)
	*n.good = number
	n.stands(number)
}

// ended waits until the activation's unit is gone.
func (n backNode) ended(number int) {
	n.t.Helper()
	n.until("the activation's unit is gone", func() bool {
		return n.sh(fmt.Sprintf("systemctl status moggy-activate-%d.service", number)).code == 4
	})
}

func (n backNode) lastTurn() fleet.Turn {
	n.t.Helper()
	h := answer[protocol.History](n.onNode, nil, "history")
	if len(h.Turns) == 0 {
		n.t.Fatal("no history")
	}
	return h.Turns[len(h.Turns)-1]
}

// bad is how long a generation was in force that is not any more, by its
// report: from the switch to the end of the way back.
func (n backNode) bad(number int, report string) time.Duration {
	n.t.Helper()
	var from, to time.Time
	for line := range strings.Lines(report) {
		var e protocol.Event
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		if e.Step == "switch" && from.IsZero() {
			from = e.At
		}
		if e.End != nil && e.End.WentBack {
			to = e.At
		}
	}
	took := to.Sub(from)
	if from.IsZero() || to.IsZero() || took > time.Minute {
		n.t.Errorf("generation %d stood for %s, want under a minute\n%s", number, took, report)
	}
	n.t.Logf("the bad generation stood for %.1f s", took.Seconds())
	return took
}

func (n backNode) confirmed() {
	n.keep(n.bring(sound)) // the first: nothing to go back to
	number := n.bring(sound)
	end := answer[protocol.Event](n.onNode, nil, "activate", fmt.Sprint(number), "--confirm-within", "30s", "--commit", "c0ffee+")
	if end.End == nil || end.End.Error != "" || end.End.ConfirmBy.IsZero() {
		n.t.Fatalf("the last line: %+v", end.End)
	}
	if o := n.observe(); o.Probation == nil || o.Probation.Generation != number || o.Probation.Previous != *n.good || o.Current.Confirmed {
		n.t.Errorf("on probation: %+v, %+v", o.Probation, o.Current)
	}
	answer[protocol.Standing](n.onNode, nil, "confirm", fmt.Sprint(number))
	n.ended(number)
	*n.good = number
	n.stands(number)
	if last := n.lastTurn(); last.Kind != fleet.TurnConfirmed || last.Generation != number || last.Commit != "c0ffee+" || last.By != "nico@laptop" {
		n.t.Errorf("history: %+v", last)
	}
}

func (n backNode) deadline() {
	number := n.bring(sound)
	end := answer[protocol.Event](n.onNode, nil, "activate", fmt.Sprint(number), "--confirm-within", "5s")
	if end.End == nil || end.End.Error != "" || end.End.ConfirmBy.IsZero() {
		n.t.Fatalf("the last line: %+v", end.End)
	}
	n.ended(number)
	n.stands(*n.good)
	r := n.node(nil, "wait", fmt.Sprint(number))
	if r.code != 1 || !strings.Contains(r.err, fmt.Sprintf("went back to generation %d", *n.good)) || !strings.Contains(r.err, "nobody confirmed it in time") {
		n.t.Errorf("wait: exit code %d\n%s", r.code, r.err)
	}
	if last := n.lastTurn(); last.Kind != fleet.TurnWentBack || last.Generation != *n.good || last.From != number || !strings.Contains(last.Why, "nobody confirmed") {
		n.t.Errorf("history: %+v", last)
	}
	if r := n.node(nil, "confirm", fmt.Sprint(number)); r.code != 1 {
		n.t.Errorf("confirmed too late: exit code %d", r.code)
	}
}

func (n backNode) crashes() {
	for name, exec := range map[string]string{
		"for good":   "ExecStart=/bin/sh -c 'sleep 10; echo oh no; exit 3'",
		"time again": "ExecStart=/bin/sh -c 'sleep 10; echo oh no; kill -9 $$$$'\nRestart=always\nRestartSec=1",
	} {
		number := n.bring(exec)
		end := answer[protocol.Event](n.onNode, nil, "activate", fmt.Sprint(number), "--confirm-within", "60s")
		if end.End == nil || end.End.Error != "" {
			n.t.Fatalf("%s: the last line: %+v", name, end.End)
		}
		n.ended(number)
		n.stands(*n.good)
		r := n.node(nil, "wait", fmt.Sprint(number))
		if r.code != 1 || !strings.Contains(r.err, "unit demo.service: ") || !strings.Contains(r.err, "oh no") {
			n.t.Errorf("%s: wait: exit code %d\n%s", name, r.code, r.err)
		}
		n.bad(number, r.out)
	}
}

func (n backNode) minutes() {
	number := n.bring("TimeoutStartSec=900\nExecStartPre=/bin/sleep 300\n" + sound)
	r := n.node(nil, "activate", fmt.Sprint(number), "--confirm-within", "30s")
	if r.code != 1 || !strings.Contains(r.err, "went back") || !strings.Contains(r.err, "still activating") {
		n.t.Errorf("exit code %d\n%s", r.code, r.err)
	}
	n.stands(*n.good)
	n.bad(number, r.out)
}

func (n backNode) unwell() {
	number := n.bring(sound, fleet.Check{
		Name: "the demo is well", Kind: fleet.CheckRun, Seconds: 3, Command: []string{"/bin/sh", "-c", "echo so ill >&2; exit 1"},
	})
	r := n.node(nil, "activate", fmt.Sprint(number), "--confirm-within", "30s")
	if r.code != 1 || !strings.Contains(r.err, `check "the demo is well"`) || !strings.Contains(r.err, "so ill") {
		n.t.Errorf("exit code %d\n%s", r.code, r.err)
	}
	n.stands(*n.good)
	n.bad(number, r.out)
	n.keep(n.bring(sound, fleet.Check{Name: "fine", Kind: fleet.CheckRun, Command: []string{"/bin/true"}},
		fleet.Check{Name: "ssh", Kind: fleet.CheckSSH, Address: "127.0.0.1:22"}, fleet.Check{Name: "of a newer moggy", Kind: "dance"}))
}

// struck are the steps at which something happens: all of them, as the code
// names them, or in make test the one before and the one after the switch that
// leave the most behind.
func (n backNode) struck() []string {
	n.t.Helper()
	steps := answer[[]string](n.onNode, nil, "steps")
	if allFaults() {
		return steps
	}
	return slices.DeleteFunc(steps, func(s string) bool { return s != "record" && s != "link" })
}

// heldAt activates a generation that is held at a step; nobody follows it.
func (n backNode) heldAt(number int, step string) {
	n.t.Helper()
	n.mustSh("mkdir -p -m 700 /run/moggy-node; echo '" + step + "' >/run/moggy-node/hold-at")
	cmd := exec.Command(n.moggy, "lab", "exec", "--name", n.lab, n.name, "--",
		"/root/moggy", "node", "--by", "nico@laptop", "activate", fmt.Sprint(number), "--confirm-within", "30s")
	cmd.Dir = n.dir
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.until("it is held at "+step, func() bool {
		return n.sh(fmt.Sprintf("grep -q 'waits at %s' /run/moggy-node/%d.*.jsonl", step, number)).code == 0
	})
	cmd.Process.Kill()
	cmd.Wait()
}

// kill kills the activation, lets what comes after it go on, and waits for its
// end.
func (n backNode) kill(number int) result {
	n.t.Helper()
	n.mustSh(fmt.Sprintf("systemctl kill -s KILL moggy-activate-%d.service; rm /run/moggy-node/hold-at", number))
	return n.node(nil, "wait", fmt.Sprint(number))
}

func (n backNode) killed() {
	for _, step := range n.struck() {
		number := n.bring(sound)
		n.heldAt(number, step)
		if r := n.kill(number); r.code != 0 {
			n.t.Errorf("killed at %s: exit code %d\n%s%s", step, r.code, r.out, r.err)
		}
		answer[protocol.Standing](n.onNode, nil, "confirm", fmt.Sprint(number))
		*n.good = number
		n.ended(number)
		n.stands(number)
		if n.t.Failed() {
			n.t.Fatalf("killed at %s", step)
		}
	}
}

func (n backNode) killedOnTheWayBack() {
	for _, step := range n.struck() {
		number := n.bring(broken)
		n.heldAt(number, "back "+step)
		r := n.kill(number)
		if r.code != 1 || !strings.Contains(r.err, "went back") {
			n.t.Errorf("killed at %s: exit code %d\n%s%s", step, r.code, r.out, r.err)
		}
		n.ended(number)
		n.stands(*n.good)
		if last := n.lastTurn(); last.Kind != fleet.TurnWentBack || last.From != number {
			n.t.Errorf("history: %+v", last)
		}
		if n.t.Failed() {
			n.t.Fatalf("killed on the way back at %s", step)
		}
	}
}

func (n backNode) killedOnProbation() {
	number := n.bring(sound)
	answer[protocol.Event](n.onNode, nil, "activate", fmt.Sprint(number), "--confirm-within", "6s")
	n.mustSh(fmt.Sprintf("systemctl kill -s KILL moggy-activate-%d.service", number))
	n.ended(number)
	n.stands(*n.good)
	if last := n.lastTurn(); last.Kind != fleet.TurnWentBack || last.From != number {
		n.t.Errorf("history: %+v", last)
	}
}

// powerless pulls the plug at each step, and once more where the generation
// waits to be confirmed.
func (n backNode) powerless() {
	for _, step := range append(n.struck(), "probation") {
		number := n.bring(sound)
		n.heldAt(number, step)
		n.reboot()
		n.until("demo runs", func() bool { return n.sh("systemctl is-active -q demo").code == 0 })
		n.stands(*n.good)
		last := n.lastTurn()
		if last.By != "boot" && last.By != "nico@laptop" || last.Kind != fleet.TurnWentBack && last.Kind != fleet.TurnFailed {
			n.t.Errorf("history: %+v", last)
		}
		n.t.Logf("at %s: %s, %s", step, last.Kind, last.Why)
		if r := n.node(nil, "wait", fmt.Sprint(number)); r.code != 1 || last.By == "boot" && !strings.Contains(r.err, "the machine restarted meanwhile, and "+string(last.Kind)) {
			n.t.Errorf("wait: exit code %d\n%s", r.code, r.err)
		}
		if n.t.Failed() {
			n.t.Fatalf("no power at %s\n%s", step, n.sh("journalctl -b -q -o cat -u moggy-guard").out)
		}
	}
	n.keep(n.bring(sound))
}

// mountedApart: systemd reads the unit files before it mounts where they come
// from, and the guard has the mount to wait for.
func (n backNode) mountedApart() {
	n.mustSh(`cp -a /var/lib/moggy /srv/moggy && mv /var/lib/moggy /srv/before && mkdir /var/lib/moggy
		echo "/srv/moggy /var/lib/moggy none bind 0 0" >>/etc/fstab && systemctl daemon-reload && mount /var/lib/moggy`)
	n.keep(n.bring(sound))
	steps := []string{"reload"}
	if allFaults() {
		steps = []string{"link", "reload", "probation"}
	}
	for _, step := range steps {
		number := n.bring("Environment=A=1\n" + sound)
		n.heldAt(number, step)
		n.reboot()
		n.stands(*n.good)
		if kind := n.mustSh("stat -c %F /etc/systemd/system/demo.service"); kind != "regular file" {
			n.t.Errorf("the unit file is a %s", kind)
		}
	}
}

func (n backNode) twoOperators() {
	first := exec.Command(n.moggy, "lab", "exec", "--name", n.lab, n.name, "--", "/root/moggy", "node", "--by", "ada@desk", "hold", "--what", "apply")
	first.Dir = n.dir
	in, err := first.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := first.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		n.t.Fatal(err)
	}
	if err := json.NewDecoder(out).Decode(&protocol.Done{}); err != nil {
		n.t.Fatal(err)
	}
	if r := n.node(nil, "hold"); r.code != protocol.ExitLocked || !strings.Contains(r.err, "locked by ada@desk (apply) since ") {
		n.t.Errorf("the second: exit code %d\n%s", r.code, r.err)
	}
	in.Close()
	if err := first.Wait(); err != nil {
		n.t.Error(err)
	}
	answer[protocol.Done](n.onNode, nil, "hold")
}
