package trust

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"
)

func now() time.Time { return time.Date(2026, 11, 22, 22, 0, 0, 0, time.UTC) }

func authority(t *testing.T) *Authority {
	t.Helper()
	cert, key, err := Make("lab test", now)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Load(cert, key, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// shake has a client who trusts only `trusted` ask for a server by name.
func shake(t *testing.T, server, trusted *Authority, name string) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: server.Certificate, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake() //nolint:forcetypeassert // the listener is one of TLS; the client says what went wrong
			c.Close()
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: trusted.Pool(), ServerName: name, Time: now, MinVersion: tls.VersionTLS13})
	if err == nil {
		c.Close()
	}
	<-done
	return err
}

func TestCertificates(t *testing.T) {
	a, b := authority(t), authority(t)
	if err := shake(t, a, a, "registry.cats.example"); err != nil {
		t.Errorf("by a client who trusts it: %v", err)
	}
	var unknown *tls.CertificateVerificationError
	if err := shake(t, a, b, "registry.cats.example"); !errors.As(err, &unknown) {
		t.Errorf("by a client who trusts another: %v", err)
	}
	first, err := a.Certificate(&tls.ClientHelloInfo{ServerName: "Registry.cats.example."})
	if err != nil {
		t.Fatal(err)
	}
	again, err := a.Certificate(&tls.ClientHelloInfo{ServerName: "registry.cats.example"})
	if err != nil || first != again {
		t.Errorf("the second time another certificate (%v)", err)
	}
	if _, err := a.Certificate(&tls.ClientHelloInfo{}); !errors.Is(err, errNoName) {
		t.Errorf("without a name: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	a := authority(t)
	cert, key, err := a.Issue("127.0.0.1", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"127.0.0.1": true, "localhost": true, "127.0.0.2": false} {
		if err := pair.Leaf.VerifyHostname(name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	cert, key, err := Make("lab test", now)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2][]byte{
		"nothing":    {nil, nil},
		"no key":     {cert, cert},
		"two":        {append(cert, cert...), key},
		"swapped":    {key, cert},
		"cut in two": {[]byte(strings.TrimSpace(string(cert))[:100]), key},
	} {
		if _, err := Load(c[0], c[1], now); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
