package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab/mirror"
	"github.com/moggyfleet/moggy/internal/lab/rootfs"
	"github.com/moggyfleet/moggy/internal/lab/space"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// The parts of a lab that progress is told about besides its nodes.
const (
	PartRoot     = "root file system"
	PartNetwork  = "network"
	PartInternet = "internet"
)

// Timing is how long the parts of bringing a lab up took.
type Timing struct {
	Root, Network, Boot time.Duration
	Booted              int  // machines that were switched on
	Fresh               bool // the lab was not up before
}

// bootTime is how long a machine may take until its sshd answers.
const bootTime = 90 * time.Second

var errOtherFleet = errors.New("is up with another network than this file's")

// Up brings the lab up with the fleet's machines, or, if it is up already,
// switches on those of its machines that are off. When it cannot, or ctx ends,
// it takes away what it made.
func (l *Lab) Up(ctx context.Context, f *fleet.Fleet, p Progress) (Timing, error) {
	var t Timing
	net, err := topology.Build(f)
	if err != nil {
		return t, err
	}
	if err := preflight(); err != nil {
		return t, err
	}
	start := l.opts.Now()
	root, packages, err := l.materials(ctx, p)
	if err != nil {
		return t, err
	}
	t.Root = l.opts.Now().Sub(start)
	s, err := l.claim(ctx, f, net, root, packages)
	if err != nil {
		return t, err
	}
	defer s.close()
	t.Fresh = !s.state.Whole
	if t.Fresh {
		err = inotify(len(net.Machines))
	}
	if err == nil {
		err = s.up(ctx, p, &t)
	}
	if err != nil && t.Fresh {
		err = errors.Join(err, s.down(context.WithoutCancel(ctx)))
	}
	return t, err
}

// materials gets what the machines are made of into the cache.
func (l *Lab) materials(ctx context.Context, p Progress) (root, packages string, err error) {
	say := func(text string) { p.Step(PartRoot, text) }
	say("looking in " + l.opts.Cache)
	root, err = rootfs.Ensure(ctx, l.opts.Cache, say)
	if err == nil {
		packages, err = mirror.Ensure(ctx, root, rootfs.Mirror, say)
	}
	if err != nil {
		p.Fail(PartRoot, err)
		return "", "", err
	}
	p.Done(PartRoot, root)
	return root, packages, nil
}

// claim opens the lab if it is up with this network, and otherwise writes down
// the one to come. What a killed command left of it is taken away first.
func (l *Lab) claim(ctx context.Context, f *fleet.Fleet, net *topology.Network, root, packages string) (*session, error) {
	lock, err := l.lock(ctx, true)
	if err != nil {
		return nil, err
	}
	s := &session{Lab: l, lock: lock}
	err = s.load()
	switch {
	case err == nil && s.state.Whole && net.Extends(s.net):
		if err := s.grow(ctx, f, net); err != nil {
			s.close()
			return nil, err
		}
		return s, nil
	case err == nil && s.state.Whole:
		s.close()
		return nil, hint.Wrap(fmt.Errorf("lab %s %w", l.name, errOtherFleet),
			"only what was added to the file can be added to a lab: moggy lab down, then up; or a second lab beside it: --name NAME")
	case err == nil:
		if err := s.clear(ctx); err != nil {
			s.close()
			return nil, err
		}
	}
	s.net = net
	s.state = state{Version: 1, Fleet: f, Root: root, Packages: packages, Engines: filepath.Join(l.opts.Cache, "engines")}
	// There will be setuid programs and keys on the machines' disks.
	if err := errors.Join(s.save(), os.MkdirAll(diskDir, 0o700)); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// grow adds what the file has more than when the lab was brought up: nodes,
// sites, addresses.
func (s *session) grow(ctx context.Context, f *fleet.Fleet, net *topology.Network) error {
	old := s.net
	s.net, s.state.Fleet = net, f
	if err := s.save(); err != nil {
		return err
	}
	if net.String() == old.String() {
		return nil
	}
	if err := space.Wire(ctx, net.Beyond(old), s.full); err != nil {
		return err
	}
	return s.rules(ctx)
}

func (s *session) up(ctx context.Context, p Progress, t *Timing) error {
	start := s.opts.Now()
	if t.Fresh {
		p.Step(PartNetwork, "wiring")
		if err := s.wire(ctx); err != nil {
			p.Fail(PartNetwork, err)
			return refused(err)
		}
		p.Done(PartNetwork, fmt.Sprintf("%d namespaces, %d links", len(s.net.Spaces), len(s.net.Links)))
	}
	if err := s.serve(ctx, p); err != nil {
		p.Fail(PartInternet, err)
		return err
	}
	wired := s.opts.Now()
	t.Network = wired.Sub(start)
	booted, err := s.boot(ctx, p, t.Fresh)
	if err != nil {
		return err
	}
	t.Booted = booted
	t.Boot = s.opts.Now().Sub(wired)
	s.state.Whole = true
	return s.save()
}

// wire makes the whole network, and the key of its owner.
func (s *session) wire(ctx context.Context) error {
	if err := s.makeKey(); err != nil {
		return err
	}
	if err := space.Wire(ctx, s.net, s.full); err != nil {
		return err
	}
	return s.rules(ctx)
}

// rules gives every router its rules.
func (s *session) rules(ctx context.Context) error {
	for _, r := range s.net.Routers() {
		if err := space.Rules(ctx, s.full(r), s.net.Rules(r, s.state.Symmetric)); err != nil {
			return err
		}
	}
	return nil
}

// boot switches on every machine that is off, two per processor at a time:
// more at once only wait for each other.
func (s *session) boot(ctx context.Context, p Progress, fresh bool) (int, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.NumCPU())
	booted := 0
	for _, place := range s.net.Machines {
		m := s.machine(s.state.Root, place)
		if !fresh && m.On() {
			p.Done(string(place.Node), "is up")
			continue
		}
		booted++
		g.Go(func() error {
			err := s.bootOne(ctx, place, fresh, p)
			// One that only stopped because another failed has nothing to tell.
			if err != nil && !errors.Is(err, context.Canceled) {
				p.Fail(string(place.Node), err)
			}
			return err
		})
	}
	return booted, g.Wait()
}

func (s *session) bootOne(ctx context.Context, place topology.Machine, fresh bool, p Progress) error {
	name := string(place.Node)
	m := s.machine(s.state.Root, place)
	start := s.opts.Now()
	if !fresh {
		if err := s.replug(ctx, place); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(s.disk(name), "upper")); err != nil {
		p.Step(name, "laying out its disk")
		files, err := s.files(place)
		if err != nil {
			return err
		}
		if err := m.Prepare(files); err != nil {
			return err
		}
	}
	p.Step(name, "booting")
	if err := m.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	node, _ := s.state.Fleet.Node(place.Node)
	if err := m.Ready(ctx, sshPort(node), dialer(s.full(place.Space))); err != nil {
		return err
	}
	p.Done(name, fmt.Sprintf("%s, up after %.1f s", place.Host, s.opts.Now().Sub(start).Seconds()))
	return nil
}

// replug gives a machine that was switched off a network namespace like new.
func (s *session) replug(ctx context.Context, place topology.Machine) error {
	if err := s.unplug(ctx, place); err != nil {
		return err
	}
	return space.Wire(ctx, s.net.Only(place.Space), s.full)
}

// unplug takes the machine's power and its line.
func (s *session) unplug(ctx context.Context, place topology.Machine) error {
	if err := s.machine(s.state.Root, place).Stop(ctx); err != nil {
		return err
	}
	for _, link := range s.net.Only(place.Space).Links {
		if err := space.Unplug(s.full(link.A.Space), link.A.Dev); err != nil {
			return err
		}
	}
	return space.Remove(s.full(place.Space))
}
