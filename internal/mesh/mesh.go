// Package mesh is a node's agent: it brings the mesh up from one file on disk,
// keeps every peer reachable, relays for others where the node is a hub, and
// says how things stand on a unix socket. It needs no name server, no operator
// and no other node.
//
// It only puts together: wire has the formats, path the decisions, relay the
// forwarding, link the sockets and WireGuard.
package mesh

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/link"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/relay"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Options are what an agent is told by whoever starts it.
type Options struct {
	ConfigPath string // mesh.json
	KeyPath    string // the private key, base64
	// GatewayKeyPath is that of the gateway to devices; "" where there is none.
	GatewayKeyPath string
	SocketPath     string // of the status server; its directory must exist
	StateDir       string // what must outlive a restart; "" on nodes that are no hubs
	Interface      string // name of the TUN interface
	Version        string // moggy's
	// NoOffload gives the kernel, and takes from it, each packet by itself.
	NoOffload bool
	Log       *slog.Logger
	// Notify is called with systemd's READY and WATCHDOG messages; nil for none.
	Notify func(state string)
	// Watchdog is how often Notify wants WATCHDOG; 0 for never.
	Watchdog time.Duration
}

// Agent is one node's agent.
type Agent struct {
	opt     Options
	log     *slog.Logger
	ownKeys // changed by drive, under mu

	bind  *link.Bind
	dev   *link.Device
	relay *relay.Forwarder

	gateway *link.Gateway // nil but on hubs that serve devices
	serves  fleet.Gateway // which one that shall be; zero for none

	invites *invitations

	wake    chan struct{} // something changed: look again
	changed atomic.Bool   // somebody joined
	reload  chan chan error
	clocks  func() clocks
	rekeyAt time.Time // of drive: when what we send is to be that of our new key

	mu       sync.Mutex        // of all below
	file     fleet.AgentConfig // mesh.json
	digest   fleet.Digest      // of mesh.json
	conf     fleet.AgentConfig // what is in force: file, and who joined since
	engine   *path.Engine
	given    []wire.PrivateKey // by Take
	ring     *wire.Keyring
	former   *wire.Keyring              // of our other key, while it is rotated; else nil
	nodes    map[wire.ID]fleet.MeshNode // without ourselves; Key is that of the ID
	devices  map[wire.ID]*served
	serving  []path.Serving             // told by hubs, and not looked at yet
	speaks   map[fleet.NodeName]wire.ID // of nodes with two keys: the one it uses
	heed     map[wire.ID]time.Time      // silent ones that were heard: when to shake hands
	turns    map[wire.ID]time.Time      // silent ones that shook hands: when they are the node
	restarts []wire.ID                  // to be done when mu is free
	greet    map[wire.ID]greeting       // handshakes to look after
	logged   map[wire.ID]path.Route     // the path last written to the log
	seen     map[wire.ID]*looked        // of traffic

	lookMu sync.Mutex // of these; never held together with mu
	look   map[wire.ID]bool
	heard  map[netip.Addr]bool    // sources of what devices sent
	here   map[netip.Addr]telling // those that are served here: when to tell so again
}

// New returns an agent that does nothing yet.
func New(opt Options) *Agent {
	return &Agent{
		opt:    opt,
		log:    opt.Log,
		wake:   make(chan struct{}, 1),
		reload: make(chan chan error),
		clocks: readClocks,
		nodes:  make(map[wire.ID]fleet.MeshNode),
		speaks: make(map[fleet.NodeName]wire.ID),
		heed:   make(map[wire.ID]time.Time),
		turns:  make(map[wire.ID]time.Time),
		logged: make(map[wire.ID]path.Route),
		greet:  make(map[wire.ID]greeting),
		seen:   make(map[wire.ID]*looked),
		look:   make(map[wire.ID]bool),
		heard:  make(map[netip.Addr]bool),
		here:   make(map[netip.Addr]telling),
	}
}

// Run keeps the node on the mesh until ctx is done. It returns nil then, and an
// error if it cannot start or the interface is taken away.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.load(); err != nil {
		return err
	}
	if err := a.start(); err != nil {
		return err
	}
	defer a.stop()
	server, err := a.listen()
	if err != nil {
		return err
	}
	self, _ := a.split(a.conf)
	a.log.Info("mesh up", fieldNode, self.Name, fieldPeers, len(a.nodes), fieldPort, a.conf.Port)
	if a.opt.Notify != nil {
		a.opt.Notify("READY=1")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.drive(ctx) })
	g.Go(func() error { return a.watchAddresses(ctx) })
	g.Go(func() error { return server.run(ctx) })
	g.Go(func() error { return a.serveMetrics(ctx) })
	g.Go(func() error {
		select {
		case <-a.dev.Done():
			return fmt.Errorf("interface %s was taken away", a.opt.Interface)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Reload reads the configuration again. Sessions with peers that do not change
// go on. An error means that the old configuration stays in force.
func (a *Agent) Reload(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case a.reload <- done:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// load reads key and configuration.
func (a *Agent) load() error {
	keys, err := readKeys(a.opt.KeyPath)
	if err != nil {
		return err
	}
	conf, digest, err := readConfig(a.opt.ConfigPath)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	own, err := pick(conf, append(keys, a.given...))
	if err != nil {
		return fmt.Errorf("%s: %w", a.opt.ConfigPath, err)
	}
	a.ownKeys, a.file, a.digest = own, conf, digest
	return nil
}

// start brings the interface up with all peers.
func (a *Agent) start() error {
	conf := a.file
	var err error
	if a.invites, err = openInvitations(a.opt.StateDir, a.key); err != nil {
		return err
	}
	a.engine = path.New(path.Config{
		Self:    wire.IDOf(a.key.Public()),
		Random:  random64,
		Traffic: a.trafficLocked,
		PadTo:   uint16(min(conf.MTU+32, wire.MaxProbeSize)),
	})
	a.ring = wire.NewKeyring(a.key)
	a.relay = relay.New(a.engine.Epoch())
	a.bind = link.NewBind(link.BindConfig{Control: a, Relay: a.relay, Epoch: a.engine.Epoch(), Port: conf.Port, NoOffload: a.opt.NoOffload})
	tun, err := link.OpenTUN(a.opt.Interface, conf.MTU)
	if err != nil {
		return err
	}
	if a.dev, err = link.NewDevice(tun, a.bind, a.key, a.log); err != nil {
		return err
	}
	if err := a.dev.ServeUAPI(); err != nil {
		a.log.Warn("wg(8) cannot ask", fieldError, err) // the mesh works without
	}
	if err := a.apply(); err != nil {
		return errors.Join(err, a.dev.Close())
	}
	return nil
}

// apply puts the file in force, and who joined since it was written; in the
// order in which each needs the other: keys, virtual endpoints, WireGuard's
// peers, then paths to them.
func (a *Agent) apply() error {
	conf, err := a.invites.settle(a.file, a.digest)
	if err != nil {
		a.log.Warn("invitations not tidied up", fieldError, err)
	}
	self, peers := a.split(conf)
	iface := link.Interface{
		Name: a.opt.Interface, MTU: conf.MTU,
		Addrs:  []netip.Addr{self.V4, self.V6},
		Routes: []netip.Prefix{conf.V4, conf.V6},
	}
	if err := iface.Apply(); errors.Is(err, link.ErrNoIPv6) {
		a.log.Warn("the mesh is IPv4 only here", fieldError, err)
	} else if err != nil {
		return err
	}
	if err := a.applyGateway(conf, self.Hub); err != nil {
		a.log.Warn("devices are not served", fieldError, err) // the mesh works without
	}
	r := a.roster(peers)
	for _, k := range r.bad {
		a.log.Warn("peer left out: unusable key", fieldKey, k)
	}
	a.bind.SetPeers(r.ring, r.ids)
	a.bind.SetFormer(r.former)
	a.bind.SetSilent(r.silent)
	if err := a.dev.SetMembers(r.members); err != nil {
		return err
	}
	if self.Hub {
		a.relay.SetMembers(r.pairs)
	} else {
		a.relay.SetMembers(nil)
	}
	if !a.two {
		a.relay.Settle()
	}
	for id := range r.silent {
		a.relay.Share(r.speaks[r.nodes[id].Name], id)
	}
	a.mu.Lock()
	a.conf, a.ring, a.former, a.nodes, a.speaks = conf, r.ring, r.former, r.nodes, r.speaks
	if id := wire.IDOf(a.key.Public()); id != a.engine.Self() {
		a.engine.Rename(time.Now(), id)
	}
	a.engine.SetPeers(time.Now(), path.NewDirectory(r.candidates))
	a.carryOutLocked(time.Now())
	a.mu.Unlock()
	a.poke()
	return nil
}

// stop takes the mesh down. Those who rely on this node are told first, and get
// the time of a few round trips to turn elsewhere.
func (a *Agent) stop() {
	a.mu.Lock()
	self, _ := a.split(a.conf)
	if self.Hub {
		a.engine.Drain(time.Now())
		a.carryOutLocked(time.Now())
	}
	a.mu.Unlock()
	if self.Hub {
		<-time.After(drainFor)
	}
	if a.gateway != nil {
		a.gateway.Close()
	}
	if err := a.dev.Close(); err != nil {
		a.log.Warn("interface not closed cleanly", fieldError, err)
	}
}

// drainFor is how long a hub that stops goes on relaying: nodes switch on its
// notice, which takes one way, and what is under way still arrives.
const drainFor = 300 * time.Millisecond

// split finds this node among all, by its key.
func (a *Agent) split(conf fleet.AgentConfig) (self fleet.MeshNode, peers []fleet.MeshNode) {
	own := a.key.Public()
	for _, n := range conf.Nodes {
		if n.Key == own {
			self = n
		} else {
			peers = append(peers, n)
		}
	}
	return self, peers
}

func random64() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return binary.BigEndian.Uint64(b[:])
}
