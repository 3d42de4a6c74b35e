package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
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
	"github.com/moggyfleet/moggy/internal/mesh/wire"
	"github.com/moggyfleet/moggy/internal/token"
)

// few is one hub and two homes, the machines of the tests of joining and
// leaving.
const few = `fleet "few" {
  operators = { nico = "ssh-ed25519 AAAA" }
}
site "rack" { kind = "datacenter" }
site "north" {
  kind = "home"
  nat  = "cgnat"
}
site "south" {
  kind = "home"
  nat  = "cgnat"
}
node "hub" {
  site   = site.rack
  public = ["198.51.100.11", "2001:db8:c0::11"]
}
node "ari" { site = site.north }
node "bianco" { site = site.south }
`

func newFew(t *testing.T, lab string) *operator {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fleet.hcl")
	if err := os.WriteFile(file, []byte(few), 0o644); err != nil {
		t.Fatal(err)
	}
	o := newOperator(t, lab, file)
	o.must("lab", "up", "--name", lab)
	for _, node := range []string{"hub", "ari", "bianco"} {
		o.must("lab", "copy", "--name", lab, o.moggy, node+":/root/moggy")
	}
	return o
}

// TestLabJoin makes every way happen in which a token is refused, and looks
// what each leaves behind; then a machine takes another's place.
func TestLabJoin(t *testing.T) {
	o := newFew(t, "test-join")
	bianco := o.digests("bianco")
	o.mustRemote("apply", "--yes", "--accept-new")
	for _, part := range []struct {
		name string
		run  func(*operator)
	}{
		{"refused without a question", (*operator).refusedHere},
		{"refused by the hub, or by nobody", (*operator).refusedThere},
		{"interrupted, used again, used by another", (*operator).usedTokens},
		{"of a node that left", (*operator).tokenOfNodeThatLeft},
		{"a machine takes the place of another", (*operator).replaced},
		{"removed from the file", (*operator).removedNode},
		{"leaving while cut off", func(o *operator) {
			leaver{o, map[string]string{"bianco": bianco}}.leaves("bianco", "lab", "exec", "--name", o.lab, "bianco", "--")
		}},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(o.with(t)) }) {
			break // the next part builds on this one
		}
	}
}

// joinAt gives a machine a token by its standard input.
func (o *operator) joinAt(node, text string) result {
	o.t.Helper()
	return o.runWith(text, "lab", "exec", "--name", o.lab, node, "--", "/root/moggy", "join", "--yes", "-")
}

// listing is all that a join could leave on a machine.
func (o *operator) listing(node string) string {
	o.t.Helper()
	r := o.at(node, "sh", "-c", `find /etc /usr/local /var/lib /run -xdev \( -path /run/systemd -o -path /run/log -o -path /run/udev \
		-o -path /run/user -o -path /var/lib/systemd \) -prune -o -printf '%p %y %l\n' | sort
		find /run/systemd/units /run/systemd/transient -name '*moggy*'; cat /etc/systemd/system/* 2>/dev/null | sha256sum; systemctl list-units --all --plain 'moggy*'`)
	return r.out
}

// refused fails the test unless the machine says why and what to do, and is as
// it was.
func (o *operator) refused(node, text, want string, do func() result) {
	o.t.Helper()
	before := o.listing(node)
	if do == nil {
		do = func() result { return o.joinAt(node, text) }
	}
	r := do()
	if r.code != 1 || !strings.Contains(r.err, "moggy: error: ") || !strings.Contains(r.err, "moggy: hint: ") || !strings.Contains(r.err, want) {
		o.t.Errorf("exit code %d, want 1, %q, and a hint\n%s%s", r.code, want, r.out, r.err)
	}
	if text = strings.TrimSpace(text); len(text) > 20 && strings.Contains(r.out+r.err, text[10:]) {
		o.t.Errorf("it shows the token:\n%s%s", r.out, r.err)
	}
	if after := o.listing(node); after != before {
		o.t.Errorf("left behind:\n%s", difference(before, after))
	}
}

// difference is what two listings do not share.
func difference(before, after string) string {
	var out strings.Builder
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, l := range was {
		if !slices.Contains(is, l) {
			fmt.Fprintln(&out, "-", l)
		}
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			fmt.Fprintln(&out, "+", l)
		}
	}
	return out.String()
}

// newToken is a good token, as text and read.
func (o *operator) newToken(args ...string) (string, token.Token) {
	o.t.Helper()
	text := o.mustRemote(append([]string{"token"}, args...)...).out
	tok, err := token.Parse(text)
	if err != nil {
		o.t.Fatal(err)
	}
	return text, tok
}

func (o *operator) refusedHere() {
	text, _ := o.newToken("ari")
	altered := []byte(strings.TrimSpace(text))
	altered[80] = 'A' + (altered[80]-'A'+1)%26
	o.must("lab", "cut", "--name", o.lab, "north") // no network needed to tell
	o.refused("ari", string(altered), "altered or cut off", nil)
	o.refused("ari", text[:len(text)/2], "altered or cut off", nil)
	o.refused("ari", "moggy_please", "no moggy token", nil)
	o.refused("ari", text, "no token as an argument", func() result {
		return o.at("ari", "/root/moggy", "join", "--yes", strings.TrimSpace(text))
	})
	o.must("lab", "heal", "--name", o.lab, "north")
}

func (o *operator) refusedThere() {
	_, tok := o.newToken("ari")
	secret, err := wire.NewPrivateKey(rand.Reader)
	if err != nil {
		o.t.Fatal(err)
	}
	// Of another fleet, which has had the same addresses: the hub is silent.
	foreign := tok
	foreign.Secret = token.Secret(secret)
	// The hub is away.
	away := tok
	away.Hubs = slices.Clone(tok.Hubs)
	away.Hubs[0].Public = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.99:51877")}
	o.t.Run("side by side", func(t *testing.T) {
		for node, tok := range map[string]token.Token{"ari": foreign, "bianco": away} {
			t.Run(node, func(t *testing.T) {
				t.Parallel()
				o.with(t).refused(node, tok.Encode(), "no hub answered", nil)
			})
		}
	})
	// Expired by the hub's clock, whatever the token or the machine thinks.
	expired := tok
	expired.Secret = token.Secret(secret)
	expired.Expires = time.Now().AddDate(1, 0, 0).Unix()
	ends := time.Now().Add(2 * time.Second).Unix()
	invitation, err := json.Marshal(fleet.Invitation{Node: tok.Node, Key: secret.Public(), Expires: ends, V4: tok.V4, V6: tok.V6, Site: tok.Site})
	if err != nil {
		o.t.Fatal(err)
	}
	if r := o.runWith(string(invitation), "lab", "exec", "--name", o.lab, "hub", "--", "/root/moggy", "node", "invite"); r.code != 0 {
		o.t.Fatal(r.err)
	}
	o.until("the hub's clock has passed it", func() bool {
		now, err := strconv.ParseInt(strings.TrimSpace(o.at("hub", "date", "+%s").out), 10, 64)
		return err == nil && now > ends
	})
	o.refused("ari", expired.Encode(), "this token has expired", nil)
}

// usedTokens joins ari for good, as roughly as can be.
func (o *operator) usedTokens() {
	text, tok := o.newToken("ari")
	stop := o.watchProcesses(tok)
	for _, after := range []string{"0.01", "0.05", "0.2", "0.5", "1"} {
		r := o.runWith(text, "lab", "exec", "--name", o.lab, "ari", "--", "timeout", "-s", "KILL", after, "/root/moggy", "join", "--yes", "-")
		o.t.Logf("killed after %s s: exit code %d", after, r.code)
	}
	for range 2 { // the second time it is a node already
		if r := o.joinAt("ari", text); r.code != 0 {
			o.t.Fatalf("join after it was killed, then again: exit code %d\n%s%s", r.code, r.out, r.err)
		}
	}
	o.refused("bianco", text, "another machine has used this token", nil)
	o.mustRemote("apply", "--yes")
	o.refused("bianco", text, "another machine has used this token", nil)
	o.refused("ari", text, "already", nil)
	_, other := o.newToken("bianco")
	o.refused("ari", other.Encode(), "this machine is node ari of fleet few already", nil)
	if leaks := stop(); len(leaks) > 0 {
		o.t.Errorf("the secret was in the arguments or the environment of %s", leaks)
	}
	o.secretNowhere(tok)
}

// forms are ways to write a token's secret down.
func forms(tok token.Token) []string {
	raw := tok.Secret[:]
	text := tok.Encode()
	out := []string{
		hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw)[:42], base64.URLEncoding.EncodeToString(raw)[:42],
	}
	// The token's own characters around the secret: those before it can be
	// guessed, those in it cannot.
	at := strings.Index(text, "_") + 1
	body, err := base64.RawURLEncoding.DecodeString(text[at:])
	if err == nil {
		if i := strings.Index(string(body), string(raw)); i >= 0 {
			out = append(out, text[at+(i+3)*4/3:at+(i+28)*4/3])
		}
	}
	return out
}

// watchProcesses looks at every process of this machine, the lab's included,
// until it is stopped, and returns which showed the secret.
func (o *operator) watchProcesses(tok token.Token) (stop func() []string) {
	o.t.Helper()
	secrets := forms(tok)
	if len(secrets) != 4 || !strings.Contains(tok.Encode(), secrets[3]) {
		o.t.Fatal("the token does not hold its secret as it is")
	}
	done, leaks := make(chan struct{}), make(chan []string)
	again := time.NewTicker(20 * time.Millisecond)
	go func() {
		defer again.Stop()
		var found []string
		for {
			select {
			case <-done:
				leaks <- found
				return
			case <-again.C:
			}
			all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, file := range all {
				for _, f := range []string{file, filepath.Join(filepath.Dir(file), "environ")} {
					b, err := os.ReadFile(f)
					if err == nil && slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(string(b), s) }) {
						found = append(found, strings.Fields(string(b))...)
					}
				}
			}
		}
	}()
	return func() []string { close(done); return <-leaks }
}

// secretNowhere looks for the secret in every file and journal.
func (o *operator) secretNowhere(tok token.Token) {
	o.t.Helper()
	var patterns strings.Builder
	for _, s := range forms(tok) {
		fmt.Fprintln(&patterns, s)
	}
	for _, node := range []string{"hub", "ari", "bianco"} {
		r := o.runWith(patterns.String(), "lab", "exec", "--name", o.lab, node, "--", "sh", "-c",
			`cat >/dev/shm/patterns; grep -rlaFf /dev/shm/patterns /etc /var /run /root /home /tmp /usr/local 2>/dev/null
			 journalctl --no-pager -o export | grep -aFf /dev/shm/patterns; rm /dev/shm/patterns`)
		if found := strings.TrimSpace(r.out); found != "" {
			o.t.Errorf("the secret is on %s: %s", node, found)
		}
	}
	here, err := exec.Command("grep", append([]string{"-rlaF"}, patternArgs(o.dir, forms(tok))...)...).Output()
	if len(here) > 0 || err == nil {
		o.t.Errorf("the secret is beside the fleet's file: %s", here)
	}
}

func patternArgs(dir string, secrets []string) []string {
	var args []string
	for _, s := range secrets {
		args = append(args, "-e", s)
	}
	return append(args, "--", dir)
}

// edit changes the fleet's file.
func (o *operator) rewrite(change func(string) string) (before string) {
	o.t.Helper()
	b, err := os.ReadFile(filepath.Join(o.dir, "fleet.hcl"))
	if err != nil {
		o.t.Fatal(err)
	}
	o.write("fleet.hcl", []byte(change(string(b))))
	return string(b)
}

func without(node string) func(string) string {
	line := regexp.MustCompile(`(?m)^node "` + node + `".*\n`)
	return func(file string) string { return line.ReplaceAllString(file, "") }
}

func (o *operator) tokenOfNodeThatLeft() {
	o.mustRemote("apply", "--yes")
	text, _ := o.newToken("bianco")
	before := o.rewrite(without("bianco"))
	o.mustRemote("apply", "--yes")
	o.refused("bianco", text, "no hub answered", nil)
	o.write("fleet.hcl", []byte(before))
}

// peers are the keys that the hub talks to.
func (o *operator) peers() []string {
	o.t.Helper()
	return strings.Fields(o.at("hub", "wg", "show", fleet.MeshInterface, "peers").out)
}

// replaced: bianco's machine joins as ari while ari's still runs.
func (o *operator) replaced() {
	v4, _ := o.address("ari")
	hub, _ := o.address("hub")
	old := o.peers()
	if len(old) != 1 {
		o.t.Fatalf("peers of the hub: %q", old)
	}
	if r := o.remote("token", "ari"); r.code != 1 || !strings.Contains(r.err, "moggy token ari --replace") {
		o.t.Errorf("a second token: exit code %d, want a refusal that names --replace\n%s", r.code, r.err)
	}
	text, _ := o.newToken("ari", "--replace")
	if r := o.at("ari", "ping", "-c", "1", "-w", "5", hub); r.code != 0 || !slices.Equal(o.peers(), old) {
		o.t.Errorf("the old machine is cut off by a token alone\n%s", r.out)
	}
	if r := o.joinAt("bianco", text); r.code != 0 {
		o.t.Fatalf("join: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if now := o.peers(); len(now) != 1 || now[0] == old[0] {
		o.t.Errorf("peers of the hub: %q, before the join %q", now, old)
	}
	o.mustRemote("apply", "--yes")
	if r := o.mustRemote("ssh", "ari", "--", "hostname"); strings.TrimSpace(r.out) != "bianco" {
		o.t.Errorf("as ari answers %q", r.out)
	}
	if now, _ := o.address("ari"); now != v4 {
		o.t.Errorf("ari's address was %s, and is %s", v4, now)
	}
	if r := o.at("ari", "ping", "-c", "3", "-i", "0.2", "-w", "1", hub); r.code == 0 {
		o.t.Errorf("the old machine is still answered\n%s", r.out)
	}
	o.refused("ari", text, "already", nil)
}

// removedNode: after one apply nobody answers a node that left the file.
func (o *operator) removedNode() {
	hub, hub6 := o.address("hub")
	o.rewrite(without("ari"))
	o.mustRemote("apply", "--yes")
	if now := o.peers(); len(now) != 0 {
		o.t.Errorf("peers of the hub: %q", now)
	}
	for _, address := range []string{hub, hub6} {
		if r := o.at("bianco", "ping", "-c", "3", "-i", "0.2", "-w", "1", address); r.code == 0 {
			o.t.Errorf("the hub still answers\n%s", r.out)
		}
	}
	if strings.Contains(o.lockText(), `node "ari"`) {
		o.t.Error("ari is still in the lock")
	}
	o.until("it says itself that it reaches nobody", func() bool {
		var seen fleet.Observed
		if err := json.Unmarshal([]byte(o.at("bianco", "/root/moggy", "node", "observe").out), &seen); err != nil || seen.Mesh == nil {
			return false
		}
		return !slices.ContainsFunc(seen.Mesh.Peers, func(p fleet.PeerStatus) bool { return p.Path != fleet.PathNone })
	})
}
