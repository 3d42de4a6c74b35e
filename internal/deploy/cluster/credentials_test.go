package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/authority"
	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/engine/nomad"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/pki"
)

// machines answer as moggy node does, each with keys of its own.
type machines struct {
	mu   sync.Mutex
	keys map[fleet.NodeName]authority.Keys
	away map[fleet.NodeName]bool
	// lies binds authorities to what they should not be.
	lies bool
}

func (m *machines) ask(_ context.Context, name fleet.NodeName, stdin io.Reader, args ...string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away[name] {
		return nil, errors.New("no answer")
	}
	k, hello := m.keys[name], protocol.Hello{Protocol: protocol.Version}
	switch strings.Join(args[:len(args)-1], " ") + "/" + args[len(args)-1] {
	case "/authority":
		var c pki.Constraints
		if err := json.NewDecoder(stdin).Decode(&c); err != nil {
			return nil, err
		}
		if m.lies {
			c.Domains = append(c.Domains, "example.com")
		}
		ca, err := k.Make(c, time.Now())
		if err != nil {
			return nil, err
		}
		return json.Marshal(protocol.Authority{Hello: hello, CA: ca})
	}
	secret := args[len(args)-1]
	if args[1] == "--keep" {
		if err := k.Keep(secret, stdin); err != nil {
			return nil, err
		}
	}
	content, err := k.Secret(secret)
	if err != nil {
		return nil, err
	}
	s := protocol.Secret{Hello: hello}
	if content != nil {
		s.Digest = fleet.DigestOf(content)
	}
	if args[1] == "--show" {
		s.Content = content
	}
	return json.Marshal(s)
}

func newFleet(t *testing.T, servers ...fleet.NodeName) (Credentials, *machines) {
	t.Helper()
	f := &fleet.Fleet{Name: "cats", Scheduler: fleet.Nomad, Sites: []fleet.Site{{Name: "rack", Kind: fleet.Datacenter}}}
	l := &fleet.Lock{Mesh: fleet.Ranges{V4: netip.MustParsePrefix("10.77.0.0/16")}}
	m := &machines{keys: make(map[fleet.NodeName]authority.Keys), away: make(map[fleet.NodeName]bool)}
	for i, s := range servers {
		f.Nodes = append(f.Nodes, fleet.Node{Name: s, Site: "rack"})
		l.Put(fleet.NodeLock{Name: s, MeshKey: fleet.Key{byte(i + 1)}, V4: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)})})
		k := authority.Keys{Disk: &disk.Disk{Root: t.TempDir(), NoSync: true}, Dir: "/keys"}
		if err := k.Disk.Mkdir(k.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		m.keys[s] = k
	}
	return Credentials{Fleet: f, Lock: l, Ask: m.ask, Now: time.Now}, m
}

func TestAuthorities(t *testing.T) {
	c, m := newFleet(t, "cosmo", "maco", "miki")
	if got := c.Lacking(); !slices.Equal(got, []fleet.NodeName{"cosmo", "maco", "miki"}) {
		t.Fatalf("lacking: %v", got)
	}
	ca, err := c.Authority(t.Context(), "cosmo")
	if err != nil {
		t.Fatal(err)
	}
	n := c.Lock.Node("cosmo")
	n.CA = ca
	c.Lock.Put(n)
	if got := c.Lacking(); !slices.Equal(got, []fleet.NodeName{"maco", "miki"}) {
		t.Errorf("lacking: %v", got)
	}
	m.lies = true
	if _, err := c.Authority(t.Context(), "maco"); err == nil {
		t.Error("an authority is taken that is bound to more than it shall be")
	}
	c.Fleet.Scheduler = fleet.Systemd
	if got := c.Lacking(); len(got) > 0 {
		t.Errorf("nothing needs one, and lacking are %v", got)
	}
}

func TestSecretsAreShared(t *testing.T) {
	c, m := newFleet(t, "cosmo", "maco", "miki")
	of := func(n fleet.NodeName) string {
		b, err := m.keys[n].Secret(nomad.GossipSecret)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	m.away["miki"] = true
	if err := c.Secrets(t.Context()); err == nil || of("cosmo") != "" {
		t.Fatalf("one is made although a server that may have one is away: %v", err)
	}
	m.away["miki"] = false
	if err := c.Secrets(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := of("cosmo")
	if first == "" || of("maco") != first || of("miki") != first || !strings.Contains(first, "encrypt") {
		t.Error("they do not have the same")
	}
	// One that was installed anew gets it from another, also while a third is away.
	m.keys["maco"] = authority.Keys{Disk: &disk.Disk{Root: t.TempDir(), NoSync: true}, Dir: "/keys"}
	m.away["miki"] = true
	if err := c.Secrets(t.Context()); err != nil || of("maco") != first {
		t.Errorf("the new one has another: %v", err)
	}
	m.keys["cosmo"] = authority.Keys{Disk: &disk.Disk{Root: t.TempDir(), NoSync: true}, Dir: "/keys"}
	if err := m.keys["cosmo"].Keep(nomad.GossipSecret, bytes.NewReader([]byte("of another cluster"))); err != nil {
		t.Fatal(err)
	}
	if err := c.Secrets(t.Context()); err == nil || !strings.Contains(err.Error(), "two clusters") {
		t.Errorf("two clusters: %v", err)
	}
}

func TestToken(t *testing.T) {
	b, err := token()
	if err != nil {
		t.Fatal(err)
	}
	if parts := strings.Split(string(b), "-"); len(b) != 36 || len(parts) != 5 || parts[2][0] != '4' {
		t.Errorf("%q is no UUID", b)
	}
}
