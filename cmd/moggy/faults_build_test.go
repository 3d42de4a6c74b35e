package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// buildFaults bring a moggy, or a generation of one, that does not work: a build
// of the same source with one line changed.
func buildFaults() []fault {
	bad := func(name string, brief bool, want string, edits map[string][2]string) fault {
		return fault{name, brief, func(o *operator) {
			broken := *o
			broken.moggy = o.variant(edits, "0.0.0-test")
			before := o.observed()
			stop := o.watch("cosmo", "ari")
			started := time.Now()
			r := broken.remote("apply", "--yes")
			if r.code == 0 || !strings.Contains(r.err, want) {
				o.t.Errorf("apply: exit code %d after %.1f s, want a failure that says %q\n%s%s", r.code, time.Since(started).Seconds(), want, r.out, r.err)
			}
			o.t.Logf("the operator reads after %.0f s:\n%s", r.took.Seconds(), r.err)
			gap := stop()
			o.t.Logf("off the mesh for %s at most", gap)
			if gap >= time.Minute {
				o.t.Errorf("the bad generation kept the node off the mesh for %s, want under a minute", gap)
			}
			for i, n := range o.observed() {
				if now := n.seen.Current.Number; now != before[i].seen.Current.Number {
					o.t.Errorf("%s stands on generation %d, want %d as before: the rollout did not stop, or the node not go back", n.name, now, before[i].seen.Current.Number)
				}
			}
		}}
	}
	const (
		agent, start = "cmd/moggy/agent.go", "debug.SetGCPercent(agentGOGC)"
		unit         = "internal/engine/agent/moggy-agent.service"
	)
	return []fault{
		bad("a binary that crashes at start", true, "went back", map[string][2]string{
			agent: {start, "os.Exit(3)\n\t" + start},
		}),
		bad("a binary that crashes after 30 s", false, "went back", map[string][2]string{
			agent: {start, "time.AfterFunc(30*time.Second, func() { os.Exit(3) })\n\t" + start},
		}),
		bad("a generation whose mesh reaches nobody", false, "went back", map[string][2]string{
			"internal/engine/agent/agent.go": {"Key: have.MeshKey,", "Key: func() fleet.Key { k := have.MeshKey; if role.Hub { k[0] ^= 1 }; return k }(),"},
		}),
		bad("a generation whose sshd is broken", false, "went back", map[string][2]string{
			"internal/engine/operators/operators.go": {"AuthorizedKeysFile .ssh", "NoSuchOption yes\nAuthorizedKeysFile .ssh"},
		}),
		bad("a unit that needs five minutes", false, "went back", map[string][2]string{
			unit: {"ExecStart=", "ExecStartPre=/bin/sleep 300\nExecStart="},
		}),
	}
}

// variant builds moggy as that version, with lines of its source replaced.
func (o *operator) variant(edits map[string][2]string, version string) string {
	o.t.Helper()
	dir := o.t.TempDir()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		o.t.Fatal(err)
	}
	replace := make(map[string]string)
	for file, edit := range edits {
		path := filepath.Join(root, file)
		b, err := os.ReadFile(path)
		if err != nil {
			o.t.Fatal(err)
		}
		if !strings.Contains(string(b), edit[0]) {
			o.t.Fatalf("%s does not contain %q", file, edit[0])
		}
		changed := filepath.Join(dir, fmt.Sprintf("%d-%s", len(replace), filepath.Base(file)))
		if err := os.WriteFile(changed, []byte(strings.Replace(string(b), edit[0], edit[1], 1)), 0o644); err != nil {
			o.t.Fatal(err)
		}
		replace[path] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		o.t.Fatal(err)
	}
	bin := filepath.Join(dir, "moggy")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-trimpath",
		"-ldflags", "-s -w -X main.version="+version, "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		o.t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// watch pings from one node to another, by the mesh; what it returns stops that
// and tells the longest silence.
func (o *operator) watch(from, to string) func() time.Duration {
	v4, _ := o.address(fleet.NodeName(to))
	return o.pinging(from, v4)
}

// fleetFaults are about who stands where in the fleet.
func fleetFaults() []fault {
	return []fault{
		{"a node away, then back with an old generation", false, func(o *operator) {
			o.must("lab", "fail", "--name", o.lab, "bianco")
			for range 2 {
				o.change()
				r := o.remote("apply", "--yes")
				if r.code == 0 || !strings.Contains(r.err, "bianco") {
					o.t.Errorf("apply without bianco: exit code %d, want one that names it\n%s", r.code, r.err)
				}
			}
			o.must("lab", "heal", "--name", o.lab, "bianco")
		}},
		{"the wrong architecture", false, func(o *operator) {
			o.foreign()
			lock := o.lockText()
			o.write("fleet.lock.hcl", []byte(regexp.MustCompile(`(?s)(node "ari" \{.*?arch\s*=\s*)"amd64"`).ReplaceAllString(lock, `${1}"arm64"`)))
			r := o.remote("apply", "--yes")
			if r.code == 0 || !strings.Contains(r.err, "is for") {
				o.t.Errorf("apply: exit code %d, want a refusal that says for what it is\n%s%s", r.code, r.out, r.err)
			}
			o.t.Logf("the operator reads:\n%s", r.err)
			o.write("fleet.lock.hcl", []byte(lock))
			os.Remove(filepath.Join(filepath.Dir(o.moggy), "moggy-linux-arm64"))
		}},
		{"the jump host is the hub being changed", true, func(o *operator) {
			for _, hub := range []string{"maco", "miki"} { // only cosmo is left to jump by
				o.must("lab", "cut", "--name", o.lab, "operator", hub)
			}
			o.changeMesh()
			r := o.remote("apply", "--yes", "--node", "ari", "--node", "cosmo")
			if r.code != 0 {
				o.t.Errorf("apply: exit code %d\n%s%s", r.code, r.out, r.err)
			}
			for _, hub := range []string{"maco", "miki"} {
				o.must("lab", "heal", "--name", o.lab, "operator", hub)
			}
			o.changeMesh() // and back
		}},
		{"the last hub", false, func(o *operator) {
			for _, hub := range []string{"maco", "miki"} {
				o.must("lab", "fail", "--name", o.lab, hub)
			}
			o.until("two hubs are away", func() bool { return o.summary().Up == 4 })
			generation := o.seen("cosmo").Current.Number
			o.change()
			r := o.remote("apply", "--yes")
			if r.code == 0 || o.seen("cosmo").Current.Number != generation {
				o.t.Errorf("the last hub was changed from %d to %d, which cuts the homes from each other: exit code %d\n%s",
					generation, o.seen("cosmo").Current.Number, r.code, r.err)
			}
			o.t.Logf("the operator reads:\n%s", r.err)
			for _, hub := range []string{"maco", "miki"} {
				o.must("lab", "heal", "--name", o.lab, hub)
			}
		}},
	}
}

// foreign puts beside our moggy one that says it is for another machine.
func (o *operator) foreign() {
	o.t.Helper()
	b, err := os.ReadFile(o.moggy)
	if err != nil {
		o.t.Fatal(err)
	}
	const machine = 18                // e_machine (elf(5))
	b[machine], b[machine+1] = 183, 0 // EM_AARCH64
	path := filepath.Join(filepath.Dir(o.moggy), "moggy-linux-arm64")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		o.t.Fatal(err)
	}
}
