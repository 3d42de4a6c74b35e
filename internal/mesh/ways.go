package mesh

import (
	"cmp"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// ways are all ways to one peer: of each family the best address, or why there
// is none, then the hubs.
func (a *Agent) ways(now time.Time, peer fleet.NodeName) []fleet.Way {
	a.mu.Lock()
	defer a.mu.Unlock()
	self, _ := a.split(a.conf)
	for id, n := range a.nodes {
		if n.Name != peer || a.silentLocked(id) {
			continue
		}
		v, _ := a.engine.Explain(now, id)
		out := waysOf(now, v, self.Name, peer, func(hub wire.ID) fleet.NodeName { return a.nodes[hub].Name })
		for hub, h := range a.nodes {
			if i := slices.IndexFunc(out, func(w fleet.Way) bool { return w.Via == h.Name }); i >= 0 {
				out[i].RxBytes, out[i].TxBytes = a.bind.RelayedBy(id, hub)
			}
		}
		return out
	}
	return nil
}

func waysOf(now time.Time, v path.View, self, peer fleet.NodeName, name func(wire.ID) fleet.NodeName) []fleet.Way {
	best := make(map[fleet.PathKind]fleet.Way)
	var relayed []fleet.Way
	for _, r := range v.Routes {
		w := fleet.Way{
			Path: r.Route.Kind(), Via: name(r.Route.Hub), Endpoint: r.Route.Addr, State: stateOf(v, r),
			RTTMicro: r.RTT.Microseconds(), HeardMs: heardMs(now, r), Loss: r.Loss,
			HeldSec: max(int64(r.Held.Sub(now).Seconds()), 0),
		}
		if !r.Route.Direct() {
			relayed = append(relayed, w)
		} else if had, ok := best[w.Path]; !ok || better(w, had) < 0 {
			best[w.Path] = w
		}
	}
	slices.SortFunc(relayed, better)
	var out []fleet.Way
	for _, kind := range []fleet.PathKind{fleet.PathDirectV6, fleet.PathDirectV4} {
		w, ok := best[kind]
		if !ok {
			w = fleet.Way{Path: kind, State: fleet.WayNone}
		}
		if w.State == fleet.WayNone || w.State == fleet.WayLost || w.State == fleet.WayUntold {
			w.Why = whyNot(kind, v, self, peer)
			if !v.Punched.IsZero() {
				w.Tried = v.Punched.Unix()
			}
		}
		out = append(out, w)
	}
	return append(out, relayed...)
}

func stateOf(v path.View, r path.RouteView) fleet.WayState {
	switch {
	case r.Route == v.Route && r.Misses == 0:
		return fleet.WayUsed
	case r.LastEcho.IsZero():
		return fleet.WayUntold
	case r.Misses > 0:
		return fleet.WayLost
	case r.Narrow:
		return fleet.WayNarrow
	case r.Route == v.Spare:
		return fleet.WaySpare
	}
	return fleet.WayProven
}

// better orders ways: by what they are worth, then by how long they take.
func better(a, b fleet.Way) int {
	order := []fleet.WayState{fleet.WayUsed, fleet.WaySpare, fleet.WayProven, fleet.WayNarrow, fleet.WayLost, fleet.WayUntold}
	return cmp.Or(
		cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State)),
		cmp.Compare(a.RTTMicro, b.RTTMicro),
		cmp.Compare(a.Via, b.Via),
	)
}

// whyNot says why a family gives no direct way, as far as is known here: what
// the peer did not tell is not guessed.
func whyNot(kind fleet.PathKind, v path.View, self, peer fleet.NodeName) string {
	has := func(f path.Family) bool {
		return kind == fleet.PathDirectV6 && f.V6 || kind == fleet.PathDirectV4 && f.V4
	}
	own, its := v.Own, v.Its
	switch {
	case own.Known && !has(own):
		return string(self) + " has none"
	case its.Known && !has(its):
		return string(peer) + " has none"
	case !its.Known:
		return string(peer) + " has not said where it may be reached"
	case kind == fleet.PathDirectV6:
		return "a firewall may be in between"
	case own.NAT && its.NAT && own.Varies && its.Varies:
		return "both are behind NAT that maps per destination"
	case its.Varies:
		return string(peer) + " is behind NAT that maps per destination"
	case own.Varies:
		return string(self) + " is behind NAT that maps per destination"
	case own.NAT && its.NAT:
		return "both are behind NAT"
	case its.NAT:
		return string(peer) + " is behind NAT"
	case own.NAT:
		return string(self) + " is behind NAT"
	}
	return ""
}
