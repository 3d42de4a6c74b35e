// Package ingress answers HTTPS on an ingress node: it puts Caddy, the route table,
// the probes of backends and the certificates that all ingress nodes share together
// as one daemon, with a status socket, and metrics for the mesh. It reads one file,
// and needs no scheduler, no operator and no other node.
//
//	clients ──▶ Caddy ──▶ route ──▶ encode ──▶ site
//	              │         │                └▶ reverse_proxy ──▶ backends
//	              │         └── table ◀── what became of requests ──┘  ▲
//	              │               ▲                                    │
//	              │               └───────────── probes ───────────────┘
//	              └── certmagic ──▶ certstore ◀──mesh──▶ other ingress nodes
package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"golang.org/x/sync/errgroup"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/ingress/certstore"
	"github.com/moggyfleet/moggy/internal/ingress/table"
	"github.com/moggyfleet/moggy/internal/site"
)

// Options are what an ingress is told by whoever starts it.
type Options struct {
	ConfigPath  string // ingress.json
	SecretsPath string // what the node shares with each other ingress node
	SocketPath  string // of the status server; its directory must exist
	StateDir    string // where certificates are kept
	SitesDir    string // where the archives of Static services are
	// Ports to listen on, 80 and 443.
	HTTPPort, HTTPSPort int
	Version             string // moggy's
	Log                 *slog.Logger
	// Notify is called with systemd's READY message; nil for none.
	Notify func(state string)
}

// Ingress is one node's ingress.
type Ingress struct {
	opt    Options
	log    *slog.Logger
	store  *certstore.Store
	view   atomic.Pointer[view]
	wake   chan struct{} // probes: look again
	reload chan chan error
	rebind chan struct{} // the listener on the mesh: look again
	tls    atomic.Pointer[caddytls.TLS]
	idle   atomic.Pointer[[]func()] // ends idle connections to backends
	engine []byte                   // Caddy's configuration in force; of Run

	mu       sync.Mutex // of all below
	table    *table.Table
	lost     map[*table.Backend]*lost
	problems map[string]string // of certificates, by host
	problem  string            // of the last reload
}

// view is what a request needs that no request changes.
type view struct {
	config fleet.IngressConfig
	digest fleet.Digest
	self   fleet.IngressNode
	table  *table.Table // Route, Audience and Service only: the rest is under Ingress.mu
	sites  map[fleet.ServiceName]*site.Site
}

// New returns an ingress that does nothing yet.
func New(opt Options) *Ingress {
	return &Ingress{
		opt: opt, log: opt.Log,
		wake: make(chan struct{}, 1), reload: make(chan chan error), rebind: make(chan struct{}, 1),
		lost: make(map[*table.Backend]*lost), problems: make(map[string]string),
	}
}

// Run serves until ctx is done. It returns nil then, and an error if it cannot
// start.
func (in *Ingress) Run(ctx context.Context) error {
	dir := filepath.Join(in.opt.StateDir, "certificates")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	conf, digest, secrets, err := in.read()
	if err != nil {
		return err
	}
	if in.store, err = certstore.Open(dir, secrets.Self, in.log); err != nil {
		return err
	}
	in.apply(conf, digest, secrets)
	server, err := in.listen()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.run(ctx) })
	g.Go(func() error { return in.serveMesh(ctx) })
	// What the others have comes before asking for certificates anew.
	in.store.Sync(ctx)
	g.Go(func() error { return in.store.Run(ctx) })
	g.Go(func() error { return in.probe(ctx) })
	g.Go(func() error { return in.drive(ctx) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Reload reads the configuration again. An error means that the old one stays in
// force.
func (in *Ingress) Reload(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case in.reload <- done:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drive runs Caddy, and changes what it serves.
func (in *Ingress) drive(ctx context.Context) error {
	register(in)
	if err := in.load(false); err != nil {
		return err
	}
	defer func() {
		if err := caddy.Stop(); err != nil {
			in.log.Warn("not ended cleanly", fieldError, err)
		}
	}()
	in.log.Info("ingress up", fieldNode, in.view.Load().self.Name, fieldRoutes, len(in.view.Load().config.Routes))
	if in.opt.Notify != nil {
		in.opt.Notify("READY=1")
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case done := <-in.reload:
			done <- in.again()
		}
	}
}

// again puts what the files say now in force.
func (in *Ingress) again() error {
	before := in.view.Load().table.Hosts(fleet.Public)
	conf, digest, secrets, err := in.read()
	if err == nil {
		in.apply(conf, digest, secrets)
		hosts := in.view.Load().table.Hosts(fleet.Public)
		// Caddy goes on renewing certificates of hosts that are gone, until it is told
		// all anew.
		err = in.load(slices.ContainsFunc(before, func(h string) bool { return !slices.Contains(hosts, h) }))
	}
	in.mu.Lock()
	in.problem = ""
	if err != nil {
		in.problem = err.Error()
	}
	in.mu.Unlock()
	if err != nil {
		in.log.Error("reload: the old configuration stays in force", fieldError, err)
	}
	return err
}

// load gives Caddy its configuration where that changed, and the names that there
// shall be certificates for.
func (in *Ingress) load(force bool) error {
	v := in.view.Load()
	text, err := engine(v.config.ACME, in.opt.HTTPPort, in.opt.HTTPSPort)
	if err != nil {
		return err
	}
	if force || string(text) != string(in.engine) {
		if err := caddy.Load(text, true); err != nil {
			return err
		}
		in.engine = text
	}
	names := make(map[string]struct{})
	for _, h := range v.table.Hosts(fleet.Public) {
		names[h] = struct{}{}
	}
	in.mu.Lock()
	maps.DeleteFunc(in.problems, func(h string, _ string) bool { _, ok := names[h]; return !ok })
	in.mu.Unlock()
	return in.tls.Load().Manage(names)
}

// read reads the files, and changes nothing.
func (in *Ingress) read() (conf fleet.IngressConfig, digest fleet.Digest, secrets certstore.Secrets, err error) {
	if conf, digest, err = readConfig(in.opt.ConfigPath); err != nil {
		return conf, digest, secrets, err
	}
	text, err := os.ReadFile(in.opt.SecretsPath)
	if err != nil {
		return conf, digest, secrets, fmt.Errorf("what this node shares with other ingress nodes: %w", err)
	}
	secrets, err = certstore.ParseSecrets(text)
	return conf, digest, secrets, err
}

// apply puts conf in force, but for what is Caddy's.
func (in *Ingress) apply(conf fleet.IngressConfig, digest fleet.Digest, secrets certstore.Secrets) {
	next := &view{config: conf, digest: digest, sites: make(map[fleet.ServiceName]*site.Site)}
	var peers []certstore.Peer
	for _, n := range conf.Nodes {
		if n.Name == secrets.Self {
			next.self = n
			continue
		}
		peers = append(peers, certstore.Peer{Name: n.Name, Address: meshAddress(n, conf.Port), Secrets: secrets.Of(n.Name)})
	}
	in.store.SetPeers(peers)
	for _, s := range conf.Services {
		if s.Site == "" {
			continue
		}
		opened, err := site.Open(filepath.Join(in.opt.SitesDir, string(s.Name)+".zip"))
		if err != nil {
			in.log.Error("site not served", fieldService, s.Name, fieldError, err) // the others are
			continue
		}
		next.sites[s.Name] = opened
	}
	in.mu.Lock()
	in.table = table.New(conf, in.table, now())
	next.table = in.table
	in.mu.Unlock()
	// The sites of before are not closed: requests are being answered from them. The
	// collector closes their files.
	in.view.Store(next)
	poke(in.wake)
	poke(in.rebind)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// stranger says whether a handshake is to end without a word: for a host that is
// nobody's, or that is for the mesh alone.
func (in *Ingress) stranger(hello *tls.ClientHelloInfo) bool {
	v := in.view.Load()
	to, ok := v.table.Audience(hostOf(hello.ServerName))
	if !ok {
		return true
	}
	return to == fleet.Mesh && !v.onMesh(hello.Conn.RemoteAddr().String(), hello.Conn.LocalAddr().String())
}
