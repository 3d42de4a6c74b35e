// Package services renders what a node needs to run its share of the fleet's
// services: for each instance a systemd unit with a program in a sandbox or a
// container, what these are made of, and the check that its node must pass with
// it. It decides nothing about where instances run (fleet.Places does), and runs
// nothing.
package services

import (
	"net/netip"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// dir is where programs that are brought stand on a node.
const dir = "/usr/local/lib/moggy/services"

// patience is how long an instance may take until it is well, in seconds.
const patience = 30

// Programs are those that are brought, by what exec says of them.
type Programs interface {
	// Digest of the program for that architecture; empty where it is not known
	// yet.
	Digest(exec, arch string) fleet.Digest
}

// Services are the fleet's, from which each node's share is rendered.
type Services struct {
	on       map[fleet.NodeName][]fleet.Service
	lock     map[fleet.NodeName]fleet.NodeLock
	programs Programs
}

// New places the fleet's services.
func New(f *fleet.Fleet, l *fleet.Lock, p Programs) *Services {
	s := &Services{programs: p}
	if len(f.Services) == 0 || f.Scheduler != fleet.Systemd {
		return s
	}
	s.on, s.lock = make(map[fleet.NodeName][]fleet.Service), make(map[fleet.NodeName]fleet.NodeLock, len(l.Nodes))
	for _, svc := range f.Services {
		if svc.Static != "" {
			continue
		}
		for _, n := range f.Places(svc) {
			s.on[n] = append(s.on[n], svc)
		}
	}
	for _, n := range l.Nodes {
		s.lock[n.Name] = n
	}
	return s
}

// Part is a node's share; false where it has none.
func (s *Services) Part(name fleet.NodeName) (fleet.Part, bool) {
	mine := s.on[name]
	if len(mine) == 0 {
		return fleet.Part{}, false
	}
	p := fleet.Part{Engine: "services"}
	here := s.lock[name]
	for _, svc := range mine {
		unit := fleet.Unit{Name: svc.Name.Unit()}
		program := svc.Exec
		switch {
		case svc.Image != "":
			p.Images = append(p.Images, svc.Image)
			p.Packages = []string{"docker.io"}
			p.Files = append(p.Files, envFile(svc, here))
			unit.RestartOn = []string{envPath(svc.Name)}
		case svc.Local():
			program = dir + "/" + string(svc.Name) + "/" + svc.Exec[strings.LastIndexByte(svc.Exec, '/')+1:]
			p.Files = append(p.Files, fleet.File{Path: program, Mode: 0o755, Digest: s.programs.Digest(svc.Exec, here.Arch)})
			unit.RestartOn = []string{program}
		}
		p.Files = append(p.Files, fleet.NewFile("/etc/systemd/system/"+unit.Name, 0o644, render(svc, program, here)))
		p.Units = append(p.Units, unit)
		p.Checks = append(p.Checks, check(svc, here)...)
	}
	return p, true
}

// check is what the node must pass while it has the instance.
func check(s fleet.Service, here fleet.NodeLock) []fleet.Check {
	c := fleet.Check{Name: "service " + string(s.Name) + " is well", Unit: s.Name.Unit(), Seconds: patience}
	at := netip.AddrPortFrom(here.V4, s.Port).String()
	switch s.Health.Kind {
	case fleet.HealthTCP:
		c.Kind, c.Address = fleet.CheckTCP, at
	case fleet.HealthHTTP:
		c.Kind, c.Address = fleet.CheckHTTP, "http://"+at+s.Health.Path
	case fleet.HealthNone:
		return nil
	}
	return []fleet.Check{c}
}
