package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/mirror"
	"github.com/moggyfleet/moggy/internal/lab/names"
	"github.com/moggyfleet/moggy/internal/lab/registry"
	"github.com/moggyfleet/moggy/internal/lab/topology"
	"github.com/moggyfleet/moggy/internal/lab/trust"
)

// internet is what the lab's internet serves, but for the certificate authority
// behind its front: packages, names, images. It also holds packets back where a
// line is to be slow.
type internet struct {
	run []func(context.Context) error
	all []io.Closer // listeners
}

// listen opens the internet's ports. The caller must be in its network
// namespace.
func (s *session) listen() (_ *internet, err error) {
	i := &internet{}
	defer func() {
		if err != nil {
			i.close()
		}
	}()
	authority, err := s.authority()
	if err != nil {
		return nil, err
	}
	now := &live{lab: s.Lab}
	if _, err := now.read(); err != nil {
		return nil, err
	}
	dns, err := names.Listen(now.names, present(s.net.Servers[topology.DNS])...)
	if err != nil {
		return nil, err
	}
	i.run = append(i.run, dns.Run, now.holdBack)
	secured := &tls.Config{GetCertificate: authority.Certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	for _, front := range []struct {
		server  topology.Server
		port    uint16
		tls     *tls.Config
		handler http.Handler
	}{
		{topology.Packages, 80, nil, mirror.Handler(s.state.Packages)},
		{topology.Registry, 443, secured, registry.New(s.engine("images"), s.engine("traefik"))},
		{topology.ACME, 443, secured, s.acmeFront(authority)},
	} {
		for _, a := range present(s.net.Servers[front.server]) {
			var l net.Listener
			if l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, front.port))); err != nil {
				return nil, err
			}
			if front.tls != nil {
				l = tls.NewListener(l, front.tls)
			}
			i.all = append(i.all, l)
			i.run = append(i.run, func(ctx context.Context) error { return serveHTTP(ctx, l, front.handler) })
		}
	}
	return i, nil
}

// present are a host's addresses that the kernel has: one without IPv6 has none
// of those.
func present(h topology.Host) []netip.Addr {
	out := []netip.Addr{h.V4}
	l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.V6, 0)))
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		return out
	}
	if err == nil {
		l.Close()
	}
	return append(out, h.V6)
}

func (i *internet) close() {
	for _, c := range i.all {
		c.Close()
	}
}

// serve serves until ctx ends, or one of the servers does.
func (i *internet) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range i.run {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		// What clients do wrong with TLS is theirs to say.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// acmeName is where Let's Encrypt answers.
const acmeName = "acme-v02.api.letsencrypt.org"

// acmeFront is what clients know as Let's Encrypt, with Pebble behind.
func (s *session) acmeFront(authority *trust.Authority) http.Handler {
	behind := &url.URL{Scheme: "https", Host: pebbleAddress}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(behind)
			r.Out.Host = r.In.Host // the URLs it answers with are made of it
			if r.In.URL.Path == "/directory" {
				r.Out.URL.Path = "/dir"
			}
		},
		Transport: &http.Transport{
			DialContext:     dialer(s.full(topology.Mirror)),
			TLSClientConfig: &tls.Config{RootCAs: authority.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13},
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// live is a lab as it is now: read anew when it has changed.
type live struct {
	lab *Lab

	mu   sync.Mutex
	seen os.FileInfo
	last *session
	zone names.Zone
}

// names are what leads where now. While that cannot be read, it is as before.
func (l *live) names() names.Zone {
	_, _ = l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.zone
}

// read returns the lab, which is not to be changed.
func (l *live) read() (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	st, err := os.Stat(l.lab.run("state.json"))
	if err != nil {
		return nil, err
	}
	if l.seen != nil && os.SameFile(st, l.seen) && st.ModTime().Equal(l.seen.ModTime()) {
		return l.last, nil
	}
	s := &session{Lab: l.lab}
	if err := s.load(); err != nil {
		return nil, err
	}
	l.seen, l.last, l.zone = st, s, zoneOf(s.state.Fleet, s.net)
	return s, nil
}

// zoneOf is what the names of a lab's internet lead to: the servers there, and
// what the fleet needs of the public DNS. The fleet's own word counts most.
func zoneOf(f *fleet.Fleet, net *topology.Network) names.Zone {
	z := names.Zone{}
	at := func(name string, s topology.Server) {
		h := net.Servers[s]
		z[name] = []netip.Addr{h.V4, h.V6}
	}
	at(mirror.Host, topology.Packages)
	at(acmeName, topology.ACME)
	hosts := registry.Public()
	for _, s := range f.Services {
		if s.Image != "" {
			hosts = append(hosts, registry.Host(s.Image))
		}
	}
	for _, h := range hosts {
		for _, name := range registry.Names(h) {
			at(name, topology.Registry)
		}
	}
	for _, n := range f.Nodes {
		if _, err := netip.ParseAddr(n.SSH.Host); err != nil && n.SSH.Host != "" && len(n.Public) > 0 {
			z[n.SSH.Host] = n.Public
		}
	}
	for _, r := range f.Records() {
		z[r.Name] = r.Addrs
	}
	return z
}

// engine is where an engine for this box is, if it was built.
func (s *session) engine(name string) string {
	return filepath.Join(s.state.Engines, name+"-"+goarch())
}
