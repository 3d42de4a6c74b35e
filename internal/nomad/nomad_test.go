package nomad

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/pki"
)

const secret = "a-token-for-tests"

// agent is an API with mTLS as Nomad has it, and the Local that knows it.
func agent(t *testing.T, handler http.Handler) Local {
	t.Helper()
	loopback := netip.MustParseAddr("127.0.0.1")
	a, err := pki.NewAuthority(rand.Reader, time.Now(), pki.Constraints{
		Name: "cosmo", Domains: []string{"global.nomad"}, Prefixes: []netip.Prefix{netip.PrefixFrom(loopback, 32)},
	})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue(rand.Reader, time.Now(), pki.Leaf{Domains: []string{pki.NomadServer}, Addresses: []netip.Addr{loopback}})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Cert)
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	dir := t.TempDir()
	l := Local{
		At:    netip.MustParseAddrPort(server.Listener.Addr().String()),
		Roots: filepath.Join(dir, "roots.pem"), Pair: filepath.Join(dir, "pair.pem"), Token: filepath.Join(dir, "token"),
	}
	for path, text := range map[string][]byte{l.Roots: pki.CertPEM(a.Cert.Raw), l.Pair: pair, l.Token: []byte(secret + "\n")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// TestServe has a client's requests go through a pipe to the agent, with the token;
// the first of all makes it the one that may do all.
func TestServe(t *testing.T) {
	var known atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/acl/token/self", func(w http.ResponseWriter, _ *http.Request) {
		if !known.Load() {
			http.Error(w, "Permission denied", http.StatusForbidden)
		}
	})
	mux.HandleFunc("POST /v1/acl/bootstrap", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || !strings.Contains(string(b), secret) {
			t.Errorf("bootstrap: %s, %v", b, err)
		}
		known.Store(true)
	})
	mux.HandleFunc("GET /v1/jobs", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Nomad-Token") != secret {
			t.Error("without the token")
		}
		fmt.Fprint(w, `[{"ID": "web"}]`)
	})
	l := agent(t, mux)
	c, done, err := Client(func(ctx context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			if err := l.Serve(t.Context(), theirs); err != nil {
				t.Error(err)
			}
		}()
		return ours, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	for range 3 {
		jobs, _, err := c.Jobs().List(nil)
		if err != nil || len(jobs) != 1 || jobs[0].ID != "web" {
			t.Fatalf("%v, %v", jobs, err)
		}
	}
	if !known.Load() {
		t.Error("the token was not made known")
	}
}

// TestWatch: a change is told, an error and a dead agent are not; then the whole
// list is asked for again.
func TestWatch(t *testing.T) {
	answers := []string{
		`[{"JobID":"web","NodeName":"maco","TaskGroup":"instance","ClientStatus":"running","DesiredStatus":"run","DeploymentStatus":{"Healthy":true}},
		  {"JobID":"web","NodeName":"cosmo","TaskGroup":"instance","ClientStatus":"running","DesiredStatus":"run"},
		  {"JobID":"web","NodeName":"ari","TaskGroup":"instance","ClientStatus":"running","DesiredStatus":"stop"},
		  {"JobID":"other","NodeName":"ari","TaskGroup":"theirs","ClientStatus":"running","DesiredStatus":"run"}]`,
		"",
		`[{"JobID":"web","NodeName":"miki","TaskGroup":"instance","ClientStatus":"running","DesiredStatus":"run","DeploymentStatus":{"Healthy":true}}]`,
	}
	var asked atomic.Int32
	l := agent(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(asked.Add(1)) - 1
		if n >= len(answers) {
			<-r.Context().Done()
			return
		}
		if index := r.URL.Query().Get("index"); (n == 1) != (index == "7") {
			t.Errorf("question %d is for what is after %q", n, index)
		}
		if answers[n] == "" {
			http.Error(w, "no leader", http.StatusInternalServerError)
			return
		}
		w.Header().Set("X-Nomad-Index", indexAfter(n))
		fmt.Fprint(w, answers[n])
	}))
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var told []map[fleet.ServiceName][]Instance
	if err := l.Watch(ctx, func(now map[fleet.ServiceName][]Instance) {
		if told = append(told, now); len(told) == 2 {
			stop()
		}
	}); err != nil {
		t.Fatal(err)
	}
	want := []map[fleet.ServiceName][]Instance{
		{"web": {{"cosmo", false}, {"maco", true}}},
		{"web": {{"miki", true}}},
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func indexAfter(n int) string { return fmt.Sprint(7 + n) }

func FuzzInstances(f *testing.F) {
	f.Add(`[{"JobID":"web","NodeName":"maco","TaskGroup":"instance","ClientStatus":"running","DesiredStatus":"run"}]`)
	f.Add(`[null]`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := instances(strings.NewReader(text))
		if err != nil {
			return
		}
		for s, list := range got {
			if len(list) == 0 {
				t.Errorf("%s without instances", s)
			}
		}
	})
}
