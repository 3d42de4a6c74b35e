package table

import (
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

const (
	// Interval is how often a backend is asked. Two probes that go unanswered for
	// Timeout each, the first of which began up to an Interval after the backend
	// fell silent, end within 2 s.
	Interval = 500 * time.Millisecond
	// Timeout is how long a probe may take.
	Timeout = 700 * time.Millisecond
	// idleRate bounds the probes per second of backends whose services nobody wants:
	// of hundreds, each is asked more rarely.
	idleRate = 100
	// idleMost is the longest that such a backend is not asked.
	idleMost = 5 * time.Second
	// wantedFor is how long a service counts as wanted after a request.
	wantedFor = 30 * time.Second
)

// Due are the backends to probe now, each until Probed is called for it; and when
// to ask again. jitter, from 0 to 1, spreads the next round.
func (t *Table) Due(now time.Time, jitter func() float64) (due []*Backend, next time.Time) {
	lazy := min(max(Interval, time.Duration(len(t.all))*time.Second/idleRate), idleMost)
	next = now.Add(Interval)
	for _, b := range t.all {
		every := lazy
		// A backend in doubt is asked as often as a wanted one: it is to be in, or
		// out, soon.
		if now.Sub(b.wanted) < wantedFor || b.State == fleet.BackendProbe || b.fails > 0 && b.State == fleet.BackendUp || b.oks > 0 && b.State == fleet.BackendDown {
			every = Interval
		}
		at := b.asked.Add(every)
		switch {
		case b.probing:
		case !at.After(now):
			b.probing = true
			// up to a tenth earlier the next time, so that probes do not march in step
			b.asked = now.Add(-time.Duration(jitter() * float64(every) / 10))
			due = append(due, b)
		case at.Before(next):
			next = at
		}
	}
	return due, next
}

// Has says whether the backend is one of the table.
func (t *Table) Has(b *Backend) bool { return slices.Contains(t.all, b) }

// Question is what to ask a backend.
func (t *Table) Question(b *Backend) (kind fleet.HealthKind, path string) {
	s := t.services[b.Service]
	if s == nil || s.Health != fleet.HealthHTTP {
		return fleet.HealthTCP, "" // what is well while it runs still takes connections
	}
	return fleet.HealthHTTP, s.Path
}

// Status is how things stand, in the order of the configuration.
func (t *Table) Status(cfg fleet.IngressConfig) (routes []fleet.RouteStatus, services []fleet.ServiceStatus) {
	routes, services = make([]fleet.RouteStatus, 0, len(cfg.Routes)), make([]fleet.ServiceStatus, 0, len(cfg.Services))
	for _, r := range cfg.Routes {
		routes = append(routes, fleet.RouteStatus(r))
	}
	for _, s := range cfg.Services {
		out := fleet.ServiceStatus{Name: s.Name, Site: s.Site}
		for _, b := range t.services[s.Name].backends {
			out.Backends = append(out.Backends, fleet.BackendStatus{
				Node: b.Node, Address: b.Address, State: b.State, Since: b.Since, Why: b.Why,
				Active: b.active, Requests: b.requests, Failed: b.failed,
			})
		}
		services = append(services, out)
	}
	return routes, services
}
