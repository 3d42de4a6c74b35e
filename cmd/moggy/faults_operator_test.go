package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/status"
)

// operatorFaults are what happens at the operator's end.
func operatorFaults() []fault {
	return []fault{
		{"Ctrl-C", true, func(o *operator) {
			o.change()
			o.holdAt("ari", "link")
			u := o.start("apply", "--yes")
			o.reached("ari", "link", u)
			u.signal(syscall.SIGINT)
			o.release("ari")
			if code, out := u.end(patience); code == 0 {
				o.t.Errorf("an interrupted apply ended with 0\n%s", out)
			}
		}},
		{"a key put on a node by hand is adopted", true, func(o *operator) {
			key := o.newKeyOf("ana@desk")
			o.sh("ari", "echo '"+key+"' >>/etc/moggy/authorized_keys.d/root")
			r := o.mustRemote("adopt", "--yes")
			if !strings.Contains(o.fleetFile(), key) || !strings.Contains(r.out, "+    ana") {
				o.t.Errorf("the file lacks the key, or its difference was not shown\n%s%s\n%s", r.out, r.err, o.fleetFile())
			}
			o.mustRemote("apply", "--yes")
			if got := o.sh("bianco", "cat /etc/moggy/authorized_keys.d/root"); !strings.Contains(got, key) {
				o.t.Errorf("bianco's operators: %s", got)
			}
		}},
		{"rolled back by hand", true, (*operator).rollsBack},
		{"two operators", true, func(o *operator) {
			o.change()
			o.holdAt("ari", "switch")
			u := o.start("apply", "--yes")
			o.reached("ari", "switch", u)
			second := o.elsewhere()
			r := second.remote("apply", "--yes")
			if r.code == 0 || !strings.Contains(r.err, "locked by") || !strings.Contains(r.err, "since") {
				o.t.Errorf("the second apply: exit code %d, want a refusal that says who and since when\n%s%s", r.code, r.out, r.err)
			}
			o.t.Logf("the second operator reads:\n%s", r.err)
			u.signal(syscall.SIGKILL) // the holder dies
			<-u.done
			o.release("ari")
			started := time.Now()
			o.until("the dead holder's lock is taken over", func() bool { return second.remote("apply", "--yes").code == 0 })
			o.t.Logf("taken over %.1f s after the holder died", time.Since(started).Seconds())
			o.write("fleet.lock.hcl", []byte(second.lockText())) // as git would bring it
		}},
		{"an operator whose key is removed by this very apply", false, func(o *operator) {
			was := o.fleetFile()
			for _, n := range []string{"cosmo", "maco", "miki", "ari", "ziggy", "bianco"} {
				o.sh(n, "mv /root/.ssh/authorized_keys /root/.ssh/kept 2>/dev/null || true")
				defer o.sh(n, "mv /root/.ssh/kept /root/.ssh/authorized_keys 2>/dev/null || true")
			}
			// From here on the file's key alone lets the operator in, and no
			// connection stands that another opened.
			exec.Command("pkill", "-f", `ssh: .*\[mux\]`).Run() // there may be none
			withKey := func(args ...string) result {
				line := "eval $(ssh-agent) >/dev/null; trap 'ssh-agent -k >/dev/null' EXIT; ssh-add -q nico; " + o.moggy + " " + strings.Join(args, " ")
				return o.run("lab", "run", "--name", o.lab, "--", "sh", "-c", line)
			}
			o.until("the file's key lets the operator in", func() bool { return withKey("status").code == 0 })
			o.edit(func(file string) string {
				return regexp.MustCompile(`nico\s*=\s*"[^"]*"`).ReplaceAllString(file, `nico = "`+o.newKeyOf("other")+`"`)
			})
			r := withKey("apply", "--yes")
			if r.code == 0 || !strings.Contains(r.err, "by removing your key") {
				o.t.Errorf("apply: exit code %d, want a refusal that names the key\n%s", r.code, r.err)
			}
			o.t.Logf("the operator reads:\n%s", r.err)
			o.write("fleet.hcl", []byte(was))
			o.until("the nodes are back", func() bool { return withKey("status").code == 0 })
		}},
		{"a lock that is corrupted, truncated, from the future, gone", true, func(o *operator) {
			whole := o.lockText()
			for what, text := range map[string]string{
				"corrupted": strings.Replace(whole, "mesh_key", "mesh\x00key", 1),
				"truncated": whole[:len(whole)/2],
				"newer":     regexp.MustCompile(`(?m)^version( *)= 1`).ReplaceAllString(whole, "version = 99"),
				"empty":     "",
			} {
				if text == whole {
					o.t.Fatalf("the %s lock is the whole one", what)
				}
				o.write("fleet.lock.hcl", []byte(text))
				r := o.remote("apply", "--yes")
				if r.code == 0 || !strings.Contains(r.err, "fleet.lock.hcl") {
					o.t.Errorf("%s lock: exit code %d, want a refusal that names it\n%s", what, r.code, r.err)
				}
			}
			os.Remove(filepath.Join(o.dir, "fleet.lock.hcl"))
			r := o.mustRemote("adopt", "--lock", "--yes", "--accept-new")
			o.t.Logf("adopt --lock took %.1f s\n%s", r.took.Seconds(), r.err)
			for _, line := range regexp.MustCompile(`(?m)^\s*(mesh_key|v4|v6)\s*=.*$`).FindAllString(whole, -1) {
				if !strings.Contains(squeeze(o.lockText()), squeeze(line)) {
					o.t.Errorf("the lock made anew lacks %q", line)
				}
			}
		}},
	}
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// elsewhere is a second operator with a checkout of his own.
func (o *operator) elsewhere() *operator {
	o.t.Helper()
	second := *o
	second.dir = o.t.TempDir()
	for _, name := range []string{"fleet.hcl", "fleet.lock.hcl"} {
		b, err := os.ReadFile(filepath.Join(o.dir, name))
		if err != nil {
			o.t.Fatal(err)
		}
		second.write(name, b)
	}
	return &second
}

// rollsBack takes one node back, and then the fleet; the history says who did
// what, and from which commit.
func (o *operator) rollsBack() {
	const keys = "cat /etc/moggy/authorized_keys.d/root"
	git := func(args ...string) string {
		o.t.Helper()
		cmd := exec.Command("git", append([]string{"-C", o.dir, "-c", "user.name=nico", "-c", "user.email=nico@cats.example"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			o.t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	o.mustRemote("apply", "--yes") // all on one generation
	was := o.sh("ari", keys)
	o.change()
	git("add", "fleet.hcl")
	git("commit", "-qm", "a guest")
	commit := git("rev-parse", "--short=10", "HEAD")
	o.mustRemote("apply", "--yes")
	newest := o.summary().Generation
	if o.sh("ari", keys) == was {
		o.t.Fatal("the change did not reach ari")
	}

	o.mustRemote("rollback", "--yes", "ari")
	if o.sh("ari", keys) != was || o.sh("ziggy", keys) == was {
		o.t.Error("after the rollback of ari it is not ari alone that has what it had")
	}
	o.mustRemote("rollback", "--yes")
	if o.sh("ziggy", keys) != was {
		o.t.Error("after the rollback of all ziggy has not what it had")
	}
	var h struct{ Entries []status.Entry }
	if err := json.Unmarshal([]byte(o.mustRemote("history", "--json").out), &h); err != nil {
		o.t.Fatal(err)
	}
	if len(h.Entries) < 2 {
		o.t.Fatalf("history: %+v", h.Entries)
	}
	// What one hand did to one generation is one entry, by however many commands.
	if e := h.Entries[0]; e.Back != newest || e.By == "" || len(e.Results) != 1 || e.Results[0].Kind != fleet.TurnConfirmed || len(e.Results[0].Nodes) != 6 {
		o.t.Errorf("the newest entry is not the way back of all six: %+v", e)
	}
	if e := h.Entries[1]; e.Generation != newest || e.Back != 0 || e.Commit != commit {
		o.t.Errorf("the one before is not the apply of generation %d from commit %s: %+v", newest, commit, e)
	}
	o.t.Logf("the operator reads:\n%s", o.mustRemote("history").out)
	if err := os.RemoveAll(filepath.Join(o.dir, ".git")); err != nil {
		o.t.Fatal(err)
	}
}
