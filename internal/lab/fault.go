package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab/space"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// Fail pulls a machine's plug: everything in it is killed, its line is gone.
// Its disk stays as it was. A machine that is off stays off. By the name of a
// server of the internet it takes that one off, for everybody.
func (l *Lab) Fail(ctx context.Context, name string) error {
	s, err := l.open(ctx, true)
	if err != nil {
		return err
	}
	defer s.close()
	if server, ok := s.net.Server(name); ok {
		return s.switchServer(ctx, server, false)
	}
	place, _, err := s.node(fleet.NodeName(name))
	if err != nil {
		return err
	}
	return s.unplug(ctx, place)
}

// switchServer takes a server off the internet, or puts it back.
func (s *session) switchServer(ctx context.Context, server topology.Server, on bool) error {
	s.state.Off = slices.DeleteFunc(s.state.Off, func(o topology.Server) bool { return o == server })
	if !on {
		s.state.Off = append(s.state.Off, server)
	}
	if err := s.save(); err != nil {
		return err
	}
	return space.Rules(ctx, s.full(topology.Mirror), s.net.ServerRules(s.state.Off))
}

// Heal undoes every fault that has the named node or site on one side, and its
// delay, and
// boots the node, or the site's nodes, if they are off. A server of the internet
// it puts back.
func (l *Lab) Heal(ctx context.Context, name string, p Progress) error {
	s, err := l.open(ctx, true)
	if err != nil {
		return err
	}
	defer s.close()
	if server, ok := s.net.Server(name); ok {
		return s.switchServer(ctx, server, true)
	}
	who, err := s.net.Party(name)
	if err != nil {
		return err
	}
	if err := s.applyDelays(ctx, slices.DeleteFunc(slices.Clone(s.state.Delays), func(d topology.Delay) bool { return d.Of == who })); err != nil {
		return err
	}
	s.state.Faults = slices.DeleteFunc(s.state.Faults, func(f topology.Fault) bool { return f.Touches(who) })
	if err := s.applyFaults(ctx); err != nil {
		return err
	}
	for _, place := range s.net.Machines {
		if place.Node != who.Node && place.Site != who.Site {
			continue
		}
		if s.machine(s.state.Root, place).On() {
			p.Done(string(place.Node), "is up")
			continue
		}
		if err := s.bootOne(ctx, place, false, p); err != nil {
			return err
		}
	}
	return nil
}

// HealBetween undoes the fault between two parties.
func (l *Lab) HealBetween(ctx context.Context, a, b string) error {
	return l.changeFaults(ctx, a, b, func(faults []topology.Fault, f topology.Fault) []topology.Fault {
		return slices.DeleteFunc(faults, f.Same)
	})
}

// Lose drops permille of every thousand packets between two nodes, sites or
// the operator, both ways; 1000 is a cut, 0 undoes it. Without b it is all
// that a sends and is sent.
func (l *Lab) Lose(ctx context.Context, a, b string, permille int) error {
	if permille < 0 || permille > topology.Whole {
		return fmt.Errorf("a loss of %d of %d packets: %w", permille, topology.Whole, errLoss)
	}
	return l.changeFaults(ctx, a, b, func(faults []topology.Fault, f topology.Fault) []topology.Fault {
		faults = slices.DeleteFunc(faults, f.Same)
		if permille == 0 {
			return faults
		}
		f.Loss = permille
		return append(faults, f)
	})
}

var (
	errLoss   = errors.New("there is no such thing")
	errNATKey = errors.New("the kinds of NAT are symmetric and cone")
	errNoNAT  = errors.New("is behind no NAT of its site's")
)

func (l *Lab) changeFaults(ctx context.Context, a, b string, change func([]topology.Fault, topology.Fault) []topology.Fault) error {
	s, err := l.open(ctx, true)
	if err != nil {
		return err
	}
	defer s.close()
	f := topology.Fault{B: topology.Everybody}
	if f.A, err = s.net.Party(a); err != nil {
		return hint.Wrap(err, "moggy lab status lists them")
	}
	if b != "" {
		if f.B, err = s.net.Party(b); err != nil {
			return hint.Wrap(err, "moggy lab status lists them")
		}
	}
	s.state.Faults = change(s.state.Faults, f)
	return s.applyFaults(ctx)
}

// applyFaults writes the faults down and makes exactly those.
func (s *session) applyFaults(ctx context.Context) error {
	rules, err := s.net.FaultRules(s.state.Faults)
	if err != nil {
		return err
	}
	if err := s.save(); err != nil {
		return err
	}
	for _, r := range s.net.Routers() {
		if err := space.Rules(ctx, s.full(r), rules[r]); err != nil {
			return err
		}
	}
	return nil
}

// The kinds of NAT a home router can be made to be.
const (
	Symmetric = "symmetric" // a fresh port for every peer: nobody can foretell it
	Cone      = "cone"      // the same port for every peer, where it is free
)

// NAT changes what kind of NAT a node is behind, or with a site's name all of
// its nodes. Connections that the router knows are forgotten, as if it had
// been exchanged for another.
func (l *Lab) NAT(ctx context.Context, name, kind string) error {
	if kind != Symmetric && kind != Cone {
		return fmt.Errorf("%q: %w", kind, errNATKey)
	}
	s, err := l.open(ctx, true)
	if err != nil {
		return err
	}
	defer s.close()
	who, err := s.net.Party(name)
	if err != nil {
		return hint.Wrap(err, "moggy lab status lists them")
	}
	sites := map[fleet.SiteName]bool{}
	for _, place := range s.net.Machines {
		if place.Node != who.Node && place.Site != who.Site {
			continue
		}
		site, _ := s.state.Fleet.Site(place.Site)
		if site.NAT == fleet.NoNAT {
			return fmt.Errorf("%s %w", place.Node, errNoNAT)
		}
		if s.state.Symmetric == nil {
			s.state.Symmetric = map[fleet.NodeName]bool{}
		}
		delete(s.state.Symmetric, place.Node)
		if kind == Symmetric {
			s.state.Symmetric[place.Node] = true
		}
		sites[place.Site] = true
	}
	if err := s.save(); err != nil {
		return err
	}
	for site := range sites {
		router := topology.Router(site)
		if err := space.Rules(ctx, s.full(router), s.net.Rules(router, s.state.Symmetric)); err != nil {
			return err
		}
		if err := space.Forget(s.full(router)); err != nil {
			return err
		}
	}
	return nil
}
