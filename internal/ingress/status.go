package ingress

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/ingress/certstore"
)

// certificateEvents remembers what is wrong with certificates.
type certificateEvents struct{ in *Ingress }

// Handle takes one of certmagic's events.
func (c certificateEvents) Handle(_ context.Context, e caddy.Event) error {
	host, _ := e.Data["identifier"].(string)
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if e.Name() == "cert_obtained" {
		delete(c.in.problems, host)
		return nil
	}
	if err, ok := e.Data["error"].(error); ok {
		c.in.problems[host] = err.Error()
	}
	return nil
}

// Status is how things stand.
func (in *Ingress) Status() fleet.IngressStatus {
	v := in.view.Load()
	s := fleet.IngressStatus{
		Version: 1, Self: v.self.Name, Ingress: in.opt.Version, Config: v.digest,
		Certificates: []fleet.Certificate{}, Peers: in.store.Peers(),
	}
	in.mu.Lock()
	s.Routes, s.Services = in.table.Status(v.config)
	s.Problem = in.problem
	for _, host := range v.table.Hosts(fleet.Public) {
		s.Certificates = append(s.Certificates, fleet.Certificate{Host: host, Problem: in.problems[host]})
	}
	in.mu.Unlock()
	in.stored(s.Certificates)
	return s
}

// stored fills in what the store has for each host.
func (in *Ingress) stored(certs []fleet.Certificate) {
	keys, err := in.store.List(context.Background(), "certificates", true)
	if err != nil {
		return
	}
	for _, key := range keys {
		host, ok := strings.CutSuffix(path.Base(key), ".crt")
		i, listed := slices.BinarySearchFunc(certs, host, func(c fleet.Certificate, h string) int { return cmp.Compare(c.Host, h) })
		if !ok || !listed {
			continue
		}
		text, err := in.store.Load(context.Background(), key)
		if err != nil {
			continue
		}
		block, _ := pem.Decode(text)
		if block == nil {
			continue
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err == nil && leaf.NotAfter.After(certs[i].NotAfter) {
			certs[i].Issuer, certs[i].NotAfter = cmp.Or(leaf.Issuer.CommonName, leaf.Issuer.String()), leaf.NotAfter
		}
	}
}

// server is the ingress' HTTP on a unix socket.
type server struct {
	http *http.Server
	l    net.Listener
}

// listen opens the socket for root alone. A socket left behind by an ingress that
// was killed is replaced.
func (in *Ingress) listen() (*server, error) {
	socket := in.opt.SocketPath
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("status socket: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", in.getStatus)
	return &server{&http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second}, l}, nil
}

func (s *server) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("status socket: %w", err)
	}
	return ctx.Err()
}

func (in *Ingress) getStatus(w http.ResponseWriter, _ *http.Request) {
	b, err := json.MarshalIndent(in.Status(), "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // an error means that nobody listens any more
}

// meshAddress is where an ingress node answers the others.
func meshAddress(n fleet.IngressNode, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(n.V4, port)
}

// serveMesh answers the other ingress nodes, and GET /metrics, on this node's mesh
// address alone. It tries until it can: the mesh may come up later, and what is
// public is served without it.
func (in *Ingress) serveMesh(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("POST "+certstore.Path, in.store)
	mux.HandleFunc("GET /metrics", in.getMetrics)
	for ctx.Err() == nil {
		v := in.view.Load()
		at := meshAddress(v.self, v.config.Port)
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at.String())
		if err == nil {
			err = in.serveAt(ctx, mux, l, at)
		}
		in.log.Debug("not on the mesh", fieldAddress, at, fieldError, err)
		select {
		case <-ctx.Done():
		case <-in.rebind:
		case <-time.After(time.Second):
		}
	}
	return ctx.Err()
}

// serveAt serves until ctx is done or the address is ours no more.
func (in *Ingress) serveAt(ctx context.Context, h http.Handler, l net.Listener, at netip.AddrPort) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		ErrorLog: nil, MaxHeaderBytes: 8 << 10,
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	in.store.Wake() // the others may be there too by now
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			s.Close()
			return <-done
		case <-in.rebind:
			if v := in.view.Load(); meshAddress(v.self, v.config.Port) != at {
				s.Close()
				return <-done
			}
		}
	}
}

func (in *Ingress) getMetrics(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	writeMetrics(&b, in.Status())
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // an error means that nobody listens any more
}

// writeMetrics writes Prometheus' text format, version 0.0.4. Names and hosts need
// no escaping: they are DNS labels.
func writeMetrics(w io.Writer, s fleet.IngressStatus) {
	family := func(name, kind, help string) { fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	backends := func(name, kind, help string, value func(fleet.BackendStatus) float64) {
		family(name, kind, help)
		for _, service := range s.Services {
			for _, b := range service.Backends {
				fmt.Fprintf(w, "%s{service=%q,node=%q} %s\n", name, service.Name, b.Node, strconv.FormatFloat(value(b), 'g', -1, 64))
			}
		}
	}
	backends("moggy_ingress_backend_up", "gauge", "1 for a backend that gets requests.", func(b fleet.BackendStatus) float64 {
		if b.State == fleet.BackendUp {
			return 1
		}
		return 0
	})
	backends("moggy_ingress_backend_active", "gauge", "Requests under way.", func(b fleet.BackendStatus) float64 { return float64(b.Active) })
	backends("moggy_ingress_backend_requests_total", "counter", "Requests, each try of one by itself.", func(b fleet.BackendStatus) float64 { return float64(b.Requests) })
	backends("moggy_ingress_backend_failed_total", "counter", "Tries that got no answer.", func(b fleet.BackendStatus) float64 { return float64(b.Failed) })
	family("moggy_ingress_certificate_expiry_seconds", "gauge", "When the certificate ends, in Unix seconds; 0 where there is none yet.")
	for _, c := range s.Certificates {
		var end int64
		if !c.NotAfter.IsZero() {
			end = c.NotAfter.Unix()
		}
		fmt.Fprintf(w, "moggy_ingress_certificate_expiry_seconds{host=%q} %d\n", c.Host, end)
	}
}

func portString(p int) string { return strconv.Itoa(p) }

// Ask asks the ingress that listens at the socket how things stand.
func Ask(ctx context.Context, socket string) (fleet.IngressStatus, error) {
	var s fleet.IngressStatus
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	c := http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: 10 * time.Second}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://ingress/status", nil)
	if err != nil {
		return s, err
	}
	res, err := c.Do(req)
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return s, fmt.Errorf("ingress: %s", res.Status)
	}
	return s, json.NewDecoder(res.Body).Decode(&s)
}
