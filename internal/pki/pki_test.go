package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func now() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func bound() Constraints {
	return Constraints{
		Name: "ari.cats.internal", Domains: []string{"ari.cats.internal"},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.77.0.4/32"), netip.MustParsePrefix("fd7a::4/128")},
	}
}

func authority(t *testing.T, c Constraints) *Authority {
	t.Helper()
	a, err := NewAuthority(rand.Reader, now(), c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// verify asks crypto/x509, which Nomad and Go's TLS go by.
func verify(t *testing.T, a *Authority, l Leaf, at time.Time) error {
	t.Helper()
	pair, err := a.Issue(rand.Reader, now(), l)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _, err := ParsePair(pair)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Cert)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

func TestAuthorityIsBound(t *testing.T) {
	at := func(s ...string) (out []netip.Addr) {
		for _, a := range s {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	a := authority(t, bound())
	for name, tt := range map[string]struct {
		leaf Leaf
		good bool
	}{
		"its own name":           {Leaf{Domains: []string{"ari.cats.internal"}, Addresses: at("10.77.0.4", "fd7a::4")}, true},
		"a name under it":        {Leaf{Domains: []string{"x.ari.cats.internal"}}, true},
		"another's name":         {Leaf{Domains: []string{"bianco.cats.internal"}}, false},
		"a name that ends alike": {Leaf{Domains: []string{"notari.cats.internal"}}, false},
		"a server of Nomad":      {Leaf{Domains: []string{"ari.cats.internal", NomadServer}}, false},
		"another's address":      {Leaf{Domains: []string{"ari.cats.internal"}, Addresses: at("10.77.0.5")}, false},
		"another's IPv6 address": {Leaf{Domains: []string{"ari.cats.internal"}, Addresses: at("fd7a::5")}, false},
		"the internet's names":   {Leaf{Domains: []string{"example.com"}}, false},
	} {
		if err := verify(t, a, tt.leaf, now()); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLeafEnds(t *testing.T) {
	a, own := authority(t, bound()), Leaf{Domains: []string{"ari.cats.internal"}}
	for in, good := range map[time.Duration]bool{
		-30 * time.Minute: true, // a clock that is behind
		LeafLife - 1:      true, LeafLife + time.Second: false, -2 * time.Hour: false,
	} {
		if err := verify(t, a, own, now().Add(in)); (err == nil) != good {
			t.Errorf("after %s: %v", in, err)
		}
	}
	pair, err := a.Issue(rand.Reader, now(), own)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _, err := ParsePair(pair)
	if err != nil {
		t.Fatal(err)
	}
	for in, renew := range map[time.Duration]bool{0: false, RenewAfter: false, RenewAfter + time.Second: true, LeafLife: true, -2 * time.Hour: true} {
		if got := NeedsRenewal(leaf, now().Add(in)); got != renew {
			t.Errorf("after %s: renew is %v", in, got)
		}
	}
}

func TestCheckAuthority(t *testing.T) {
	a := authority(t, bound())
	wider := bound()
	wider.Domains = append(wider.Domains, NomadRegion+".nomad")
	server, err := a.Bound(rand.Reader, now(), wider)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := a.Sign(rand.Reader, now(), server.key.Public(), Leaf{Domains: []string{"ari.cats.internal"}})
	if err != nil {
		t.Fatal(err)
	}
	other := bound()
	other.Name = "bianco.cats.internal"
	forged := bytes.Clone(a.Cert.Raw)
	forged[len(forged)-1] ^= 1
	for name, tt := range map[string]struct {
		der  []byte
		want Constraints
		at   time.Time
		says string
	}{
		"its own":        {a.Cert.Raw, bound(), now(), ""},
		"bound anew":     {server.Cert.Raw, wider, now(), ""},
		"not bound anew": {a.Cert.Raw, wider, now(), "bound to other names"},
		"bound too wide": {server.Cert.Raw, bound(), now(), "bound to other names"},
		"another's":      {a.Cert.Raw, other, now(), "another name"},
		"a leaf":         {leaf, bound(), now(), "authorities of its own"},
		"forged":         {forged, bound(), now(), "did not sign itself"},
		"expired":        {a.Cert.Raw, bound(), now().Add(AuthorityLife + time.Hour), "expired"},
		"from afar":      {a.Cert.Raw, bound(), now().Add(-2 * AuthorityLife), "longer than any"},
		"nothing":        {nil, bound(), now(), "certificate of an authority"},
	} {
		_, err := CheckAuthority(tt.der, tt.want, tt.at)
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
}

func TestAuthorityIsKept(t *testing.T) {
	a := authority(t, bound())
	text, err := a.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	same, err := ParseAuthority(text)
	if err != nil {
		t.Fatal(err)
	}
	if !same.Cert.Equal(a.Cert) || !same.key.Equal(a.key) {
		t.Error("another authority")
	}
	if err := verify(t, same, Leaf{Domains: []string{"ari.cats.internal"}}, now()); err != nil {
		t.Error(err)
	}
	pair, err := a.Issue(rand.Reader, now(), Leaf{Domains: []string{"ari.cats.internal"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAuthority(pair); err == nil {
		t.Error("a leaf is taken for an authority")
	}
	crossed := append(CertPEM(a.Cert.Raw), pair[bytes.Index(pair, []byte("-----BEGIN PRIVATE")):]...)
	if _, err := ParseAuthority(crossed); err == nil {
		t.Error("a key is taken that is another's")
	}
}

func TestExpected(t *testing.T) {
	yes := true
	f := &fleet.Fleet{
		Name: "cats", Domain: "cats.example", Scheduler: fleet.Nomad,
		Sites: []fleet.Site{{Name: "home", Kind: fleet.Home}},
		Nodes: []fleet.Node{
			{Name: "ari", Site: "home", Server: &yes},
			{Name: "cosmo", Site: "home", Public: []netip.Addr{netip.MustParseAddr("198.51.100.1")}},
		},
	}
	l := &fleet.Lock{
		Mesh: fleet.Ranges{V4: netip.MustParsePrefix("10.77.0.0/16")},
		Nodes: []fleet.NodeLock{
			{Name: "ari", V4: netip.MustParseAddr("10.77.0.4")}, {Name: "cosmo", V4: netip.MustParseAddr("10.77.0.1")},
		},
	}
	own := []netip.Prefix{netip.MustParsePrefix("10.77.0.1/32")}
	check := func(n fleet.NodeName, want Constraints) {
		t.Helper()
		sameAddr := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
		if diff := cmp.Diff(want, Expected(f, l, n), sameAddr); diff != "" {
			t.Errorf("%s (-want +got):\n%s", n, diff)
		}
	}
	check("cosmo", Constraints{Name: "cosmo.cats.internal", Domains: []string{"cosmo.cats.internal"}, Prefixes: own})
	check("ari", Constraints{
		Name: "ari.cats.internal", Domains: []string{"ari.cats.internal", "cats.internal", "global.nomad"},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("10.77.0.0/16")},
	})
	f.Scheduler = fleet.Systemd
	f.Services = []fleet.Service{{Name: "wiki", Expose: []fleet.Route{{Host: "wiki.cats.example", To: fleet.Mesh}}}}
	check("cosmo", Constraints{Name: "cosmo.cats.internal", Domains: []string{"cosmo.cats.internal", "cats.example"}, Prefixes: own})
}

func FuzzParsePair(f *testing.F) {
	a, err := NewAuthority(rand.Reader, now(), bound())
	if err != nil {
		f.Fatal(err)
	}
	text, err := a.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, a.Cert.Raw)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, text, der []byte) {
		if cert, key, err := ParsePair(text); err == nil && !key.PublicKey.Equal(cert.PublicKey) {
			t.Error("a pair that is none")
		}
		if cert, err := CheckAuthority(der, bound(), now()); err == nil && cert.Subject.CommonName != bound().Name {
			t.Error("another's authority was taken")
		}
	})
}
