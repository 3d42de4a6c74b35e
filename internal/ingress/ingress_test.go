package ingress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

	"github.com/quic-go/quic-go/http3"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/site"
)

// fixture is an ingress with an authority, on this machine's loopback.
type fixture struct {
	*Ingress
	authority *authority
	config    fleet.IngressConfig
	client    *http.Client
}

// start runs an ingress; set fills in services and routes.
func start(t *testing.T, set func(*fleet.IngressConfig, string)) *fixture {
	t.Helper()
	dir := t.TempDir()
	httpPort, httpsPort := freePort(t), freePort(t)
	f := &fixture{authority: startAuthority(t, httpPort, httpsPort)}
	f.config = fleet.IngressConfig{
		Version: 1, Fleet: "cats", V4: netip.MustParsePrefix("127.0.0.0/16"), V6: netip.MustParsePrefix("fd00::/48"),
		Port: uint16(freePort(t)), ACME: fleet.IngressACME{Directory: f.authority.directory, Email: "cat@cats.example"},
		Nodes: []fleet.IngressNode{{Name: "cosmo", V4: netip.MustParseAddr("127.0.0.9"), V6: netip.MustParseAddr("fd00::9")}},
	}
	set(&f.config, dir)
	f.Ingress = New(Options{
		ConfigPath: filepath.Join(dir, "ingress.json"), SecretsPath: filepath.Join(dir, "secrets"), SocketPath: filepath.Join(dir, "s"),
		StateDir: dir, SitesDir: dir, HTTPPort: httpPort, HTTPSPort: httpsPort, Version: "test",
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	})
	f.write(t)
	if err := os.WriteFile(f.opt.SecretsPath, []byte(`{"self":"cosmo"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	f.opt.Notify = func(string) { close(ready) }
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	f.client = f.newClient(t, "127.0.0.1")
	return f
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) { return len(p), nil }

func (f *fixture) write(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(f.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.opt.ConfigPath, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// newClient is a browser that reaches every name at that address.
func (f *fixture) newClient(t *testing.T, at string) *http.Client {
	t.Helper()
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(address)
		d := net.Dialer{}
		if at != "127.0.0.1" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP("127.0.0.7")}
		} else {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP("127.1.0.1")} // outside of what the tests take for the mesh
		}
		return d.DialContext(ctx, network, net.JoinHostPort(at, port))
	}
	tr := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: f.authority.roots}, ForceAttemptHTTP2: true, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (f *fixture) url(host, path string) string {
	return fmt.Sprintf("https://%s:%d%s", host, f.opt.HTTPSPort, path)
}

// certified waits until there is a certificate for the host, and it is served.
func (f *fixture) certified(t *testing.T, host string) {
	t.Helper()
	eventually(t, "certificate for "+host, func() bool {
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.opt.HTTPSPort), &tls.Config{RootCAs: f.authority.roots, ServerName: host})
		if err != nil {
			return false
		}
		c.Close()
		for _, c := range f.Status().Certificates {
			if c.Host == host && !c.NotAfter.IsZero() {
				return true
			}
		}
		return false
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("no %s after 30 s", what)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (f *fixture) get(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return res, string(body)
}

func backendAt(s *httptest.Server, node fleet.NodeName) fleet.IngressBackend {
	return fleet.IngressBackend{Node: node, Address: netip.MustParseAddrPort(s.Listener.Addr().String())}
}

func packed(t *testing.T, dir, name string, files map[string]string) fleet.Digest {
	t.Helper()
	src := t.TempDir()
	for n, c := range files {
		if err := os.WriteFile(filepath.Join(src, n), []byte(c), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := site.Look(src)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f.Open())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".zip"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return f.Digest
}

// TestServes is an ingress as a whole: from a configuration to answers over HTTPS
// with a certificate of an authority that asked for proof.
func TestServes(t *testing.T) {
	var last atomic.Pointer[http.Request]
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != "moggy-ingress" { // a probe
			last.Store(r)
		}
		switch {
		case r.Header.Get("Upgrade") == "websocket":
			echo(w)
		case r.ProtoMajor == 2:
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = io.Copy(w, r.Body)
			w.Header().Set("Grpc-Status", "0")
		default:
			fmt.Fprintf(w, "web %s %s", r.URL.Path, strings.Repeat("a cat ", 200))
		}
	}))
	web.Config.Protocols = new(http.Protocols)
	web.Config.Protocols.SetHTTP1(true)
	web.Config.Protocols.SetUnencryptedHTTP2(true)
	web.Start()
	defer web.Close()
	f := start(t, func(c *fleet.IngressConfig, dir string) {
		c.Services = []fleet.IngressService{
			{Name: "blog", Site: packed(t, dir, "blog", map[string]string{"index.html": "<h1>blog</h1>", "404.html": "no such page"})},
			{Name: "none", Health: fleet.HealthHTTP, Path: "/"},
			{Name: "web", Health: fleet.HealthHTTP, Path: "/", Backends: []fleet.IngressBackend{backendAt(web, "bianco")}},
		}
		c.Routes = []fleet.IngressRoute{
			{Host: "blog.cats.example", Path: "/", To: fleet.Public, Service: "blog"},
			{Host: "cats.example", Path: "/", To: fleet.Public, Service: "web"},
			{Host: "cats.example", Path: "/none", To: fleet.Public, Service: "none"},
			{Host: "cats.example", Path: "/admin", To: fleet.Mesh, Service: "web"},
			{Host: "tool.cats.example", Path: "/", To: fleet.Mesh, Service: "web"},
		}
	})
	f.certified(t, "cats.example")
	f.certified(t, "blog.cats.example")

	t.Run("proxy", func(t *testing.T) {
		res, body := f.get(t, f.client, f.url("cats.example", "/cats?x=1"), "X-Forwarded-For", "10.9.9.9", "Cookie", "secret=1")
		if res.StatusCode != 200 || !strings.HasPrefix(body, "web /cats") || res.ProtoMajor != 2 || res.Header.Get("Server") != "" {
			t.Errorf("%d %.20q over HTTP/%d, %v", res.StatusCode, body, res.ProtoMajor, res.Header)
		}
		r := last.Load()
		if r.Header.Get("X-Forwarded-For") != "127.1.0.1" || r.Header.Get("X-Forwarded-Proto") != "https" || !strings.HasPrefix(r.Header.Get("X-Forwarded-Host"), "cats.example") || r.Header.Get("Cookie") != "secret=1" {
			t.Errorf("the backend sees %v", r.Header)
		}
		if !strings.Contains(res.Header.Get("Alt-Svc"), "h3=") {
			t.Errorf("HTTP/3 is not offered: %v", res.Header)
		}
	})
	t.Run("compression", func(t *testing.T) {
		for _, e := range []string{"gzip", "zstd"} {
			res, body := f.get(t, f.client, f.url("cats.example", "/"), "Accept-Encoding", e)
			if res.Header.Get("Content-Encoding") != e || len(body) > 300 {
				t.Errorf("%s: %q, %d bytes", e, res.Header.Get("Content-Encoding"), len(body))
			}
		}
	})
	t.Run("http3", func(t *testing.T) {
		tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: f.authority.roots, ServerName: "cats.example"}}
		defer tr.Close()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/", f.opt.HTTPSPort), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "cats.example"
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 200 || res.ProtoMajor != 3 {
			t.Errorf("%s over %s", res.Status, res.Proto)
		}
	})
	t.Run("websocket", func(t *testing.T) { f.websocket(t) })
	t.Run("grpc", func(t *testing.T) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url("cats.example", "/cats.Cats/Feed"), strings.NewReader("\x00\x00\x00\x00\x01x"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Te", "trailers")
		res, err := f.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		if last.Load().ProtoMajor != 2 || res.Trailer.Get("Grpc-Status") != "0" || len(body) != 6 {
			t.Errorf("HTTP/%d to the backend, trailers %v, %q", last.Load().ProtoMajor, res.Trailer, body)
		}
	})
	t.Run("site", func(t *testing.T) {
		res, body := f.get(t, f.client, f.url("blog.cats.example", "/"))
		if res.StatusCode != 200 || body != "<h1>blog</h1>" || res.Header.Get("ETag") == "" {
			t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
		}
		if res, body = f.get(t, f.client, f.url("blog.cats.example", "/../../etc/passwd")); res.StatusCode != 404 || body != "no such page" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	})
	t.Run("nothing there", func(t *testing.T) {
		res, body := f.get(t, f.client, f.url("cats.example", "/none/x"))
		if res.StatusCode != 503 || body != "503 Service Unavailable\n" || res.Header.Get("Retry-After") == "" {
			t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
		}
	})
	t.Run("plain", func(t *testing.T) {
		res, _ := f.get(t, f.client, fmt.Sprintf("http://cats.example:%d/x?y=1", f.opt.HTTPPort))
		if res.StatusCode != 308 || res.Header.Get("Location") != f.url("cats.example", "/x?y=1") {
			t.Errorf("%d to %q", res.StatusCode, res.Header.Get("Location"))
		}
	})
	t.Run("strangers", func(t *testing.T) { f.strangers(t) })
	t.Run("status", func(t *testing.T) {
		eventually(t, "backend that is up", func() bool { return f.Status().Services[2].Backends[0].State == fleet.BackendUp })
		s := f.Status()
		if s.Self != "cosmo" || len(s.Routes) != 5 || len(s.Certificates) != 2 || s.Certificates[0].Alarm(time.Now()) || s.Certificates[0].Issuer == "" {
			t.Errorf("%+v", s)
		}
		var b bytes.Buffer
		writeMetrics(&b, s)
		if !strings.Contains(b.String(), `moggy_ingress_backend_up{service="web",node="bianco"} 1`) {
			t.Errorf("metrics:\n%s", &b)
		}
	})
	t.Run("reload", func(t *testing.T) { f.changes(t) })
}

func echo(w http.ResponseWriter) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_ = rw.Flush()
	_, _ = io.Copy(c, rw)
}

// dialWebSocket opens one, and returns what reads and writes its bytes.
func (f *fixture) dialWebSocket(t *testing.T) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.opt.HTTPSPort), &tls.Config{RootCAs: f.authority.roots, ServerName: "cats.example", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: cats.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", res, err)
	}
	return c, r
}

func (f *fixture) websocket(t *testing.T) {
	t.Helper()
	c, r := f.dialWebSocket(t)
	said(t, c, r)
}

func said(t *testing.T, c *tls.Conn, r *bufio.Reader) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "meow\n")
	if got, err := r.ReadString('\n'); got != "meow\n" || err != nil {
		t.Fatalf("said meow, heard %q %v", got, err)
	}
}

// strangers get no answer: not for hosts of nobody, not for what is on the mesh.
func (f *fixture) strangers(t *testing.T) {
	t.Helper()
	fails := func(name, url, host string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			r.Host = host
		}
		if res, err := f.client.Do(r); err == nil {
			res.Body.Close()
			t.Errorf("%s: %s", name, res.Status)
		}
	}
	fails("host of nobody", f.url("other.example", "/"), "")
	fails("host of nobody in a good handshake", f.url("cats.example", "/"), "other.example")
	fails("host of nobody, plain", fmt.Sprintf("http://other.example:%d/", f.opt.HTTPPort), "")
	fails("on the mesh", f.url("tool.cats.example", "/"), "")
	fails("on the mesh, plain", fmt.Sprintf("http://tool.cats.example:%d/", f.opt.HTTPPort), "")
	fails("on the mesh, in a good handshake", f.url("cats.example", "/"), "tool.cats.example")
	for _, p := range []string{"/admin", "/admin/x", "//admin", "/x/../admin", "/%2e%2e/admin", "/./admin"} {
		fails("path on the mesh", f.url("cats.example", p), "")
	}
	near := f.newClient(t, "127.0.0.9")
	if res, _ := f.get(t, near, f.url("cats.example", "/admin")); res.StatusCode != 200 {
		t.Errorf("over the mesh: %s", res.Status)
	}
	_, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.opt.HTTPSPort), &tls.Config{InsecureSkipVerify: true})
	if _, alert := errors.AsType[*net.OpError](err); !alert {
		t.Errorf("a handshake without a name: %v", err)
	}
}

// changes to the routes take effect without a connection that ends.
func (f *fixture) changes(t *testing.T) {
	t.Helper()
	c, r := f.dialWebSocket(t)
	said(t, c, r)
	f.config.Routes = append(f.config.Routes, fleet.IngressRoute{Host: "new.cats.example", Path: "/", To: fleet.Public, Service: "web"})
	f.write(t)
	if err := f.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	said(t, c, r)
	f.certified(t, "new.cats.example")
	if res, _ := f.get(t, f.client, f.url("new.cats.example", "/")); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	if err := os.WriteFile(f.opt.ConfigPath, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Reload(t.Context()); err == nil || f.Status().Problem == "" {
		t.Errorf("half a configuration: %v", err)
	}
	said(t, c, r)
}
