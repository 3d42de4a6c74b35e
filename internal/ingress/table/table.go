// Package table decides which backend a request goes to: routes by host and path,
// and for each backend a state machine fed by probes and by requests that failed.
// Events and times come in, decisions go out; it asks nobody anything, and a
// caller guards it (one mutex, or one goroutine).
//
//	            a probe answers
//	unknown ───────────────────────▶ up ◀──────────────┐
//	   │                             │                 │ proofs probes in a row
//	   │ refused, or strikes         │ refused, or     │ answer
//	   │ failures in a row           │ strikes in a row│
//	   └──────────────▶ down ◀───────┘                 │
//	                     └─────────────────────────────┘
//
// Requests go to what is up; where nothing is, to what is unknown; and where all
// is down, to what failed longest ago: an ingress that is cut off from all
// backends, or asks them the wrong question, must not be the reason that nothing
// works.
package table

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

const (
	// strikes are failures in a row that take a backend out, where one alone proves
	// nothing: a packet is lost, a request kills its own connection.
	strikes = 2
	// proofs are answers in a row that let a backend in again.
	proofs = 2
)

// Outcome is what came of a probe or of a request.
type Outcome int

// The outcomes.
const (
	Answered Outcome = iota
	Refused          // nobody listens there: out at once
	Failed           // no answer in time, or a wrong one
	Broken           // the connection ended under a request, which may be the request's fault
)

// Backend is one place where a service's instance may be.
type Backend struct {
	Service fleet.ServiceName
	fleet.IngressBackend
	State fleet.BackendState
	Since time.Time
	Why   string

	fails, oks int
	lastFail   time.Time
	active     int
	requests   uint64
	failed     uint64
	asked      time.Time // when the last probe began
	wanted     time.Time // when a request last wanted its service
	probing    bool
}

// Table is the routes and backends of one configuration.
type Table struct {
	hosts    map[string][]fleet.IngressRoute // longest path first
	services map[fleet.ServiceName]*Service
	all      []*Backend
}

// Service is what routes lead to.
type Service struct {
	fleet.IngressService
	backends []*Backend
	turn     uint64
}

// New is the table of cfg. What prev (nil for none) knows of backends that stay is
// kept.
func New(cfg fleet.IngressConfig, prev *Table, now time.Time) *Table {
	t := &Table{hosts: make(map[string][]fleet.IngressRoute), services: make(map[fleet.ServiceName]*Service)}
	for _, r := range cfg.Routes {
		t.hosts[r.Host] = append(t.hosts[r.Host], r)
	}
	for _, routes := range t.hosts {
		slices.SortStableFunc(routes, func(a, b fleet.IngressRoute) int { return len(b.Path) - len(a.Path) })
	}
	for _, s := range cfg.Services {
		service := &Service{IngressService: s}
		for _, b := range s.Backends {
			backend := prev.find(s, b)
			if backend == nil {
				backend = &Backend{Service: s.Name, IngressBackend: b, State: fleet.BackendProbe, Since: now}
			}
			service.backends = append(service.backends, backend)
			t.all = append(t.all, backend)
		}
		t.services[s.Name] = service
	}
	return t
}

// find is the backend as t knows it, if it is asked the same there.
func (t *Table) find(s fleet.IngressService, b fleet.IngressBackend) *Backend {
	if t == nil || t.services[s.Name] == nil {
		return nil
	}
	old := t.services[s.Name]
	if old.Health != s.Health || old.Path != s.Path {
		return nil
	}
	for _, have := range old.backends {
		if have.IngressBackend == b {
			return have
		}
	}
	return nil
}

// Route finds where a request for host (lower case, no port) and path leads.
func (t *Table) Route(host, path string) (fleet.IngressRoute, bool) {
	for _, r := range t.hosts[host] {
		if under(path, r.Path) {
			return r, true
		}
	}
	return fleet.IngressRoute{}, false
}

// Audience is who may ask for the host at all: everybody where one of its routes
// is for everybody.
func (t *Table) Audience(host string) (fleet.Audience, bool) {
	routes, ok := t.hosts[host]
	if !ok {
		return "", false
	}
	for _, r := range routes {
		if r.To == fleet.Public {
			return fleet.Public, true
		}
	}
	return fleet.Mesh, true
}

// Hosts are those of all routes for that audience, sorted.
func (t *Table) Hosts(a fleet.Audience) []string {
	var out []string
	for host := range t.hosts {
		if got, _ := t.Audience(host); got == a {
			out = append(out, host)
		}
	}
	slices.Sort(out)
	return out
}

// under says whether path is prefix, or below it, segment by segment.
func under(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(prefix, "/"))
}

// Service returns the service of that name, as the configuration has it.
func (t *Table) Service(name fleet.ServiceName) (fleet.IngressService, bool) {
	s, ok := t.services[name]
	if !ok {
		return fleet.IngressService{}, false
	}
	return s.IngressService, true
}

// Pick chooses the backend for a request's next try, and counts it as under way
// until Done. Those in tried had their chance; fresh is false when only such are
// left, so that the caller waits a moment. It returns nil where there is none.
func (t *Table) Pick(name fleet.ServiceName, tried []netip.AddrPort, now time.Time) (b *Backend, fresh bool) {
	s := t.services[name]
	if s == nil || len(s.backends) == 0 {
		return nil, false
	}
	s.turn++
	var best *Backend
	n := uint64(len(s.backends))
	for i := range n {
		c := s.backends[(s.turn+i)%n]
		c.wanted = now
		if best == nil || better(c, best, tried) {
			best = c
		}
	}
	best.active++
	best.requests++
	return best, !slices.Contains(tried, best.Address)
}

// better orders candidates for a request; who is asked first wins among equals.
func better(a, b *Backend, tried []netip.AddrPort) bool {
	if ta, tb := slices.Contains(tried, a.Address), slices.Contains(tried, b.Address); ta != tb {
		return tb
	}
	if a.State != b.State {
		return rank(a.State) < rank(b.State)
	}
	if a.State == fleet.BackendDown {
		return a.lastFail.Before(b.lastFail)
	}
	return a.active < b.active
}

func rank(s fleet.BackendState) int {
	switch s {
	case fleet.BackendUp:
		return 0
	case fleet.BackendProbe:
		return 1
	default:
		return 2
	}
}

// Done ends what Pick began.
func (t *Table) Done(b *Backend) { b.active-- }

// Tried says what came of a request to a backend. It says whether that took the
// backend out. A good answer to a request is no proof of health: many a broken
// program answers something.
func (t *Table) Tried(b *Backend, o Outcome, why string, now time.Time) (out bool) {
	if o == Answered {
		if b.State != fleet.BackendDown {
			b.fails = 0
		}
		return false
	}
	b.failed++
	if o == Broken {
		b.asked = time.Time{} // ask it now
		return false
	}
	return b.fail(o, why, now)
}

// Others says whether another backend of b's service is up.
func (t *Table) Others(b *Backend) bool {
	s := t.services[b.Service]
	return s != nil && slices.ContainsFunc(s.backends, func(o *Backend) bool { return o != b && o.State == fleet.BackendUp })
}

// Probed says what came of a probe, and whether the state changed.
func (t *Table) Probed(b *Backend, o Outcome, why string, now time.Time) (changed bool) {
	b.probing = false
	if o != Answered {
		return b.fail(o, why, now)
	}
	b.fails = 0
	b.oks++
	if b.State == fleet.BackendUp || b.State == fleet.BackendDown && b.oks < proofs {
		return false
	}
	b.State, b.Since, b.Why = fleet.BackendUp, now, ""
	return true
}

func (b *Backend) fail(o Outcome, why string, now time.Time) (changed bool) {
	b.oks = 0
	b.fails++
	b.lastFail = now
	if b.State == fleet.BackendDown {
		b.Why = why
		return false
	}
	if o != Refused && b.fails < strikes {
		b.asked = time.Time{} // ask it now
		return false
	}
	b.State, b.Since, b.Why = fleet.BackendDown, now, why
	return true
}
