package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// placed is a service and the nodes of which one is enough for it.
type placed struct {
	service fleet.Service
	on      []fleet.NodeName
}

// placedServices are the services by the first of their nodes: a loss that takes
// all of these takes that one.
func placedServices(f *fleet.Fleet) map[fleet.NodeName][]placed {
	out := make(map[fleet.NodeName][]placed)
	for _, s := range f.Services {
		if on := f.Hosts(s); len(on) > 0 {
			out[on[0]] = append(out[on[0]], placed{s, on})
		}
	}
	return out
}

// stopServices: one node that has an instance, or may get one, must be left.
func (a *analysis) stopServices(_ LossKind, lost set) (Stop, bool) {
	var gone []placed
	for name := range lost {
		for _, p := range a.services[name] {
			if !slices.ContainsFunc(p.on, func(n fleet.NodeName) bool { return !lost[n] }) {
				gone = append(gone, p)
			}
		}
	}
	if len(gone) == 0 {
		return Stop{}, false
	}
	slices.SortFunc(gone, func(x, y placed) int { return cmp.Compare(x.service.Name, y.service.Name) })
	names := make([]string, len(gone))
	for i, p := range gone {
		names[i] = string(p.service.Name)
	}
	what := "service " + names[0]
	if len(names) > 1 {
		what = "services " + enumerate(names, 4, "and")
	}
	return Stop{what + ", until it is back", fixService(gone[0].service, len(gone))}, true
}

// fixService is the line that would keep a service up; "" where its data is on
// the node that was lost.
func fixService(s fleet.Service, several int) string {
	switch {
	case len(s.Volumes) > 0:
		return ""
	case len(s.On) > 0:
		return fmt.Sprintf("service %q: more nodes in on, at another site, and count = %d", s.Name, s.Count+1)
	case several > 1:
		return `count = 2 in each; or scheduler = "nomad", which starts them elsewhere`
	}
	return fmt.Sprintf(`service %q { count = %d }; or scheduler = "nomad", which starts it elsewhere`, s.Name, s.Count+1)
}
