package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/engine/certs"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/pki"
)

// trio are a server, a node that is none, and one that the fleet does not know;
// all on this machine, each at an address of its own.
type trio struct {
	config certs.Config
	keys   map[fleet.NodeName][]byte
}

func newTrio(t *testing.T) trio {
	t.Helper()
	tr := trio{config: certs.Config{Version: 1, Fleet: "cats"}, keys: make(map[fleet.NodeName][]byte)}
	for i, name := range []fleet.NodeName{"ari", "cosmo", "stranger"} {
		m := certs.Member{Name: name, V4: netip.AddrFrom4([4]byte{127, 0, 5, byte(i + 1)}), V6: netip.MustParseAddr("::1"), Server: name == "cosmo"}
		c := pki.Constraints{
			Name: string(name), Domains: []string{pki.NodeDomain("cats", name)},
			Prefixes: []netip.Prefix{netip.PrefixFrom(m.V4, 32), netip.PrefixFrom(m.V6, 128)},
		}
		if m.Server {
			c.Domains = append(c.Domains, "cats.internal", "global.nomad")
			c.Prefixes = append(c.Prefixes, netip.MustParsePrefix("127.0.0.0/8"))
		}
		a, err := pki.NewAuthority(rand.Reader, time.Now(), c)
		if err != nil {
			t.Fatal(err)
		}
		if tr.keys[name], err = a.Marshal(); err != nil {
			t.Fatal(err)
		}
		m.CA = a.Cert.Raw
		tr.config.Members = append(tr.config.Members, m)
	}
	return tr
}

func (tr trio) daemon(t *testing.T, name fleet.NodeName, port uint16) *Daemon {
	t.Helper()
	d, err := New(Options{Config: tr.config, Authority: tr.keys[name], Dir: t.TempDir(), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d.port, d.firstPause = port, 10*time.Millisecond
	return d
}

// start runs a daemon until the test ends.
func start(t *testing.T, d *Daemon) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", d.self.Name, err)
		}
	})
}

// got is the certificate that a daemon has, once it has one.
func got(t *testing.T, d *Daemon) *x509.Certificate {
	t.Helper()
	path := filepath.Join(d.dir, "nomad.pem")
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	if err := Wait(ctx, path, time.Now); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _, err := pki.ParsePair(text)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestServerSignsForNodes(t *testing.T) {
	tr := newTrio(t)
	const port = 24645
	client, server := tr.daemon(t, "ari", port), tr.daemon(t, "cosmo", port)
	start(t, client) // before the server: it asks until somebody answers
	start(t, server)
	for d, want := range map[*Daemon]string{server: "server.global.nomad client.global.nomad cosmo.cats.internal", client: "client.global.nomad ari.cats.internal"} {
		leaf := got(t, d)
		if names := strings.Join(leaf.DNSNames, " "); names != want {
			t.Errorf("%s: for %s, want %s", d.self.Name, names, want)
		}
		if !leaf.IPAddresses[0].Equal(d.self.V4.AsSlice()) {
			t.Errorf("%s: at %v", d.self.Name, leaf.IPAddresses)
		}
		roots := x509.NewCertPool()
		roots.AddCert(server.own.Cert)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%s: %v", d.self.Name, err)
		}
	}
}

// TestNobodyElseIsSignedFor: who is not in the list, or says to be another, gets
// nothing; and who is no server is not believed to be one.
func TestNobodyElseIsSignedFor(t *testing.T) {
	tr := newTrio(t)
	const port = 24646
	stranger, liar := tr.daemon(t, "stranger", port), tr.daemon(t, "stranger", port)
	liar.self.Name = "ari" // its leaf will say so, signed by an authority that is not ari's
	node := tr.daemon(t, "ari", port)
	known := tr.config
	known.Members = slices.Clone(known.Members[:2])
	server := tr.daemon(t, "cosmo", port)
	server.config = known
	start(t, server)
	got(t, server)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	cosmo := known.Members[1]
	until := time.Now().Add(20 * time.Second)
	for { // until it listens
		_, err := node.ask(t.Context(), cosmo, public)
		if err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
	for name, d := range map[string]*Daemon{"a stranger": stranger, "a liar": liar} {
		if cert, err := d.ask(t.Context(), cosmo, public); err == nil {
			t.Errorf("%s got %x", name, cert)
		}
	}
	if _, err := node.ask(t.Context(), cosmo, []byte("no key")); err == nil || !strings.Contains(err.Error(), "no public key") {
		t.Errorf("garbage: %v", err)
	}
	impostor := cosmo
	impostor.Name, impostor.CA = "bianco", tr.config.Members[2].CA
	node.config.Members = append(slices.Clone(node.config.Members), impostor)
	if _, err := node.ask(t.Context(), impostor, public); err == nil || !strings.Contains(err.Error(), "cosmo answers") {
		t.Errorf("another server than the one that was asked: %v", err)
	}
}

// TestRenewal: what is good is kept, what is due, or of a server that left, is
// replaced.
func TestRenewal(t *testing.T) {
	tr := newTrio(t)
	d := tr.daemon(t, "cosmo", 24647)
	at := time.Now()
	d.now = func() time.Time { return at }
	serial := func() string {
		t.Helper()
		if _, err := d.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(d.dir, "nomad.pem"))
		if err != nil {
			t.Fatal(err)
		}
		leaf, _, err := pki.ParsePair(text)
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.String()
	}
	first := serial()
	at = at.Add(pki.RenewAfter - time.Minute)
	if serial() != first {
		t.Error("renewed before its time")
	}
	at = at.Add(2 * time.Minute)
	second := serial()
	if second == first {
		t.Error("not renewed when due")
	}
	d.self.V4 = netip.MustParseAddr("127.0.5.9")
	if serial() == second {
		t.Error("kept although the node has another address")
	}
	d.config.Members = d.config.Members[:1]
	d.self.Server = false
	d.signs = func(context.Context, certs.Member, []byte) ([]byte, error) { return nil, errors.New("away") }
	if _, err := d.renew(t.Context()); err == nil {
		t.Error("without a server there is a certificate")
	}
}
