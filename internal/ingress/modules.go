package ingress

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode" // handlers that the configuration names
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode/gzip"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode/zstd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls/standardstek"
	_ "github.com/caddyserver/caddy/v2/modules/logging"
	"github.com/caddyserver/certmagic"
)

// home is where modules find the ingress that they are of. Caddy is one for a whole
// process, and makes its modules itself.
type home struct{ atomic.Pointer[Ingress] }

// register makes our modules known to Caddy, once in a process; then the last
// ingress that was registered is the one that is served.
func register(in *Ingress) {
	if have, err := caddy.GetModule("http.handlers.moggy_route"); err == nil {
		have.New().(*router).home.Store(in)
		return
	}
	h := &home{}
	h.Store(in)
	for _, m := range []caddy.Module{
		&router{home: h}, &upgrade{home: h}, &sites{home: h}, &sorry{}, &upstreams{home: h},
		&transport{home: h}, &repeatable{}, &strangers{home: h}, &storage{home: h},
	} {
		caddy.RegisterModule(m)
	}
}

// router finds where a request leads; the handlers after it serve it.
type router struct {
	home *home
	in   *Ingress
}

// CaddyModule names it.
func (m *router) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.moggy_route", New: func() caddy.Module { return &router{home: m.home} }}
}

// Provision takes from Caddy what the ingress needs of it.
func (m *router) Provision(ctx caddy.Context) error {
	m.in = m.home.Load()
	app, err := ctx.App("tls")
	if err != nil {
		return err
	}
	m.in.tls.Store(app.(*caddytls.TLS))
	if app, err = ctx.App("events"); err != nil {
		return err
	}
	events := app.(*caddyevents.App)
	return errors.Join(events.On("cert_failed", certificateEvents{m.in}), events.On("cert_obtained", certificateEvents{m.in}))
}

// ServeHTTP finds the route.
func (m *router) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return m.in.route(w, r, next)
}

// upgrade answers plain HTTP: with the way to HTTPS.
type upgrade struct {
	home *home
	in   *Ingress
}

// CaddyModule names it.
func (m *upgrade) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.moggy_upgrade", New: func() caddy.Module { return &upgrade{home: m.home} }}
}

// Provision finds the ingress.
func (m *upgrade) Provision(caddy.Context) error { m.in = m.home.Load(); return nil }

// ServeHTTP redirects.
func (m *upgrade) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return m.in.upgrade(w, r)
}

// sites serves what is on this node's own disk.
type sites struct {
	home *home
	in   *Ingress
}

// CaddyModule names it.
func (m *sites) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.moggy_site", New: func() caddy.Module { return &sites{home: m.home} }}
}

// Provision finds the ingress.
func (m *sites) Provision(caddy.Context) error { m.in = m.home.Load(); return nil }

// ServeHTTP serves the site, or leaves the request to the next handler.
func (m *sites) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	v := visitOf(r)
	if v == nil || v.service.Site == "" {
		return next.ServeHTTP(w, r)
	}
	s := m.in.view.Load().sites[v.service.Name]
	if s == nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, errors.New("the site is not on this node"))
	}
	s.ServeHTTP(w, r)
	return nil
}

// sorry is the page for what went wrong.
type sorry struct{}

// CaddyModule names it.
func (*sorry) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.moggy_sorry", New: func() caddy.Module { return new(sorry) }}
}

// ServeHTTP says the status and nothing else.
func (*sorry) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	status := http.StatusInternalServerError
	var failed caddyhttp.HandlerError
	if err, ok := r.Context().Value(caddyhttp.ErrorCtxKey).(error); ok && errors.As(err, &failed) && failed.StatusCode > 0 {
		status = failed.StatusCode
	}
	h := w.Header()
	h.Del("Server")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if status >= http.StatusBadGateway {
		h.Set("Retry-After", "2")
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, "%d %s\n", status, http.StatusText(status))
	return nil
}

// upstreams chooses backends for reverse_proxy.
type upstreams struct {
	home *home
	in   *Ingress
}

// CaddyModule names it.
func (m *upstreams) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.upstreams.moggy", New: func() caddy.Module { return &upstreams{home: m.home} }}
}

// Provision finds the ingress.
func (m *upstreams) Provision(caddy.Context) error { m.in = m.home.Load(); return nil }

// GetUpstreams is asked before each try.
func (m *upstreams) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	return m.in.choose(r)
}

// transport is Caddy's, and tells the table what became of requests.
type transport struct {
	reverseproxy.HTTPTransport
	home *home
	in   *Ingress
}

// CaddyModule names it.
func (m *transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.moggy", New: func() caddy.Module { return &transport{home: m.home} }}
}

// Provision makes Caddy's.
func (m *transport) Provision(ctx caddy.Context) error {
	m.in = m.home.Load()
	if err := m.HTTPTransport.Provision(ctx); err != nil {
		return err
	}
	m.Transport.Proxy = nil // backends are on the mesh, whatever the environment says
	m.in.addIdle(m.Transport.CloseIdleConnections)
	return nil
}

// RoundTrip is one try of a request.
func (m *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return m.in.try(r, &m.HTTPTransport)
}

// repeatable are the requests that may be tried again though a backend may have
// seen them: those that change nothing (RFC 9110, section 9.2.1), and without a body,
// those that do the same the second time (9.2.2).
type repeatable struct{}

// CaddyModule names it.
func (*repeatable) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.matchers.moggy_repeatable", New: func() caddy.Module { return new(repeatable) }}
}

// MatchWithError looks at a request that failed.
func (*repeatable) MatchWithError(r *http.Request) (bool, error) {
	v := visitOf(r)
	return v != nil && canRepeat(r) && v.broken <= maxBroken, nil
}

// strangers are handshakes that get no answer.
type strangers struct {
	home *home
	in   *Ingress
}

// CaddyModule names it.
func (m *strangers) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.handshake_match.moggy_stranger", New: func() caddy.Module { return &strangers{home: m.home} }}
}

// Provision finds the ingress.
func (m *strangers) Provision(caddy.Context) error { m.in = m.home.Load(); return nil }

// Match looks at the first words of a handshake.
func (m *strangers) Match(hello *tls.ClientHelloInfo) bool { return m.in.stranger(hello) }

// storage is where Caddy keeps certificates.
type storage struct{ home *home }

// CaddyModule names it.
func (m *storage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.moggy", New: func() caddy.Module { return &storage{home: m.home} }}
}

// CertMagicStorage is the store of all ingress nodes.
func (m *storage) CertMagicStorage() (certmagic.Storage, error) { return m.home.Load().store, nil }
