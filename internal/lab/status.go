package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// Status is what is seen of a lab.
type Status struct {
	Version int          `json:"version"` // 1
	Name    string       `json:"name"`
	Whole   bool         `json:"whole"` // false while it comes up, and after that failed
	Nodes   []NodeStatus `json:"nodes"`
	// Servers are those of the internet.
	Servers []ServerStatus `json:"servers"`
	// Hosts are the public ones of the fleet's services.
	Hosts []string `json:"hosts"`
}

// ServerStatus is what is seen of a server of the lab's internet.
type ServerStatus struct {
	Server    topology.Server `json:"server"`
	Addresses []netip.Addr    `json:"addresses"`
	On        bool            `json:"on"` // not failed
}

// NodeStatus is what is seen of one machine.
type NodeStatus struct {
	Node   fleet.NodeName `json:"node"`
	Site   fleet.SiteName `json:"site"`
	On     bool           `json:"on"`
	Inside []netip.Addr   `json:"inside"` // its own addresses
	Seen   []netip.Addr   `json:"seen"`   // where others see it come from
	NAT    string         `json:"nat"`    // "none", or the way its router translates
	Faults []string       `json:"faults"`
}

// Status looks at the lab.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	s, err := l.open(ctx, false)
	if err != nil {
		return Status{}, err
	}
	out := Status{Version: 1, Name: s.name, Whole: s.state.Whole, Hosts: []string{}}
	for _, place := range s.net.Machines {
		n := NodeStatus{
			Node: place.Node, Site: place.Site, Seen: place.Outer, NAT: s.natOf(place),
			On: s.machine(s.state.Root, place).On(), Inside: []netip.Addr{}, Faults: []string{},
		}
		for _, a := range []netip.Addr{place.V4, place.V6} {
			if a.IsValid() {
				n.Inside = append(n.Inside, a)
			}
		}
		for _, f := range s.state.Faults {
			if text, ok := faultOf(f, place); ok {
				n.Faults = append(n.Faults, text)
			}
		}
		for _, d := range s.state.Delays {
			if d.Of.Node == place.Node || d.Of.Node == "" && d.Of.Site == place.Site {
				n.Faults = append(n.Faults, fmt.Sprintf("held %v", d.For))
			}
		}
		out.Nodes = append(out.Nodes, n)
	}
	for _, server := range topology.Servers() {
		h := s.net.Servers[server]
		out.Servers = append(out.Servers, ServerStatus{server, []netip.Addr{h.V4, h.V6}, !slices.Contains(s.state.Off, server)})
	}
	for _, r := range s.state.Fleet.Records() {
		out.Hosts = append(out.Hosts, r.Name)
	}
	return out, nil
}

func (s *session) natOf(place topology.Machine) string {
	site, _ := s.state.Fleet.Site(place.Site)
	switch {
	case site.NAT == fleet.NoNAT:
		return string(fleet.NoNAT)
	case s.state.Symmetric[place.Node]:
		return Symmetric
	}
	return Cone
}

// faultOf says what a fault is to one machine.
func faultOf(f topology.Fault, place topology.Machine) (string, bool) {
	concerns := func(p topology.Party) bool {
		return p != topology.Everybody && (p.Node == place.Node || p.Node == "" && p.Site == place.Site)
	}
	other := f.B
	switch {
	case concerns(f.A):
	case concerns(f.B):
		other = f.A
	default:
		return "", false
	}
	what := "cut"
	if f.Loss < topology.Whole {
		what = fmt.Sprintf("loses %.4g %%", float64(f.Loss)*100/topology.Whole)
	}
	if other == topology.Everybody {
		return what, true
	}
	return what + " " + other.String(), true
}
