package path

import (
	"net/netip"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// View is how the engine sees one peer.
type View struct {
	Peer   wire.ID
	Awake  bool
	Route  Route // the primary
	Since  time.Time
	Why    string // Route came into use
	Spare  Route
	Routes []RouteView
	// For want of a direct route: when both sides were last asked to open their
	// NATs, zero for never, and, if Explain was asked, what is known of these.
	Punched time.Time
	Own     Family
	Its     Family
}

// Family is what is known of how a node is connected.
type Family struct {
	Known  bool // it told; else the rest means nothing
	V4, V6 bool // it has addresses of that family
	NAT    bool // hubs see it at an IPv4 address that is not its own
	Varies bool // and at another port each
}

// familyOf looks at the endpoints that a node names: as hubs see it, and its own.
func familyOf(endpoints []netip.AddrPort) (f Family) {
	outside := make(map[netip.Addr]uint16) // as seen: the ports of one address differ only behind a NAT
	own := false
	for _, a := range endpoints {
		ip := a.Addr()
		f.Known = true
		switch {
		case ip.Is6():
			f.V6 = f.V6 || !ip.IsPrivate()
			continue
		case ip.IsPrivate() || carrierNAT(ip):
			f.NAT = true
		default:
			own = true
			if port, seen := outside[ip]; seen && port != a.Port() {
				f.Varies = true
			}
			outside[ip] = a.Port()
		}
		f.V4 = true
	}
	f.NAT = f.NAT && own || f.Varies
	return f
}

// carrierNAT says whether a carrier's NAT gave ip to a customer (RFC 6598).
func carrierNAT(ip netip.Addr) bool {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10).Contains(ip)
}

// RouteView is how it sees one route.
type RouteView struct {
	Route    Route
	LastEcho time.Time     // zero: never
	RTT      time.Duration // the best of the last; 0: not measured
	Loss     float64       // 0 to 1, of the last probes
	Misses   int           // in a row
	Narrow   bool          // full packets do not pass
	Held     time.Time     // not to be returned to before; zero or past: free
}

// View returns the state of one peer.
func (e *Engine) View(now time.Time, id wire.ID) (View, bool) {
	p := e.peers[id]
	if p == nil || p.primary.IsZero() {
		if p = e.guess(now, id); p == nil {
			return View{}, false
		}
	}
	v := View{
		Peer: id, Awake: p.awake, Route: p.primary, Since: p.since, Why: p.why, Spare: p.spare,
		Punched: p.punched,
	}
	for _, t := range p.tracks {
		v.Routes = append(v.Routes, RouteView{t.route, t.lastEcho, t.best(), t.loss(), t.misses, t.narrow(), t.heldUntil})
	}
	return v, true
}

// Explain is View with what is known of how the two nodes are connected.
func (e *Engine) Explain(now time.Time, id wire.ID) (View, bool) {
	v, ok := e.View(now, id)
	if ok {
		v.Own, v.Its = familyOf(e.Endpoints(now)), familyOf(e.dir.peers[id].Public)
		if p := e.peers[id]; p != nil {
			v.Its = familyOf(append(slices.Clone(p.named), p.Public...))
		}
	}
	return v, ok
}

// Proven says whether the route in use for a peer answered since then.
func (e *Engine) Proven(id wire.ID, since time.Time) bool {
	p := e.peers[id]
	if p == nil {
		return false
	}
	t := p.track(p.primary)
	return t != nil && !t.lastEcho.Before(since)
}

// guess is what would be known of a peer if there was traffic with it now; nil if
// there is no such peer.
func (e *Engine) guess(now time.Time, id wire.ID) *peer {
	conf, ok := e.dir.peers[id]
	if !ok || id == e.cfg.Self {
		return nil
	}
	p := &peer{Peer: conf, slot: -1}
	if known := e.peers[id]; known != nil {
		*p = *known
		p.tracks, p.awake = slices.Clone(known.tracks), false // nothing comes of this
	}
	e.setTracks(now, p)
	if t := e.best(now, p, nil); t != nil {
		p.primary, p.why = t.route, "first choice"
	}
	return p
}

// Current is the route in use, as it stands.
func (v View) Current() RouteView {
	for _, r := range v.Routes {
		if r.Route == v.Route {
			return r
		}
	}
	return RouteView{}
}

// Reachable says whether there is a route in use that is not known to be dead.
func (v View) Reachable() bool {
	return !v.Route.IsZero() && v.Current().Misses < missesDead
}
