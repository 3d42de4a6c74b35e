package nodecmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// moggy is the version that speaks.
const moggy = "0.0.0-test"

// result is how one command ended.
type result struct {
	out, err string
	code     int
}

// nodeBox is a machine in a temporary directory, spoken to as an operator does
// over ssh: by arguments, standard streams and exit codes.
type nodeBox struct {
	t       *testing.T
	root    string
	systemd *node.FakeSystemd
}

func newNodeBox(t *testing.T) *nodeBox {
	t.Helper()
	b := &nodeBox{t: t, root: t.TempDir()}
	b.systemd = &node.FakeSystemd{Root: b.root}
	b.systemd.Run = func(command []string) {
		b.run("", command[2:]...) // after the executable and "node"
	}
	for _, dir := range []string{"/etc/systemd/system", "/var/lib", "/run"} {
		if err := os.MkdirAll(b.root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// run is `moggy node --root ... ARGS`.
func (b *nodeBox) run(stdin string, args ...string) result {
	var out, errs bytes.Buffer
	cmd := New(cli.New(moggy, strings.NewReader(stdin), &out, &errs), b.systemd)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append([]string{"--root", b.root, "--by", "nico@laptop"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err := cmd.Execute()
	code := 0
	if err != nil {
		code = 1
		if special, ok := errors.AsType[cli.ExitCode](err); ok {
			code = int(special)
		} else {
			fmt.Fprintf(&errs, "moggy: error: %v\n", err)
		}
	}
	return result{out.String(), errs.String(), code}
}

func (b *nodeBox) must(stdin string, args ...string) string {
	b.t.Helper()
	r := b.run(stdin, args...)
	if r.code != 0 {
		b.t.Fatalf("%s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

func decoded[T any](t *testing.T, out string) T {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	v, err := protocol.Decode[T]([]byte(lines[len(lines)-1]))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return v
}

// demo is a generation with one unit and the file it is restarted for.
func demo(number int, config string) (fleet.Manifest, map[fleet.Digest][]byte) {
	m := fleet.Manifest{Version: 1, Fleet: "one", Node: "solo", Generation: number, Units: []fleet.Unit{{
		Name: "demo.service", RestartOn: []string{"/etc/moggy/demo.conf"},
	}}}
	content := make(map[fleet.Digest][]byte)
	for _, f := range []fleet.File{
		fleet.NewFile("/etc/moggy/demo.conf", 0o644, []byte(config+"\n")),
		fleet.NewFile("/etc/systemd/system/demo.service", 0o644, []byte("[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n")),
	} {
		m.Files = append(m.Files, fleet.ManifestFile{Path: f.Path, Mode: f.Mode, Digest: f.Digest})
		content[f.Digest] = f.Content
	}
	return m, content
}

// stream is a demo generation as an operator sends it.
func (b *nodeBox) stream(number int, config string) string {
	b.t.Helper()
	m, content := demo(number, config)
	doc, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	var blobs []protocol.Blob
	for _, d := range decoded[protocol.Missing](b.t, b.must(string(doc), "missing")).Digests {
		blobs = append(blobs, protocol.Blob{Digest: d, Size: int64(len(content[d]))})
	}
	var out bytes.Buffer
	err = protocol.WriteStream(&out, m, blobs, func(d fleet.Digest) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content[d])), nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out.String()
}

func TestNodeConversation(t *testing.T) {
	b := newNodeBox(t)
	init := decoded[protocol.Init](t, b.must("", "init"))
	if init.MeshKey.IsZero() || init.Moggy != moggy || init.Arch == "" {
		t.Errorf("init: %+v", init)
	}
	staged := decoded[protocol.Staged](t, b.must(b.stream(1, "one"), "stage"))
	end := decoded[protocol.Event](t, b.must("", "activate", "1", "--digest", string(staged.Digest)))
	if end.End == nil || end.End.Generation != 1 || end.End.Error != "" {
		t.Fatalf("activate: %+v", end.End)
	}
	if at := decoded[protocol.Standing](t, b.must("", "confirm", "1")); !at.Current.Confirmed {
		t.Errorf("confirm: %+v", at)
	}
	b.must(b.stream(2, "two"), "stage")
	b.must("", "activate", "2")
	b.must("", "confirm", "2")
	b.must("", "back")
	var o fleet.Observed
	if err := json.Unmarshal([]byte(b.must("", "observe", "--deep", "--content", "/etc/moggy/demo.conf")), &o); err != nil {
		t.Fatal(err)
	}
	if o.Current.Number != 1 || o.Contents["/etc/moggy/demo.conf"] != "one\n" || len(o.Drift) > 0 || o.MeshKey != init.MeshKey {
		t.Errorf("observed %+v", o)
	}
	var steps []node.Step
	if err := json.Unmarshal([]byte(b.must("", "steps")), &steps); err != nil || len(steps) != len(node.Steps()) {
		t.Errorf("steps: %v, %v", steps, err)
	}
	var kinds []fleet.TurnKind
	for _, turn := range decoded[protocol.History](t, b.must("", "history")).Turns {
		kinds = append(kinds, turn.Kind)
	}
	if want := []fleet.TurnKind{
		fleet.TurnActivated, fleet.TurnConfirmed, fleet.TurnActivated, fleet.TurnConfirmed, fleet.TurnActivated,
	}; !slices.Equal(kinds, want) {
		t.Errorf("history: %v, want %v", kinds, want)
	}
	if out := b.must("", "guard"); !strings.Contains(out, "nothing to guard") {
		t.Errorf("guard on a machine that is up: %s", out)
	}
	decoded[protocol.Done](t, b.must("", "hold")) // its stdin ends at once
	if end := decoded[protocol.Event](t, b.must("", "wait", "1")); end.End == nil || end.End.Generation != 1 {
		t.Errorf("wait: %+v", end)
	}
	b.systemd.Wait()
}

func TestNodeRefusals(t *testing.T) {
	b := newNodeBox(t)
	b.must(b.stream(1, "one"), "stage")
	good := b.stream(2, "two")
	tests := map[string]struct {
		stdin string
		args  []string
		code  int
		want  string
	}{
		"newer operator":  {"", []string{"--protocol", "3", "observe"}, protocol.ExitProtocol, "speaks protocol 3, this moggy knows up to 2"},
		"newer stream":    {strings.Replace(good, `"protocol":2`, `"protocol":3`, 1), []string{"stage"}, protocol.ExitProtocol, "speaks protocol 3"},
		"newer manifest":  {`{"version":2}`, []string{"missing"}, protocol.ExitProtocol, "version 2, this moggy knows up to 1"},
		"cut stream":      {good[:len(good)-3], []string{"stage"}, 1, "the stream ended 3 bytes too early"},
		"no such":         {"", []string{"activate", "9"}, 1, "generation 9 is not on this node"},
		"no number":       {"", []string{"activate", "../1"}, 1, "not a generation's number"},
		"not in force":    {"", []string{"confirm", "1"}, 1, "generation 1 is not in force, 0 is"},
		"nothing to back": {"", []string{"back"}, 1, "no generation is in force"},
		"another staged":  {"", []string{"activate", "1", "--digest", "0000"}, 1, "another one was staged"},
		"never activated": {"", []string{"wait", "5"}, 1, "no activation of generation 5"},
		"no agent":        {`{"node":"ari"}`, []string{"invite"}, 1, "invite ari: agent:"},
		"no invitation":   {`nonsense`, []string{"invite"}, 1, "invitation:"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := b.run(tt.stdin, tt.args...)
			if r.code != tt.code || !strings.Contains(r.err, tt.want) {
				t.Errorf("exit code %d, want %d and %q\n%s%s", r.code, tt.code, tt.want, r.out, r.err)
			}
		})
	}
	b.systemd.Wait()
}

func TestNodeLocked(t *testing.T) {
	b := newNodeBox(t)
	n := node.New(node.Options{Root: b.root, Systemd: b.systemd, Now: time.Now, By: "ada@desk"})
	h, err := n.Lock(t.Context(), "stage")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	r := b.run("", "init")
	if r.code != protocol.ExitLocked || !strings.Contains(r.err, "locked by ada@desk (stage") || !strings.Contains(r.err, "moggy: hint:") {
		t.Errorf("exit code %d\n%s", r.code, r.err)
	}
	b.must("", "observe") // looking is always possible
}

func TestNodeNeedsRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("is root")
	}
	b := newNodeBox(t)
	if r := b.run("", "--root", "/", "init"); r.code != 1 || !strings.Contains(r.err, "needs root") {
		t.Errorf("exit code %d\n%s", r.code, r.err)
	}
}
