package path

import (
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// View is how the engine sees one peer.
type View struct {
	Peer   wire.ID
	Awake  bool
	Route  Route // the primary
	Since  time.Time
	Routes []RouteView
}

// RouteView is how it sees one route.
type RouteView struct {
	Route    Route
	LastEcho time.Time     // zero: never
	RTT      time.Duration // the best of the last; 0: not measured
	Loss     float64       // 0 to 1, of the last probes
	Misses   int           // in a row
	Held     time.Time     // not to be returned to before; zero or past: free
}

// View returns the state of one peer.
func (e *Engine) View(id wire.ID) (View, bool) {
	p := e.peers[id]
	if p == nil {
		return View{}, false
	}
	v := View{Peer: id, Awake: p.awake, Route: p.primary, Since: p.since}
	for _, t := range p.tracks {
		v.Routes = append(v.Routes, RouteView{t.route, t.lastEcho, t.best(), t.loss(), t.misses, t.heldUntil})
	}
	return v, true
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
