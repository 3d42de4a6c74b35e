package certs

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/engine/certs"
	"github.com/moggyfleet/moggy/internal/pki"
)

const (
	signPath = "/nomad"
	// maxBody bounds a public key, and an answer, in bytes.
	maxBody = 8 << 10
	// askTimeout is for one server; there are others.
	askTimeout = 5 * time.Second
	// maxAtOnce bounds the connections that a server answers at once.
	maxAtOnce = 64
)

// ownLeaf is of the node's own authority, by which the others know it.
func (d *Daemon) ownLeaf() (*tls.Certificate, error) {
	pair, err := d.own.Issue(rand.Reader, d.now(), pki.Leaf{Domains: []string{pki.NodeDomain(d.config.Fleet, d.self.Name)}})
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(pair, pair)
	return &cert, err
}

// who says which member the other side is, by the authority that is the member's
// alone.
func (d *Daemon) who(s tls.ConnectionState) (certs.Member, error) {
	if len(s.PeerCertificates) == 0 || len(s.PeerCertificates[0].DNSNames) == 0 {
		return certs.Member{}, errStranger
	}
	leaf := s.PeerCertificates[0]
	for _, m := range d.config.Members {
		if leaf.DNSNames[0] != pki.NodeDomain(d.config.Fleet, m.Name) {
			continue
		}
		roots := x509.NewCertPool()
		addRoot(roots, m.CA)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: d.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			return certs.Member{}, fmt.Errorf("%w: %w", errStranger, err)
		}
		return m, nil
	}
	return certs.Member{}, errStranger
}

var errStranger = errors.New("no member of the fleet")

// serve signs for others, at the node's mesh addresses.
func (d *Daemon) serve(ctx context.Context) error {
	own := fresh{make: d.ownLeaf, now: d.now}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.get() },
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := d.who(s)
			return err
		},
	}
	server := &http.Server{
		Handler: d.handler(), ReadTimeout: askTimeout, WriteTimeout: askTimeout, IdleTimeout: askTimeout,
		MaxHeaderBytes: maxBody, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	stopped := context.AfterFunc(ctx, func() { server.Close() })
	defer stopped()
	listener, err := d.listen(ctx)
	if err != nil {
		return err
	}
	err = server.Serve(tls.NewListener(listener, config))
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// fresh is a leaf that is made anew when it is due.
type fresh struct {
	make func() (*tls.Certificate, error)
	now  func() time.Time

	mu   sync.Mutex // guards what follows
	have *tls.Certificate
	due  time.Time
}

func (f *fresh) get() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); f.have == nil || now.After(f.due) {
		next, err := f.make()
		if err != nil {
			return nil, err
		}
		f.have, f.due = next, now.Add(pki.RenewAfter)
	}
	return f.have, nil
}

// listen waits until the mesh has given the node its address.
func (d *Daemon) listen(ctx context.Context) (net.Listener, error) {
	at := netip.AddrPortFrom(d.self.V4, d.port).String()
	for told := false; ; told = true {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
		if err == nil {
			return &limited{l, make(chan struct{}, maxAtOnce)}, nil
		}
		if !told {
			d.log.Info("not listening yet", "address", at, "error", err)
		}
		timer := time.NewTimer(d.firstPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// limited takes no more connections than it has room for; the kernel holds the
// others.
type limited struct {
	net.Listener
	room chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	l.room <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &limitedConn{Conn: c, room: l.room}, nil
}

type limitedConn struct {
	net.Conn
	room chan struct{}
	once sync.Once
}

// Close gives the room back, once.
func (c *limitedConn) Close() error {
	c.once.Do(func() { <-c.room })
	return c.Conn.Close()
}

func (d *Daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+signPath, func(w http.ResponseWriter, r *http.Request) {
		member, err := d.who(*r.TLS)
		if err != nil {
			http.Error(w, "who are you?", http.StatusForbidden)
			return
		}
		public, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "too much", http.StatusBadRequest)
			return
		}
		key, err := x509.ParsePKIXPublicKey(public)
		if err != nil {
			http.Error(w, "no public key", http.StatusBadRequest)
			return
		}
		member.Server = false // another server signs for itself
		cert, err := d.own.Sign(rand.Reader, d.now(), key, d.nomadLeaf(member))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		d.log.Info("certificate signed", "node", member.Name)
		w.Write(pki.CertPEM(cert)) //nolint:errcheck // whoever asked is away, and asks again
	})
	return mux
}

// ask has a server sign the public half of a key.
func (d *Daemon) ask(ctx context.Context, m certs.Member, public []byte) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, askTimeout)
	defer stop()
	own, err := d.ownLeaf()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*own},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it: against this member's authority alone
		VerifyConnection: func(s tls.ConnectionState) error {
			got, err := d.who(s)
			if err == nil && got.Name != m.Name {
				err = fmt.Errorf("%s answers, not %s", got.Name, m.Name)
			}
			return err
		},
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	url := "https://" + netip.AddrPortFrom(m.V4, d.port).String() + signPath
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(public))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	block, _ := pem.Decode(body)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("its answer is no certificate")
	}
	return block.Bytes, nil
}
