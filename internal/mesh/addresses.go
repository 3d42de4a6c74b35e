package mesh

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/link"
)

// settleFor is how long addresses must be left alone before we look: a network
// that comes up changes several in a row.
const settleFor = 200 * time.Millisecond

// watchAddresses tells the engine where this machine listens, and when that
// changes.
func (a *Agent) watchAddresses(ctx context.Context) error {
	changes, err := link.WatchAddrs(ctx)
	if err != nil {
		return err
	}
	var last []netip.AddrPort
	var lastRoutes string
	for first := true; ; first = false {
		a.mu.Lock()
		conf := a.conf
		a.mu.Unlock()
		now, err := a.localEndpoints(conf)
		routes, routesErr := link.DefaultRoutes()
		err = errors.Join(err, routesErr)
		switch {
		case err != nil:
			a.log.Warn("own addresses unknown", fieldError, err)
		case first || !slices.Equal(now, last) || routes != lastRoutes:
			a.mu.Lock()
			a.engine.SetLocal(now)
			a.mu.Unlock()
			if !first {
				a.log.Info("own addresses or routes changed")
				a.moved()
			}
			a.poke()
			last, lastRoutes = now, routes
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-time.After(settleFor):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// localEndpoints is where we listen in our own networks, in a stable order.
func (a *Agent) localEndpoints(conf fleet.AgentConfig) ([]netip.AddrPort, error) {
	addrs, err := link.LocalAddrs(a.opt.Interface)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, ip := range addrs {
		if !conf.V4.Contains(ip) && !conf.V6.Contains(ip) {
			out = append(out, netip.AddrPortFrom(ip, conf.Port))
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out, nil
}
