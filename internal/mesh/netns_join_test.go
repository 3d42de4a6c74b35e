package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
	"github.com/moggyfleet/moggy/internal/token"
)

const joinEnv = "MOGGY_TEST_JOIN"

// joinMain is the joiner of a test, in the namespace of its machine: its
// arguments come as JSON, its result goes back as JSON.
func joinMain(arg string) error {
	var in joinArg
	if err := json.Unmarshal([]byte(arg), &in); err != nil {
		return err
	}
	t, err := token.Parse(in.Token)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	told, err := Join(ctx, t, in.Key, in.HostKey)
	out := joinResult{Told: told}
	if err != nil {
		out.Err = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

type joinArg struct {
	Token   string
	Key     fleet.Key
	HostKey [wire.HostKeySize]byte // none for a knock
}

type joinResult struct {
	Told []Told
	Err  string
}

func (m *machine) join(tok token.Token, key fleet.Key) joinResult {
	m.w.t.Helper()
	return m.askHubs(joinArg{tok.Encode(), key, [wire.HostKeySize]byte{1, 2, 3}})
}

func (m *machine) knock(tok token.Token, key fleet.Key) joinResult {
	m.w.t.Helper()
	return m.askHubs(joinArg{Token: tok.Encode(), Key: key})
}

func (m *machine) askHubs(in joinArg) joinResult {
	m.w.t.Helper()
	arg, err := json.Marshal(in)
	if err != nil {
		m.w.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		m.w.t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", m.ns, self)
	cmd.Env = append(os.Environ(), joinEnv+"="+string(arg))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		m.w.t.Fatal(err)
	}
	var r joinResult
	if err := json.Unmarshal(out, &r); err != nil {
		m.w.t.Fatal(err)
	}
	return r
}

// invite makes a token for m, which is not on the mesh yet, and tells the hubs.
func (w *world) invite(m *machine, expires time.Time, hubs ...*machine) token.Token {
	w.t.Helper()
	secret, err := wire.NewPrivateKey(randomReader{})
	if err != nil {
		w.t.Fatal(err)
	}
	i := fleet.Invitation{Node: m.node.Name, Key: secret.Public(), Expires: expires.Unix(), V4: m.node.V4, V6: m.node.V6}
	tok := token.Token{
		Fleet: w.conf.Fleet, Node: m.node.Name, V4: m.node.V4, V6: m.node.V6,
		Mesh: fleet.Ranges{V4: w.conf.V4, V6: w.conf.V6}, Port: testPort, MTU: w.conf.MTU,
		Secret: token.Secret(secret), Expires: expires.Unix(),
	}
	for _, h := range hubs {
		tok.Hubs = append(tok.Hubs, h.node)
		if h.cmd == nil {
			continue
		}
		b, err := json.Marshal(i)
		if err != nil {
			w.t.Fatal(err)
		}
		resp, err := h.ask("POST", "/invitations", bytes.NewReader(b))
		if err != nil {
			w.t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			w.t.Fatalf("%s: %s: %s", h.name, resp.Status, text)
		}
	}
	return tok
}

// without is the configuration of all but some.
func (w *world) without(out ...*machine) fleet.AgentConfig {
	c := w.config()
	var nodes []fleet.MeshNode
	for _, n := range c.Nodes {
		keep := true
		for _, m := range out {
			keep = keep && m.node.Name != n.Name
		}
		if keep {
			nodes = append(nodes, n)
		}
	}
	c.Nodes = nodes
	return c
}

func TestNetnsJoin(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	c := w.without(bianco)
	for _, m := range []*machine{hub1, hub2, ari} {
		m.write(c)
		m.start()
	}
	tok := w.invite(bianco, time.Now().Add(time.Hour), hub1, hub2)

	for range 2 { // a knock takes nothing
		if r := ari.knock(tok, fleet.Key{7}); r.Err != "" {
			t.Fatalf("knock: %s", r.Err)
		}
	}
	for range 2 { // the second time its answer may have been lost
		r := bianco.join(tok, bianco.node.Key)
		if r.Err != "" {
			t.Fatal(r.Err)
		}
		for _, told := range r.Told {
			if told.Status != wire.JoinOK {
				t.Errorf("%s answered %d, want %d", told.Hub, told.Status, wire.JoinOK)
			}
		}
	}
	thief, err := wire.NewPrivateKey(randomReader{})
	if err != nil {
		t.Fatal(err)
	}
	if r := ari.join(tok, thief.Public()); !strings.Contains(r.Err, ErrUsed.Error()) {
		t.Errorf("a second machine: %q, want %q", r.Err, ErrUsed)
	}

	// It is on the mesh with the hubs alone, before any apply.
	bianco.write(w.without(ari))
	bianco.start()
	for _, h := range []*machine{hub1, hub2} {
		if lost, out := h.ping(bianco.node.V4, 3, "0.2"); lost > 0 {
			t.Errorf("%s to bianco: %d lost\n%s", h.name, lost, out)
		}
		s, err := h.status("")
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Joined) != 1 || s.Joined[0].Key != bianco.node.Key || !strings.HasPrefix(s.Joined[0].HostKey, "ssh-ed25519 AAAA") {
			t.Errorf("%s lists as joined %+v", h.name, s.Joined)
		}
	}

	// A hub that restarts has not forgotten.
	hub1.stop(os.Interrupt)
	hub1.start()
	took := w.wait("hub1 reaches bianco after a restart", restartWithin, func() bool {
		lost, _ := hub1.ping(bianco.node.V4, 1, "0.2")
		return lost == 0
	})
	t.Logf("hub1 reaches bianco %v after a restart", took)

	// The apply that follows takes it over.
	for _, m := range []*machine{hub1, hub2, ari, bianco} {
		m.write(w.config())
		m.reload()
	}
	w.wait("hub1 lists nobody as joined", 5*time.Second, func() bool {
		s, err := hub1.status("")
		return err == nil && len(s.Joined) == 0
	})
	if lost, out := ari.ping(bianco.node.V4, 5, "0.2"); lost > 1 {
		t.Errorf("ari to bianco after the apply: %d lost\n%s", lost, out)
	}
	if r := ari.knock(tok, thief.Public()); !strings.Contains(r.Err, ErrUsed.Error()) {
		t.Errorf("a second machine after the apply: %q, want %q", r.Err, ErrUsed)
	}
	if r := bianco.join(tok, bianco.node.Key); r.Err != "" {
		t.Errorf("the same machine after the apply: %s", r.Err)
	}
}

// TestNetnsReplace: a machine that was reinstalled takes its place back while
// the one it replaces still runs.
func TestNetnsReplace(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	for _, m := range []*machine{hub1, hub2, bianco} {
		m.write(w.without(ari))
		m.start()
	}
	tok := w.invite(bianco, time.Now().Add(time.Hour), hub1, hub2)
	if lost, out := hub1.ping(bianco.node.V4, 3, "0.2"); lost > 0 {
		t.Fatalf("the old machine is cut off by an invitation: %d lost\n%s", lost, out)
	}
	old := bianco.node.Key
	fresh, err := wire.NewPrivateKey(randomReader{})
	if err != nil {
		t.Fatal(err)
	}
	if r := ari.join(tok, fresh.Public()); r.Err != "" { // from another machine: the old one runs on
		t.Fatal(r.Err)
	}
	for _, h := range []*machine{hub1, hub2} {
		w.wait(h.name+" refuses the old machine", 3*time.Second, func() bool {
			lost, _ := h.ping(bianco.node.V4, 1, "0.2")
			return lost == 1
		})
		s, err := h.status("")
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Joined) != 1 || s.Joined[0].Key != fresh.Public() {
			t.Errorf("%s lists as joined %+v", h.name, s.Joined)
		}
	}
	if lost, _ := bianco.ping(hub1.node.V4, 3, "0.2"); lost != 3 {
		t.Error("the old machine is answered")
	}
	if r := bianco.join(tok, old); !strings.Contains(r.Err, ErrUsed.Error()) {
		t.Errorf("the old machine with the new token: %q, want %q", r.Err, ErrUsed)
	}
}

func TestNetnsJoinRefused(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	c := w.without(bianco)
	for _, m := range []*machine{hub1, hub2} {
		m.write(c)
		m.start()
	}
	short := w.invite(bianco, time.Now().Add(1500*time.Millisecond), hub1, hub2)
	w.wait("the token expires", 3*time.Second, func() bool { return time.Now().Unix() > short.Expires })
	if r := bianco.join(short, bianco.node.Key); !strings.Contains(r.Err, ErrExpired.Error()) {
		t.Errorf("expired token: %q, want %q", r.Err, ErrExpired)
	}
	// Who joins has no clock that counts: what its token says of its end, an hour
	// or a year off, is for the error's text alone.
	ahead := short
	ahead.Expires = time.Now().AddDate(1, 0, 0).Unix()
	if r := bianco.join(ahead, bianco.node.Key); !strings.Contains(r.Err, ErrExpired.Error()) {
		t.Errorf("expired, to a machine that thinks it has a year: %q, want %q", r.Err, ErrExpired)
	}
	taken := w.invite(bianco, time.Now().Add(time.Hour), hub1, hub2)
	if r := bianco.join(taken, ari.node.Key); !strings.Contains(r.Err, ErrTaken.Error()) {
		t.Errorf("key of another node: %q, want %q", r.Err, ErrTaken)
	}
	foreign := taken
	foreign.Secret[5] ^= 1
	if r := bianco.join(foreign, bianco.node.Key); !strings.Contains(r.Err, ErrNoAnswer.Error()) {
		t.Errorf("token the hubs do not know: %q, want %q", r.Err, ErrNoAnswer)
	}
	behind := taken
	behind.Expires = time.Now().AddDate(-1, 0, 0).Unix()
	if r := bianco.knock(behind, bianco.node.Key); r.Err != "" {
		t.Errorf("good, to a machine that thinks it is a year late: %s", r.Err)
	}
	// One hub down is no obstacle.
	hub2.stop(os.Kill)
	if r := bianco.join(taken, bianco.node.Key); r.Err != "" {
		t.Errorf("with one hub down: %s", r.Err)
	}
	// The node leaves the file: hub1, and whoever has the token, are told so by
	// the next mesh.json.
	hub1.write(w.without(bianco, ari))
	hub1.reload()
	w.wait("hub1 has forgotten bianco", 3*time.Second, func() bool {
		s, err := hub1.status("")
		return err == nil && len(s.Joined) == 0
	})
	if r := bianco.join(taken, bianco.node.Key); !strings.Contains(r.Err, ErrNoAnswer.Error()) {
		t.Errorf("token of a node that left: %q, want %q", r.Err, ErrNoAnswer)
	}
}

// TestInvitationOverTime plays what happens to one invitation, by the hub's
// clock: the only one that counts.
func TestInvitationOverTime(t *testing.T) {
	const hour = 3600
	now := int64(1_700_000_000)
	self, invitation := newKeys(t), newKeys(t)
	first, second, third := wire.Join{Key: fleet.Key{1}, HostKey: [32]byte{1}}, wire.Join{Key: fleet.Key{2}, HostKey: [32]byte{2}}, wire.Join{Key: fleet.Key{3}, HostKey: [32]byte{3}}
	node := func(key fleet.Key) fleet.MeshNode {
		return fleet.MeshNode{Name: "bianco", Key: key, V4: netip.MustParseAddr("10.77.0.4"), V6: netip.MustParseAddr("fd77::4")}
	}
	base := fleet.AgentConfig{V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd77::/48")}
	awaited, listed, replaced := base, base, base
	awaited.Awaited = []fleet.NodeName{"bianco"}
	listed.Nodes = []fleet.MeshNode{node(first.Key)}
	replaced.Nodes = []fleet.MeshNode{node(second.Key)}
	open := func(t *testing.T, conf fleet.AgentConfig) *invitations {
		t.Helper()
		s, err := openInvitations("", self)
		if err == nil {
			err = s.add(time.Unix(now, 0), conf, "a", fleet.Invitation{
				Node: "bianco", Key: invitation.Public(), Expires: now + hour, V4: node(fleet.Key{}).V4, V6: node(fleet.Key{}).V6,
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	take := func(s *invitations, at int64, j wire.Join, conf fleet.AgentConfig, digest fleet.Digest) wire.JoinStatus {
		status, _ := s.take(time.Unix(at, 0), invitation.Public(), j, conf.Nodes, digest) // 0 says that there is none
		return status
	}
	settle := func(t *testing.T, s *invitations, conf fleet.AgentConfig, digest fleet.Digest) fleet.Key {
		t.Helper()
		c, err := s.settle(conf, digest)
		if err != nil {
			t.Fatal(err)
		}
		return keyOf(c.Nodes, "bianco")
	}
	const silence = 0
	tests := map[string]struct {
		want wire.JoinStatus
		play func(*testing.T) wire.JoinStatus
	}{
		"the hub a year behind": {wire.JoinOK, func(t *testing.T) wire.JoinStatus {
			return take(open(t, awaited), now-365*24*hour, first, awaited, "a")
		}},
		"the hub a year ahead": {wire.JoinExpired, func(t *testing.T) wire.JoinStatus {
			return take(open(t, awaited), now+365*24*hour, first, awaited, "a")
		}},
		"the node left": {silence, func(t *testing.T) wire.JoinStatus {
			s := open(t, awaited)
			settle(t, s, base, "b")
			return take(s, now, first, base, "b")
		}},
		"the node left after it had joined": {silence, func(t *testing.T) wire.JoinStatus {
			s := open(t, awaited)
			take(s, now, first, awaited, "a")
			if got := settle(t, s, base, "b"); !got.IsZero() {
				t.Errorf("it is a peer with key %s", got)
			}
			return take(s, now, first, base, "b")
		}},
		"not applied yet": {wire.JoinOK, func(t *testing.T) wire.JoinStatus {
			s := open(t, base)
			settle(t, s, base, "a")
			return take(s, now, first, base, "a")
		}},
		"an apply that did not know of the join": {wire.JoinOK, func(t *testing.T) wire.JoinStatus {
			s := open(t, listed)
			take(s, now, second, listed, "a")
			if got := settle(t, s, listed, "b"); got != second.Key {
				t.Errorf("it is a peer with key %s, want the one that joined", got)
			}
			return take(s, now, second, listed, "b")
		}},
		"an apply that took it in": {wire.JoinOK, func(t *testing.T) wire.JoinStatus {
			s := open(t, listed)
			take(s, now, second, listed, "a")
			settle(t, s, replaced, "b")
			if len(s.joined()) > 0 {
				t.Errorf("still joined: %+v", s.joined())
			}
			return take(s, now+2*hour, second, replaced, "b") // even late: it is the node
		}},
		"an apply that chose another": {wire.JoinUsed, func(t *testing.T) wire.JoinStatus {
			s := open(t, awaited)
			take(s, now, third, awaited, "a")
			settle(t, s, replaced, "b")
			other := base
			other.Nodes = []fleet.MeshNode{node(fleet.Key{9})}
			if got := settle(t, s, other, "c"); got != (fleet.Key{9}) {
				t.Errorf("it is a peer with key %s, want the file's", got)
			}
			return take(s, now, third, other, "c")
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.play(t); got != tt.want {
				t.Errorf("answered %d, want %d", got, tt.want)
			}
		})
	}
}

func newKeys(t *testing.T) wire.PrivateKey {
	t.Helper()
	key, err := wire.NewPrivateKey(randomReader{})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestInvitationIsChecked(t *testing.T) {
	key, err := wire.NewPrivateKey(randomReader{})
	if err != nil {
		t.Fatal(err)
	}
	conf := fleet.AgentConfig{
		V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd77::/48"),
		Nodes: []fleet.MeshNode{{Name: "ari", V4: netip.MustParseAddr("10.77.0.3"), V6: netip.MustParseAddr("fd77::3")}},
	}
	now := time.Unix(1000, 0)
	good := fleet.Invitation{
		Node: "bianco", Key: key.Public(), Expires: 2000,
		V4: netip.MustParseAddr("10.77.0.4"), V6: netip.MustParseAddr("fd77::4"),
	}
	tests := map[string]func(*fleet.Invitation){
		"no node":             func(i *fleet.Invitation) { i.Node = "" },
		"no key":              func(i *fleet.Invitation) { i.Key = fleet.Key{} },
		"key of low order":    func(i *fleet.Invitation) { i.Key = fleet.Key{1} },
		"expired":             func(i *fleet.Invitation) { i.Expires = 1000 },
		"good for a year":     func(i *fleet.Invitation) { i.Expires += 365 * 24 * 3600 },
		"outside of the mesh": func(i *fleet.Invitation) { i.V4 = netip.MustParseAddr("192.0.2.4") },
		"address of another":  func(i *fleet.Invitation) { i.V6 = netip.MustParseAddr("fd77::3") },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := openInvitations(t.TempDir(), key)
			if err != nil {
				t.Fatal(err)
			}
			i := good
			spoil(&i)
			if err := s.add(now, conf, "", i); !errors.Is(err, errInvited) {
				t.Errorf("got %v, want %v", err, errInvited)
			}
		})
	}
	dir := t.TempDir()
	s, err := openInvitations(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.add(now, conf, "", good); err != nil {
		t.Fatal(err)
	}
	again, err := openInvitations(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(again.list()); got != fmt.Sprint(s.list()) || again.keysOf(good.Key) == nil {
		t.Errorf("after a restart: %s, want %s with its keys", got, fmt.Sprint(s.list()))
	}
}
