package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/crypto/acme"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab"
	"github.com/moggyfleet/moggy/internal/lab/labtest"
)

const website = `
fleet "site" { domain = "cats.example" }
site "rack" { kind = "datacenter" }
site "home" {
  kind = "home"
  nat  = "cgnat"
  ipv6 = false
}
node "cosmo" {
  site   = site.rack
  public = ["198.51.100.11", "2001:db8:c0::11"]
}
node "bianco" { site = site.home }
`

// exposed adds a service with an image, and public hosts, as the file would.
func exposed(f *fleet.Fleet, hosts ...string) *fleet.Fleet {
	s := fleet.Service{Name: "web", Image: "registry.cats.example/team/web:1.0"}
	for _, h := range hosts {
		s.Expose = append(s.Expose, fleet.Route{Host: h, Path: "/", To: fleet.Public})
	}
	f.Services = []fleet.Service{s}
	return f
}

// TestLabInternet has everybody find each other by name and trust whom they
// should: names, registries, and a certificate that a stranger believes.
func TestLabInternet(t *testing.T) {
	labtest.Engines(t)
	l := labtest.Up(t, exposed(labtest.Fleet(t, website), "cats.example"))

	t.Run("names", func(t *testing.T) {
		for _, c := range []struct{ who, family, want string }{
			{"cosmo", "ahostsv6", "2001:db8:c0::11"}, {"bianco", "ahostsv4", "198.51.100.11"},
		} {
			if got := labtest.Exec(t, l, fleet.NodeName(c.who), "getent", c.family, "cats.example"); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s finds cats.example at %q, want %s", c.who, got, c.want)
			}
		}
		if got, code := labtest.TryExec(t, l, "bianco", "getent", "ahosts", "new.cats.example"); code == 0 {
			t.Errorf("a name that nobody exposes leads to %s", got)
		}
		if _, err := l.Up(t.Context(), exposed(labtest.Fleet(t, website), "cats.example", "new.cats.example"), labtest.Progress{T: t}); err != nil {
			t.Fatal(err)
		}
		if got, code := labtest.Run(t, l, "", "getent", "ahostsv4", "new.cats.example"); code != 0 || !strings.HasPrefix(got, "198.51.100.11") {
			t.Errorf("new.cats.example, as the operator, after up again: %q, exit code %d", got, code)
		}
	})
	t.Run("registry", func(t *testing.T) {
		const accept = "Accept: application/vnd.oci.image.manifest.v1+json"
		manifest := func(name string) (string, int) {
			return labtest.TryExec(t, l, "bianco", "curl", "-sSf", "-m", "60", "-H", accept, "https://registry.cats.example/v2/"+name+"/manifests/1.0")
		}
		if got, code := manifest("team/web"); code != 0 || !strings.Contains(got, `"layers"`) {
			t.Errorf("an image: exit code %d, %s", code, got)
		}
		if got, code := manifest("team/nope"); code != 22 || !strings.Contains(got, "404") {
			t.Errorf("an image that is not there: exit code %d, %s", code, got)
		}
		if err := l.Fail(t.Context(), "registry"); err != nil {
			t.Fatal(err)
		}
		if got, code := manifest("team/web"); code != 7 { // curl(1): failed to connect to host
			t.Errorf("a failed registry: exit code %d, %s", code, got)
		}
		if err := l.Heal(t.Context(), "registry", labtest.Progress{T: t}); err != nil {
			t.Fatal(err)
		}
		if got, code := manifest("team/web"); code != 0 {
			t.Errorf("a registry that was healed: exit code %d, %s", code, got)
		}
	})
	t.Run("delay", func(t *testing.T) { slowly(t, l) })
	t.Run("certificate", func(t *testing.T) { certificate(t, l) })
}

// certificate gets one for cats.example as cosmo would, over HTTP-01 (RFC 8555,
// 8.3), and has a stranger and a machine ask for the site.
func certificate(t *testing.T, l *lab.Lab) {
	t.Helper()
	roots := x509.NewCertPool()
	bundle := labtest.Exec(t, l, "cosmo", "cat", "/etc/ssl/certs/ca-certificates.crt")
	if !roots.AppendCertsFromPEM([]byte(bundle)) {
		t.Fatal("cosmo trusts nobody")
	}
	front := labtest.Exec(t, l, "cosmo", "getent", "ahostsv4", "acme-v02.api.letsencrypt.org")
	address, _, _ := strings.Cut(front, " ")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	client := &acme.Client{
		Key: key, DirectoryURL: acme.LetsEncryptURL,
		HTTPClient: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DialContext: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
				err = l.Within("cosmo", func() (err error) {
					c, err = new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(address, "443"))
					return err
				})
				return c, err
			},
		}},
	}
	if _, err := client.Register(t.Context(), &acme.Account{}, acme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	order, err := client.AuthorizeOrder(t.Context(), acme.DomainIDs("cats.example"))
	if err != nil {
		t.Fatal(err)
	}
	authz, err := client.GetAuthorization(t.Context(), order.AuthzURLs[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range authz.Challenges {
		if c.Type != "http-01" {
			continue
		}
		answer, err := client.HTTP01ChallengeResponse(c.Token)
		if err != nil {
			t.Fatal(err)
		}
		serveOn(t, l, ":80", nil, answer)
		if _, err := client.Accept(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	ready, err := client.WaitOrder(t.Context(), order.URI)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"cats.example"}}, leaf)
	if err != nil {
		t.Fatal(err)
	}
	// It fails where the certificate is not made at once: Pebble's answer does
	// not repeat where the order is, and RFC 8555 does not ask it to.
	_, _, finalizeErr := client.CreateOrderCert(t.Context(), ready.FinalizeURL, csr, true)
	done, err := client.WaitOrder(t.Context(), order.URI)
	if err != nil {
		t.Fatal(finalizeErr, err)
	}
	chain, err := client.FetchCert(t.Context(), done.CertURL, true)
	if err != nil {
		t.Fatal(finalizeErr, err)
	}
	serveOn(t, l, ":443", &tls.Config{Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: leaf}}, MinVersion: tls.VersionTLS12}, "meow")
	for _, family := range []string{"-4", "-6"} {
		if got, code := labtest.Run(t, l, "", "curl", "-sS", "-m", "60", family, "https://cats.example/"); got != "meow" {
			t.Errorf("a stranger, %s: exit code %d, %s", family, code, got)
		}
	}
	if got := labtest.Exec(t, l, "bianco", "curl", "-sS", "-m", "60", "https://cats.example/"); got != "meow" {
		t.Errorf("bianco: %s", got)
	}
}

// serveOn answers every request to that port of cosmo's with the text.
func serveOn(t *testing.T, l *lab.Lab, port string, config *tls.Config, text string) {
	t.Helper()
	var listener net.Listener
	if err := l.Within("cosmo", func() (err error) {
		listener, err = net.Listen("tcp", port)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })}
	t.Cleanup(func() { s.Close() })
	go func() {
		if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
}

// TestLabDocker runs a container from a registry's image on a machine behind a
// carrier's NAT, with the daemon from the distribution.
func TestLabDocker(t *testing.T) {
	labtest.Engines(t)
	f := exposed(labtest.Fleet(t, website))
	f.Nodes = f.Nodes[1:]
	l := labtest.Up(t, f)
	labtest.Exec(t, l, "bianco", "sh", "-c",
		"export DEBIAN_FRONTEND=noninteractive; apt-get -q update && apt-get -qy --no-install-recommends install docker.io iptables")
	const run = "docker run --detach --publish 8080:8080 "
	labtest.Exec(t, l, "bianco", "sh", "-c", run+"registry.cats.example/whoami:1.0")
	got := labtest.Exec(t, l, "bianco", "curl", "-sS", "--retry", "20", "--retry-delay", "1", "--retry-all-errors", "http://127.0.0.1:8080/")
	if !strings.Contains(got, "Version: 1.0\n") {
		t.Errorf("whoami says:\n%s", got)
	}
	if got, code := labtest.TryExec(t, l, "bianco", "docker", "pull", "docker.io/cats/nope:1.0"); code == 0 || !strings.Contains(got, "nknown") {
		t.Errorf("pulling what is not there: exit code %d, %s", code, got)
	}
}
