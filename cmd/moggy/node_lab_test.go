package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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

// onNode is one machine with a real systemd, and the operator's side of the
// protocol by hand.
type onNode struct {
	*operator
	name string
}

// TestLabNode puts generations in force on a machine with a real systemd:
// linked units, restarts, going back, drift, lost followers, lost power.
func TestLabNode(t *testing.T) {
	o := newOperator(t, "test-node", filepath.Join("..", "..", "examples", "one", "fleet.hcl"))
	o.must("lab", "up", "--name", o.lab)
	n := onNode{o, "solo"}
	n.must("lab", "copy", "--name", n.lab, n.moggy, n.name+":/root/moggy")
	for _, part := range []struct {
		name string
		run  func(onNode)
	}{
		{"init", onNode.init},
		{"first generation", onNode.first},
		{"nothing to do", onNode.nothing},
		{"change", onNode.change},
		{"crash goes back", onNode.crash},
		{"drift", onNode.drifted},
		{"follower killed, second operator", onNode.followerKilled},
		{"activation killed", onNode.activationKilled},
		{"power lost", onNode.powerLost},
		{"our directory a mount of its own", onNode.mountedApart},
		{"systemd as the fake has it", onNode.conformance},
	} {
		ok := t.Run(part.name, func(t *testing.T) { part.run(onNode{n.with(t), n.name}) })
		if !ok {
			break // the next part builds on this one
		}
	}
}

// sh runs a line of shell at the machine.
func (n onNode) sh(line string) result {
	n.t.Helper()
	return n.at(n.name, "sh", "-c", line)
}

func (n onNode) mustSh(line string) string {
	n.t.Helper()
	r := n.sh(line)
	if r.code != 0 {
		n.t.Fatalf("%s: exit code %d\n%s%s", line, r.code, r.out, r.err)
	}
	return strings.TrimSpace(r.out)
}

// node runs moggy node at the machine.
func (n onNode) node(stdin []byte, args ...string) result {
	n.t.Helper()
	return n.runWith(string(stdin), append([]string{
		"lab", "exec", "--name", n.lab, n.name, "--", "/root/moggy", "node", "--by", "nico@laptop",
	}, args...)...)
}

// answer is node, of a command that may not fail.
func answer[T any](n onNode, stdin []byte, args ...string) T {
	n.t.Helper()
	r := n.node(stdin, args...)
	if r.code != 0 {
		n.t.Fatalf("moggy node %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	var v T
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &v); err != nil {
		n.t.Fatalf("moggy node %s: %v\n%s", strings.Join(args, " "), err, r.out)
	}
	return v
}

// demo is a generation with a service that shows its configuration in its log.
// The script may do something before it becomes a service.
func demo(number int, config, script string) (fleet.Manifest, map[fleet.Digest][]byte) {
	const unit = `[Unit]
Description=demo
[Service]
Type=exec
ExecStartPre=%s
ExecStart=/bin/sleep infinity
ExecReload=/bin/cat /etc/moggy/reload.conf
[Install]
WantedBy=multi-user.target
`
	files := []fleet.File{
		fleet.NewFile("/etc/moggy/demo.conf", 0o644, []byte(config+"\n")),
		fleet.NewFile("/etc/moggy/reload.conf", 0o600, []byte("reload\n")),
		fleet.NewFile("/etc/systemd/system/demo.service", 0o644, fmt.Appendf(nil, unit, script)),
		fleet.NewFile("/usr/local/bin/demo-prepare", 0o755, []byte("#!/bin/sh\ncat /etc/moggy/demo.conf\n")),
	}
	m := fleet.Manifest{Version: 1, Fleet: "one", Node: "solo", Generation: number, Units: []fleet.Unit{{
		Name: "demo.service", RestartOn: []string{"/etc/moggy/demo.conf", "/usr/local/bin/demo-prepare"}, ReloadOn: []string{"/etc/moggy/reload.conf"},
	}}}
	content := make(map[fleet.Digest][]byte)
	for _, f := range files {
		m.Files = append(m.Files, fleet.ManifestFile{Path: f.Path, Mode: f.Mode, Digest: f.Digest})
		content[f.Digest] = f.Content
	}
	return m, content
}

const prepare = "/usr/local/bin/demo-prepare"

func (n onNode) stage(number int, config, script string) {
	n.t.Helper()
	n.send(demo(number, config, script))
}

// send stages a generation.
func (n onNode) send(m fleet.Manifest, content map[fleet.Digest][]byte) {
	n.t.Helper()
	doc, err := json.Marshal(m)
	if err != nil {
		n.t.Fatal(err)
	}
	missing := answer[protocol.Missing](n, doc, "missing")
	var blobs []protocol.Blob
	for _, d := range missing.Digests {
		blobs = append(blobs, protocol.Blob{Digest: d, Size: int64(len(content[d]))})
	}
	var stream bytes.Buffer
	err = protocol.WriteStream(&stream, m, blobs, func(d fleet.Digest) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content[d])), nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if staged := answer[protocol.Staged](n, stream.Bytes(), "stage"); staged.Generation != m.Generation || staged.Digest != protocol.DigestOf(m) {
		n.t.Fatalf("staged %+v", staged)
	}
}

func (n onNode) observe() fleet.Observed {
	n.t.Helper()
	return answer[fleet.Observed](n, nil, "observe")
}

// whole fails the test unless generation number is in force, and runs.
func (n onNode) whole(number int, config string) {
	n.t.Helper()
	o := n.observe()
	if o.Current.Number != number || len(o.Drift) > 0 || o.Activation != nil {
		n.t.Errorf("generation %d, drift %+v, activation %+v; want %d and none", o.Current.Number, o.Drift, o.Activation, number)
	}
	if len(o.Units) != 1 || o.Units[0].Active != "active" {
		n.t.Errorf("units: %+v", o.Units)
	}
	if got := n.mustSh("cat /etc/moggy/demo.conf"); got != config {
		n.t.Errorf("the file shows %q, want %q", got, config)
	}
	if got := n.mustSh("journalctl -q -o cat -u demo.service _TRANSPORT=stdout _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID demo)"); !strings.HasSuffix(got, config) {
		n.t.Errorf("the service started with %q, want %q", got, config)
	}
}

func (n onNode) init() {
	first := answer[protocol.Init](n, nil, "init")
	second := answer[protocol.Init](n, nil, "init")
	if first.MeshKey.IsZero() || first.MeshKey != second.MeshKey {
		n.t.Errorf("keys %s and %s", first.MeshKey, second.MeshKey)
	}
	if got := n.mustSh("stat -c %a:%U /var/lib/moggy /var/lib/moggy/keys /var/lib/moggy/keys/mesh.key | xargs"); got != "711:root 700:root 600:root" {
		n.t.Errorf("modes %s", got)
	}
	if o := n.observe(); o.MeshKey != first.MeshKey || len(o.HostKeys) == 0 || o.System.OS != "debian" || o.System.Kernel == "" ||
		o.System.Uptime <= 0 || o.System.Uptime > time.Hour || o.System.MemTotal == 0 || o.System.DiskTotal == 0 {
		n.t.Errorf("observed %+v", o)
	}
}

func (n onNode) first() {
	n.stage(1, "one", prepare)
	end := answer[protocol.Event](n, nil, "activate", "1")
	if end.End == nil || end.End.Error != "" || end.End.Generation != 1 || !end.End.Changed {
		n.t.Fatalf("the last line: %+v", end)
	}
	answer[protocol.Standing](n, nil, "confirm", "1")
	n.whole(1, "one")
	if got := n.mustSh("systemctl is-enabled demo"); got != "enabled" {
		n.t.Errorf("systemctl is-enabled: %s", got)
	}
	if r := n.sh("systemctl status moggy-activate-1.service"); r.code != 4 { // no such unit
		n.t.Errorf("the activation's unit is left:\n%s", r.out)
	}
}

func (n onNode) nothing() {
	since := n.mustSh("systemctl show -P ActiveEnterTimestampMonotonic demo")
	n.stage(1, "one", prepare)
	if end := answer[protocol.Event](n, nil, "activate", "1"); end.End == nil || end.End.Changed || end.End.Error != "" {
		n.t.Errorf("the last line: %+v", end.End)
	}
	if now := n.mustSh("systemctl show -P ActiveEnterTimestampMonotonic demo"); now != since {
		n.t.Error("the unit was restarted for nothing")
	}
	// The bar: well under 0.1 s, or a status of many nodes gets slow.
	var took []float64
	for range 9 {
		var s float64
		out := n.mustSh(`s=$(date +%s%N); /root/moggy node observe >/dev/null; e=$(date +%s%N); echo $((e-s))`)
		fmt.Sscan(out, &s)
		took = append(took, s/1e6)
	}
	slices.Sort(took)
	n.t.Logf("observe: median %.0f ms", took[4])
	if took[0] > 150 { // other tests may be at work
		n.t.Errorf("observe took %.0f ms at best, want well under 100", took[0])
	}
}

func (n onNode) change() {
	n.stage(2, "two", prepare)
	end := answer[protocol.Event](n, nil, "activate", "2")
	if end.End == nil || !end.End.Changed || end.End.Error != "" {
		n.t.Fatalf("the last line: %+v", end.End)
	}
	n.whole(2, "two")
	if again := answer[protocol.Event](n, nil, "wait", "2"); again.End == nil || again.End.Error != end.End.Error || again.End.Generation != end.End.Generation {
		n.t.Errorf("wait says %+v, activate said %+v", again.End, end.End)
	}
	answer[protocol.Event](n, nil, "back")
	n.whole(1, "one")
	answer[protocol.Event](n, nil, "activate", "2")
	answer[protocol.Standing](n, nil, "confirm", "2")
	n.whole(2, "two")
}

func (n onNode) crash() {
	n.stage(3, "three", "/bin/sh -c 'echo it broke; exit 7'")
	r := n.node(nil, "activate", "3")
	if r.code != 1 || !strings.Contains(r.err, "went back to generation 2") || !strings.Contains(r.err, "it broke") {
		n.t.Errorf("exit code %d, want 1, the way back and the log\n%s%s", r.code, r.out, r.err)
	}
	n.whole(2, "two")
	if o := n.observe(); !o.Current.Confirmed {
		n.t.Errorf("%+v", o.Current)
	}
}

func (n onNode) drifted() {
	n.mustSh(`systemctl disable -q --now demo; echo by hand >/etc/moggy/demo.conf
		rm /usr/local/bin/demo-prepare; echo gone >/usr/local/bin/demo-prepare
		chmod 666 $(readlink -f /etc/moggy/reload.conf)`)
	var got []string
	for _, d := range n.observe().Drift {
		got = append(got, d.Path+" "+string(d.Kind)+" "+strings.TrimSpace(d.Content))
	}
	want := []string{
		"/etc/moggy/demo.conf changed by hand", "/etc/moggy/reload.conf mode ",
		"/etc/systemd/system/demo.service missing ", "/etc/systemd/system/multi-user.target.wants/demo.service missing ",
		"/usr/local/bin/demo-prepare changed gone",
	}
	if !slices.Equal(got, want) {
		n.t.Errorf("drift\n%q, want\n%q", got, want)
	}
	n.stage(2, "two", prepare)
	answer[protocol.Event](n, nil, "activate", "2")
	n.whole(2, "two")
	if kept := n.mustSh("cd /var/lib/moggy/replaced/*/ && cat etc/moggy/demo.conf usr/local/bin/demo-prepare | xargs"); kept != "by hand gone" {
		n.t.Errorf("kept %q", kept)
	}
}

// slow begins an activation that takes some seconds, and returns once it waits
// for its unit.
func (n onNode) slow(number int) {
	n.t.Helper()
	n.stage(number, fmt.Sprint("slow ", number), "/bin/sh -c 'sleep 4; cat /etc/moggy/demo.conf'")
	cmd := exec.Command(n.moggy, "lab", "exec", "--name", n.lab, n.name, "--",
		"/root/moggy", "node", "--by", "nico@laptop", "activate", fmt.Sprint(number))
	cmd.Dir = n.dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	defer cmd.Wait()
	var seen bytes.Buffer
	for buf := make([]byte, 4096); !strings.Contains(seen.String(), `"step":"start"`); {
		got, err := out.Read(buf)
		seen.Write(buf[:got])
		if err != nil {
			n.t.Fatalf("the activation ended too early:\n%s", seen.String())
		}
	}
	cmd.Process.Kill()
	n.sh("pkill -9 -f '^/root/moggy node --by nico@laptop activate [0-9]'")
}

func (n onNode) followerKilled() {
	n.slow(4)
	if r := n.node([]byte("{}\n"), "stage"); r.code != protocol.ExitLocked || !strings.Contains(r.err, "locked by nico@laptop (activate 4") {
		n.t.Errorf("a second operator: exit code %d, want %d and who has the lock\n%s", r.code, protocol.ExitLocked, r.err)
	}
	if p := n.observe().Activation; p == nil || !p.Running || p.Generation != 4 {
		n.t.Errorf("observed while it runs: %+v", p)
	}
	if end := answer[protocol.Event](n, nil, "activate", "4"); end.End == nil || end.End.Error != "" || !end.End.Changed {
		n.t.Errorf("following the one that runs: %+v", end.End)
	}
	answer[protocol.Standing](n, nil, "confirm", "4")
	n.whole(4, "slow 4")
}

func (n onNode) activationKilled() {
	n.slow(5)
	n.mustSh("systemctl kill -s KILL moggy-activate-5.service")
	if end := answer[protocol.Event](n, nil, "wait", "5"); end.End == nil || end.End.Generation != 5 || end.End.Error != "" {
		n.t.Errorf("its unit has not gone on: %+v", end.End)
	}
	answer[protocol.Standing](n, nil, "confirm", "5")
	n.whole(5, "slow 5")
}

// reboot pulls the plug, and puts it in again.
func (n onNode) reboot() {
	n.t.Helper()
	n.must("lab", "fail", "--name", n.lab, n.name)
	n.must("lab", "heal", "--name", n.lab, n.name)
	n.until("the machine is up", func() bool { return n.sh("systemctl is-active -q multi-user.target").code == 0 })
}

func (n onNode) powerLost() {
	n.slow(6)
	n.reboot()
	if got := n.mustSh("systemctl is-active demo; cat /etc/moggy/demo.conf"); got != "active\nslow 6" {
		n.t.Errorf("after the reboot: %q", got)
	}
	if p := n.observe().Activation; p == nil || p.Running || p.Generation != 6 {
		n.t.Errorf("observed: %+v", p)
	}
	answer[protocol.Event](n, nil, "activate", "6")
	answer[protocol.Standing](n, nil, "confirm", "6")
	n.whole(6, "slow 6")
}

// mountedApart: systemd reads unit files before it mounts anything, and must
// start ours all the same.
func (n onNode) mountedApart() {
	n.mustSh(`cp -a /var/lib/moggy /srv/moggy && mv /var/lib/moggy /srv/before && mkdir /var/lib/moggy
		echo "/srv/moggy /var/lib/moggy none bind 0 0" >>/etc/fstab && systemctl daemon-reload && mount /var/lib/moggy`)
	n.stage(7, "seven", prepare)
	answer[protocol.Event](n, nil, "activate", "7")
	answer[protocol.Standing](n, nil, "confirm", "7")
	n.whole(7, "seven")
	n.reboot()
	n.whole(7, "seven")
	if kind := n.mustSh("stat -c %F /etc/systemd/system/demo.service"); kind != "regular file" {
		n.t.Errorf("the unit file is a %s", kind)
	}
}

// conformance runs the suite that the fake passes on the machine's systemd.
func (n onNode) conformance() {
	bin := filepath.Join(n.t.TempDir(), "systemd.test")
	build := exec.Command("go", "test", "-c", "-o", bin, "../../internal/deploy/node/systemd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		n.t.Fatalf("build: %v\n%s", err, out)
	}
	n.must("lab", "copy", "--name", n.lab, bin, n.name+":/root/systemd.test")
	out := n.mustSh("MOGGY_TEST_SYSTEMD=1 /root/systemd.test -test.run '^TestSystemdReal$' -test.v")
	if !strings.Contains(out, "--- PASS: TestSystemdReal") {
		n.t.Errorf("not run:\n%s", out)
	}
}
