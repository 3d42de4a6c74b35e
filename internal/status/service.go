package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

// Service is one service's line.
type Service struct {
	Name      fleet.ServiceName `json:"name"`
	Want      int               `json:"want"` // instances
	Well      int               `json:"well"`
	Instances []Instance        `json:"instances,omitempty"` // by node
	URLs      []string          `json:"urls,omitempty"`
}

// Instance is one of a service's, on one node.
type Instance struct {
	Node     fleet.NodeName `json:"node"`
	State    Health         `json:"state"`
	Why      string         `json:"why,omitempty"` // it is not well
	SinceSec int64          `json:"since_s,omitempty"`
	Restarts int            `json:"restarts,omitempty"` // by itself, since it was started
}

// Health says how an instance is.
type Health string

// The states of an instance.
const (
	Well    Health = "well"
	Unwell  Health = "not well"  // it runs, and its check does not hold
	Stopped Health = "down"      // its unit does not run
	Missing Health = "not there" // no apply brought it yet
	Unknown Health = "unknown"   // its node does not answer
)

// services draws what each node said of its instances, and names what is wrong
// with them. Where Nomad runs them, it alone knows: no node is missed that has
// none.
func (s *Fleet) services(f *fleet.Fleet, answers map[fleet.NodeName]Answer, now time.Time) {
	if f.Scheduler == fleet.Nomad {
		return
	}
	for _, svc := range f.Services {
		out := Service{Name: svc.Name, Want: svc.Count}
		for _, r := range svc.Expose {
			out.URLs = append(out.URLs, url(r))
		}
		for _, n := range f.Places(svc) {
			i := instance(svc.Name, n, answers[n].Seen, now)
			if i.State == Well {
				out.Well++
			}
			out.Instances = append(out.Instances, i)
			s.Problems = append(s.Problems, wrong(svc.Name, i)...)
		}
		s.Services = append(s.Services, out)
	}
}

func url(r fleet.Route) string { return "https://" + r.Host + strings.TrimSuffix(r.Path, "/") }

func instance(s fleet.ServiceName, n fleet.NodeName, seen *fleet.Observed, now time.Time) Instance {
	out := Instance{Node: n, State: Unknown}
	if seen == nil {
		return out
	}
	i := slices.IndexFunc(seen.Units, func(u fleet.UnitState) bool { return u.Name == s.Unit() })
	if i < 0 {
		out.State = Missing
		return out
	}
	u := seen.Units[i]
	out.Restarts = u.Restarts
	if !u.Since.IsZero() {
		out.SinceSec = int64(max(0, now.Sub(u.Since)).Seconds())
	}
	switch why, failing := seen.Failing[u.Name]; {
	case u.Active != "active" && u.Active != "reloading":
		out.State, out.Why = Stopped, strings.TrimSpace(u.Active+" "+u.Sub)
	case failing:
		out.State, out.Why = Unwell, why
	default:
		out.State = Well
	}
	return out
}

// wrong is what is wrong with an instance. One whose node is away is told of with
// the node.
func wrong(s fleet.ServiceName, i Instance) []Problem {
	switch i.State {
	case Missing:
		return []Problem{{i.Node, fmt.Sprintf("has no instance of service %s yet", s), "moggy apply"}}
	case Stopped:
		return []Problem{{i.Node, fmt.Sprintf("service %s is down: %s", s, i.Why), fmt.Sprintf("moggy logs %s", s)}}
	case Unwell:
		return []Problem{{i.Node, fmt.Sprintf("service %s is not well: %s", s, i.Why), fmt.Sprintf("moggy logs %s", s)}}
	case Well, Unknown:
	}
	return nil
}

func serviceTable(services []Service, c term.Palette) term.Table {
	t := term.Table{Indent: "  ", Head: []string{"SERVICE", "WELL", "NODES", "URL"}}
	for _, s := range services {
		well := fmt.Sprintf("%d of %d", s.Well, s.Want)
		switch {
		case s.Want == 0:
			well = "-"
		case s.Well < s.Want:
			well = c.Bad(well)
		}
		var on []string
		for _, i := range s.Instances {
			name := string(i.Node)
			if i.State != Well {
				name = c.Bad(name) + " (" + string(i.State) + ")"
			}
			on = append(on, name)
		}
		t.Add(string(s.Name), well, shorten(on), strings.Join(s.URLs, " "))
	}
	return t
}
