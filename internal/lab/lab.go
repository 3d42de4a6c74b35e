// Package lab runs a fleet on one box: every node of the file a machine with
// systemd and sshd, in network namespaces wired like the fleet's sites, with
// faults to inject. Whatever is done to those machines is done over the lab's
// internet as it would be over the real one; the lab only makes them, breaks
// them, mends them and takes them away.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab/machine"
	"github.com/moggyfleet/moggy/internal/lab/space"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// Where labs are: what runs, what machines write, what all labs share.
const (
	runDir  = "/run/moggy-lab"
	diskDir = "/var/lib/moggy-lab"
	// CacheDir holds the root file systems unless the user says otherwise.
	CacheDir = "/var/cache/moggy/lab"
)

// Progress is told how a name in the fleet, or a part of the lab, is doing.
type Progress interface {
	Step(name, text string)
	Done(name, text string)
	Fail(name string, err error)
}

// Options are what a lab needs of its surroundings.
type Options struct {
	Cache string           // "" is CacheDir
	Now   func() time.Time // the clock, for durations
	// Serve is the command that serves the lab's internet (see [Serve]) until
	// it is killed; it is given the lab's name as one more argument. Without
	// one, the calling process serves as long as it lives.
	Serve []string
}

// Lab is a lab by its name, running or not. Everything about it is in the
// kernel and in its directories, under a lock there: several processes may
// use one lab.
type Lab struct {
	name string
	opts Options
}

var (
	errName    = errors.New("not a lab's name: letters, digits and dashes, 63 at most")
	errNotUp   = errors.New("is not up")
	errNoNode  = errors.New("no such node in the lab")
	labelRegex = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// New returns the lab of that name, a DNS label. It does nothing yet.
func New(name string, opts Options) (*Lab, error) {
	if !labelRegex.MatchString(name) {
		return nil, fmt.Errorf("%q: %w", name, errName)
	}
	if opts.Cache == "" {
		opts.Cache = CacheDir
	}
	return &Lab{name: name, opts: opts}, nil
}

// Name is the lab's name.
func (l *Lab) Name() string { return l.name }

// Names lists the labs that are up, or that a killed command left behind.
func Names() ([]string, error) {
	entries, err := os.ReadDir(runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (l *Lab) run(elem ...string) string {
	return filepath.Join(append([]string{runDir, l.name}, elem...)...)
}

func (l *Lab) disk(elem ...string) string {
	return filepath.Join(append([]string{diskDir, l.name}, elem...)...)
}

// full is the name, on this box, of a space of the lab's network.
func (l *Lab) full(s string) string { return "moggy-" + l.name + "-" + s }

func (l *Lab) machine(root string, m topology.Machine) machine.Machine {
	return machine.Machine{
		Lab: l.name, Host: string(m.Node), Root: root,
		Disk: l.disk(string(m.Node)), Run: l.run(), Net: space.Path(l.full(m.Space)),
	}
}

// state is what the kernel does not know about a lab. It is written before
// anything it speaks of is made, so that whoever finds it can take all away.
type state struct {
	Version   int                     `json:"version"` // 1
	Fleet     *fleet.Fleet            `json:"fleet"`
	Root      string                  `json:"root"`      // the root file system of its machines
	Packages  string                  `json:"packages"`  // what its mirror serves
	Engines   string                  `json:"engines"`   // where engines are that were built from source
	Whole     bool                    `json:"whole"`     // up came to its end
	Faults    []topology.Fault        `json:"faults"`    // in the order they were made
	Symmetric map[fleet.NodeName]bool `json:"symmetric"` // nodes behind a symmetric NAT
	Off       []topology.Server       `json:"off"`       // servers of the internet that are failed
	Delays    []topology.Delay        `json:"delays"`
}

// session is a lab that is up, as one command sees it.
type session struct {
	*Lab
	state state
	net   *topology.Network
	lock  *os.File
}

// open reads the lab's state. With write, no other command changes the lab
// until the session is closed.
func (l *Lab) open(ctx context.Context, write bool) (*session, error) {
	s := &session{Lab: l}
	if write {
		var err error
		if s.lock, err = l.lock(ctx, false); err != nil {
			return nil, l.notUp(err)
		}
	}
	if err := s.load(); err != nil {
		s.close()
		return nil, l.notUp(err)
	}
	return s, nil
}

func (l *Lab) notUp(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hint.Wrap(fmt.Errorf("lab %s %w", l.name, errNotUp), "moggy lab up")
	}
	if errors.Is(err, fs.ErrPermission) {
		return hint.Wrap(err, "a lab belongs to root: sudo moggy lab ...")
	}
	return err
}

func (s *session) load() error {
	text, err := os.ReadFile(s.run("state.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &s.state); err != nil {
		return hint.Wrap(fmt.Errorf("%s: %w", s.run("state.json"), err), "moggy lab down --name %s, then up", s.name)
	}
	s.net, err = topology.Build(s.state.Fleet)
	return err
}

func (s *session) save() error {
	text, err := json.MarshalIndent(s.state, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(s.run("state.json"), text)
}

// writeFile replaces a file as a whole. Only root may read it.
func writeFile(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (s *session) close() {
	if s.lock != nil {
		s.lock.Close()
	}
}

// lock takes the lab for one command, made first if it is not there and that
// is asked for. The lock is on the lab's directory itself, so that nothing is
// left of it.
func (l *Lab) lock(ctx context.Context, create bool) (*os.File, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if create {
			if err := os.MkdirAll(l.run(), 0o700); err != nil {
				return nil, err
			}
		}
		dir, err := os.Open(l.run())
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && same(dir, l.run()) {
			return dir, nil
		}
		dir.Close() // held by another, or that other took the lab down meanwhile
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lab %s is busy: %w", l.name, ctx.Err())
		case <-tick.C:
		}
	}
}

func same(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// node finds a node's place in the network and the machine on it.
func (s *session) node(name fleet.NodeName) (topology.Machine, machine.Machine, error) {
	place, ok := s.net.Machine(name)
	if !ok {
		return place, machine.Machine{}, hint.Wrap(fmt.Errorf("node %s: %w", name, errNoNode), "moggy lab status lists them")
	}
	return place, s.machine(s.state.Root, place), nil
}

// Fleet is the fleet that the lab was brought up with.
func (l *Lab) Fleet() (*fleet.Fleet, error) {
	s, err := l.open(context.Background(), false)
	if err != nil {
		return nil, err
	}
	return s.state.Fleet, nil
}

// Within runs f on a thread in the node's network namespace: a socket that f
// opens is one of the machine's.
func (l *Lab) Within(node fleet.NodeName, f func() error) error {
	s, err := l.open(context.Background(), false)
	if err != nil {
		return err
	}
	place, _, err := s.node(node)
	if err != nil {
		return err
	}
	return space.Do(l.full(place.Space), f)
}

// Networks lists the network namespaces of the lab, by their names on this
// box.
func (l *Lab) Networks() ([]string, error) {
	s, err := l.open(context.Background(), false)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, sp := range s.net.Spaces {
		names = append(names, l.full(sp.Name))
	}
	return names, nil
}
