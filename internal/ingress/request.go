package ingress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/ingress/probe"
	"github.com/moggyfleet/moggy/internal/ingress/table"
)

const (
	visitVar = "moggy_visit"
	// maxBroken is how many connections may end under one request before it is given
	// up: it may be the request that ends them.
	maxBroken = 2
	// pause is between tries when all backends had theirs.
	pause = 50 * time.Millisecond
)

// visit is one request on its way.
type visit struct {
	service fleet.IngressService
	backend *table.Backend // of the try under way; nil for none
	life    *lost
	tried   []netip.AddrPort
	broken  int
	end     context.CancelCauseFunc // of the try under way
}

func visitOf(r *http.Request) *visit {
	v, _ := caddyhttp.GetVar(r.Context(), visitVar).(*visit)
	return v
}

// route finds where a request leads. Who asks for what is not there for him gets no
// answer: the connection ends.
func (in *Ingress) route(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	w.Header().Del("Server")
	service, ok := in.view.Load().find(r)
	if !ok {
		hangUp(r)
	}
	v := &visit{service: service}
	caddyhttp.SetVar(r.Context(), visitVar, v)
	if service.Site == "" && len(service.Backends) == 0 {
		return caddyhttp.Error(http.StatusServiceUnavailable, errors.New("no node runs the service"))
	}
	defer in.finish(v)
	return next.ServeHTTP(w, r)
}

func hangUp(r *http.Request) {
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	panic(http.ErrAbortHandler)
}

// upgrade sends a client of plain HTTP to HTTPS.
func (in *Ingress) upgrade(w http.ResponseWriter, r *http.Request) error {
	w.Header().Del("Server")
	v, host := in.view.Load(), hostOf(r.Host)
	if to, ok := v.table.Audience(host); !ok || to == fleet.Mesh && !v.fromMesh(r) {
		hangUp(r)
	}
	if in.opt.HTTPSPort != 443 {
		host = net.JoinHostPort(host, portString(in.opt.HTTPSPort))
	}
	w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
	w.WriteHeader(http.StatusPermanentRedirect)
	return nil
}

// find is where the request leads, if it may go there. The path is looked at as a
// backend will understand it: "/x/../admin" is "/admin".
func (v *view) find(r *http.Request) (fleet.IngressService, bool) {
	at := r.URL.Path
	if strings.Contains(at, "//") || strings.Contains(at, "/.") {
		at = path.Clean(at)
	}
	route, ok := v.table.Route(hostOf(r.Host), at)
	if !ok || route.To == fleet.Mesh && !v.fromMesh(r) {
		return fleet.IngressService{}, false
	}
	return v.table.Service(route.Service)
}

// hostOf is a host as routes have it: without port, final dot and capitals.
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func (v *view) fromMesh(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && v.onMesh(r.RemoteAddr, local.String())
}

// onMesh says whether a connection came over the mesh: from an address of it, to
// ours. Who pretends to be there from elsewhere does not get our answers, which go
// over the mesh.
func (v *view) onMesh(remote, local string) bool {
	from, err1 := netip.ParseAddrPort(remote)
	to, err2 := netip.ParseAddrPort(local)
	if err1 != nil || err2 != nil {
		return false
	}
	a, b := from.Addr().Unmap(), to.Addr().Unmap()
	return (v.config.V4.Contains(a) || v.config.V6.Contains(a)) && (b == v.self.V4 || b == v.self.V6)
}

// choose is asked before each try of a request.
func (in *Ingress) choose(r *http.Request) ([]*reverseproxy.Upstream, error) {
	v := visitOf(r)
	in.finish(v)
	in.mu.Lock()
	b, fresh := in.table.Pick(v.service.Name, v.tried, now())
	if b != nil {
		v.backend, v.life = b, in.lifeLocked(b)
	}
	in.mu.Unlock()
	if b == nil {
		return nil, errors.New("no node runs the service")
	}
	if !fresh { // all had their chance: one may be back in a moment
		v.tried = v.tried[:0]
		select {
		case <-r.Context().Done():
		case <-time.After(pause):
		}
	}
	v.tried = append(v.tried, b.Address)
	return []*reverseproxy.Upstream{{Dial: b.Address.String()}}, nil
}

// finish ends a try.
func (in *Ingress) finish(v *visit) {
	if v.end != nil {
		v.end(nil)
		v.end = nil
	}
	if v.backend == nil {
		return
	}
	in.mu.Lock()
	in.table.Done(v.backend)
	in.mu.Unlock()
	v.backend = nil
}

// try is one try of a request: what becomes of it is told to the table. A request
// that may be repeated does not wait longer for a backend than that is thought to
// be there, if another is.
func (in *Ingress) try(r *http.Request, t *reverseproxy.HTTPTransport) (*http.Response, error) {
	v := visitOf(r)
	b := v.backend
	if len(v.service.Backends) > 1 && canRepeat(r) {
		ctx, end := context.WithCancelCause(r.Context())
		v.end = end // when the answer was passed on, or at the next try
		stop := context.AfterFunc(v.life.ctx, func() { end(errLost) })
		defer stop()
		r = r.WithContext(ctx)
	}
	res, err := t.RoundTrip(r)
	if err == nil {
		return res, nil
	}
	if errors.Is(err, context.Canceled) || r.Context().Err() != nil && !errors.Is(context.Cause(r.Context()), errLost) {
		return nil, err // the client is gone
	}
	outcome, why := table.Broken, "connection ended under a request"
	if _, dialing := errors.AsType[reverseproxy.DialError](err); dialing {
		outcome, why = probe.Judge(err)
	} else {
		v.broken++
	}
	in.mu.Lock()
	out := in.table.Tried(b, outcome, why, now())
	in.mu.Unlock()
	if out {
		in.out(b, outcome, why)
	}
	poke(in.wake)
	return nil, err
}

// canRepeat says whether a request may be sent twice.
func canRepeat(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return (r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0) && r.Header.Get("Upgrade") == ""
	}
	return false
}
