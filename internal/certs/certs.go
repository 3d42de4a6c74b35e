// Package certs keeps a node's certificates fresh: it signs its own where it may,
// and has a server sign the others, over the mesh. What an authority is, and who
// is bound to what, is package pki's.
//
//	a node that is no server                         a server
//	  key made here ──▶ public half ── TLS 1.3 ──▶ who asks? by the authority of its
//	  nomad.pem ◀───── certificate ◀── port 4645 ── own: name, addresses from certs.json
//
// Both sides show a leaf of their own authority. Nothing in a request says who it
// is for: a node gets a certificate for itself, or none.
package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/moggyfleet/moggy/internal/engine/certs"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/pki"
)

// Daemon is one node's.
type Daemon struct {
	config certs.Config
	self   certs.Member
	own    *pki.Authority
	dir    string
	now    func() time.Time
	log    *slog.Logger
	// firstPause is how long to wait after a failure; it doubles up to lastPause.
	firstPause, lastPause time.Duration
	port                  uint16
	// fetch asks a server; in tests something else.
	signs func(ctx context.Context, m certs.Member, public []byte) ([]byte, error)
}

// Options are what a Daemon is made from.
type Options struct {
	Config    certs.Config
	Authority []byte // certificate and key, PEM
	Dir       string // where certificates are kept, its user's alone
	Now       func() time.Time
	Log       *slog.Logger
}

// New returns the daemon; it starts nothing.
func New(o Options) (*Daemon, error) {
	own, err := pki.ParseAuthority(o.Authority)
	if err != nil {
		return nil, err
	}
	d := &Daemon{config: o.Config, own: own, dir: o.Dir, now: o.Now, log: o.Log, firstPause: time.Second, lastPause: time.Minute, port: certs.Port}
	var ok bool
	if d.self, ok = o.Config.Self(own.Cert.Raw); !ok {
		return nil, hint.New("this node's authority is in no list of the fleet's", "moggy apply")
	}
	d.signs = d.ask
	return d, nil
}

// Run keeps the node's certificates fresh, and signs for others where the node is
// a server, until ctx ends.
func (d *Daemon) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if d.self.Server {
		g.Go(func() error { return d.serve(ctx) })
	}
	g.Go(func() error { return d.keep(ctx) })
	return g.Wait()
}

// keep renews at the right time, and again soon where that did not work.
func (d *Daemon) keep(ctx context.Context) error {
	pause := d.firstPause
	for {
		wait, err := d.renew(ctx)
		if err != nil {
			d.log.Warn("no certificate yet", "error", err, "again_in", pause)
			wait, pause = pause, min(2*pause, d.lastPause)
		} else {
			pause = d.firstPause
		}
		timer := time.NewTimer(min(wait, 10*time.Minute)) // a clock that is set must not make it sleep for a day
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// renew gets the next certificate if it is time, and says how long to wait.
func (d *Daemon) renew(ctx context.Context) (time.Duration, error) {
	path := filepath.Join(d.dir, filepath.Base(certs.NomadPair))
	if leaf, err := d.kept(path); err == nil {
		return leaf.NotBefore.Add(time.Hour+pki.RenewAfter).Sub(d.now()) + time.Second, nil
	}
	pair, err := d.next(ctx)
	if err != nil {
		return 0, err
	}
	if err := renameio.WriteFile(path, pair, 0o600); err != nil {
		return 0, err
	}
	leaf, err := d.kept(path)
	if err != nil {
		return 0, err
	}
	d.log.Info("certificate renewed", "name", leaf.Subject.CommonName, "until", leaf.NotAfter)
	return pki.RenewAfter, nil
}

// kept is the certificate that is there, if it is good, and for a while yet.
func (d *Daemon) kept(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	leaf, _, err := pki.ParsePair(text)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, m := range d.config.Members {
		if m.Server {
			addRoot(roots, m.CA)
		}
	}
	want := d.nomadLeaf(d.self)
	switch _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: d.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); {
	case err != nil:
		return nil, err
	case pki.NeedsRenewal(leaf, d.now()):
		return nil, errOld
	case leaf.Subject.CommonName != want.Domains[0] || len(leaf.IPAddresses) != len(want.Addresses):
		return nil, errOther
	}
	for i, ip := range leaf.IPAddresses {
		if got, _ := netip.AddrFromSlice(ip); got.Unmap() != want.Addresses[i] {
			return nil, errOther
		}
	}
	return leaf, nil
}

var (
	errOld   = errors.New("the certificate is due for renewal")
	errOther = errors.New("the certificate is for another name")
)

func addRoot(pool *x509.CertPool, der []byte) {
	if cert, err := x509.ParseCertificate(der); err == nil {
		pool.AddCert(cert)
	}
}

// nomadLeaf is what a member's Nomad agent is known by.
func (d *Daemon) nomadLeaf(m certs.Member) pki.Leaf {
	l := pki.Leaf{
		Domains:   []string{pki.NomadClient, pki.NodeDomain(d.config.Fleet, m.Name)},
		Addresses: []netip.Addr{m.V4, m.V6},
	}
	if m.Server {
		l.Domains = append([]string{pki.NomadServer}, l.Domains...)
	}
	return l
}

// next makes a key, and has a certificate made for it.
func (d *Daemon) next(ctx context.Context) ([]byte, error) {
	if d.self.Server {
		return d.own.Issue(rand.Reader, d.now(), d.nomadLeaf(d.self))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, m := range d.servers() {
		cert, err := d.signs(ctx, m, public)
		if err == nil {
			return pki.Pair(cert, key)
		}
		failed = append(failed, fmt.Errorf("%s: %w", m.Name, err))
	}
	if len(failed) == 0 {
		return nil, errors.New("there is no server that could sign")
	}
	return nil, errors.Join(failed...)
}

// servers are those that sign, in an order of chance: the first does not do it
// all.
func (d *Daemon) servers() []certs.Member {
	var out []certs.Member
	for _, m := range d.config.Members {
		if m.Server {
			out = append(out, m)
		}
	}
	for i := len(out) - 1; i > 0; i-- {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(i+1)))
		if err != nil {
			break // in the order of names, then
		}
		j := int(n.Int64())
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// Wait returns once there is a certificate at path that is good by now.
func Wait(ctx context.Context, path string, now func() time.Time) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(path)
		if err == nil {
			leaf, _, perr := pki.ParsePair(text)
			if perr == nil && now().Before(leaf.NotAfter) {
				return nil
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
