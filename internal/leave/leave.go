// Package leave takes everything of moggy's off a machine, to the last file,
// and gives back what was there before. What the distribution's packages
// brought stays, and what is the owner's is moved to where the owner finds it.
//
// It undoes on one machine; that the fleet knows the node no more is an apply's
// work.
package leave

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Machine is the one that leaves.
type Machine struct {
	Root       string // "/", or another directory in tests
	Executable string // our own binary
	Systemd    node.Systemd
	Run        node.Runner
	Now        func() time.Time
	Version    string
	// Say tells the owner what is done.
	Say func(text string)
}

// Standing is what a machine has of moggy's.
type Standing struct {
	Fleet    fleet.Name     // "" where nobody can tell any more
	Node     fleet.NodeName // the same
	Packages []string       // that its generation asked the distribution for
	Mesh     bool           // its agent's interface is there
}

// Step is one step of leaving. Each can be taken again at any time and does
// nothing where its work is done; so a leave that was killed is finished by
// another one.
type Step string

// The steps, in their order. The binary that can go on after a power loss goes
// last: it is below our directory.
const (
	StepStop   Step = "stop"   // every unit of ours
	StepReturn Step = "return" // what managed paths held before
	StepSweep  Step = "sweep"  // links and unit files that nobody remembers
	StepKeep   Step = "keep"   // the owner's files go to /root
	StepState  Step = "state"  // what systemd kept for our units
	StepForget Step = "forget" // systemd and sshd read what is there now
	StepRemove Step = "remove" // our directory
)

type step struct {
	name Step
	do   func(*leaving, context.Context) error
}

func steps() []step {
	return []step{
		{StepStop, (*leaving).stop},
		{StepReturn, (*leaving).giveBack},
		{StepSweep, (*leaving).sweep},
		{StepKeep, (*leaving).keep},
		{StepState, (*leaving).state},
		{StepForget, (*leaving).forget},
		{StepRemove, (*leaving).remove},
	}
}

// leaving is one run through the steps.
type leaving struct {
	Machine
	units []string   // of ours, by name
	held  *node.Held // from StepReturn on
	kept  string     // where the owner's files are, "" as long as there are none
	// astray says that the node has forgotten what of ours is where.
	astray bool
}

// Look says what there is of moggy's. With nothing at all, the error says so.
func (m Machine) Look(ctx context.Context) (Standing, error) {
	var s Standing
	present := slices.ContainsFunc([]string{
		node.Dir, "/etc/moggy", agent.UnitPath, "/var/lib/private/moggy-agent", fleet.AgentSocket,
	}, m.there)
	if target, err := os.Readlink(m.real(agent.BinaryPath)); err == nil {
		present = present || m.ours(target)
	}
	if !present {
		return s, hint.New("nothing of moggy is on this machine", "moggy leave is run on the node itself; the operator's own files are not its business")
	}
	n := m.node()
	o, err := n.Observe(ctx, node.Look{})
	if err == nil && o.Manifest != nil { // else half of it is broken, which is no reason to stay
		s.Fleet, s.Node, s.Packages = o.Manifest.Fleet, o.Manifest.Node, o.Manifest.Packages
	}
	s.Mesh = m.there("/sys/class/net/" + fleet.MeshInterface)
	return s, nil
}

// Leave takes everything off. It returns where it put what is the owner's, "" if
// there was nothing. It must not be run in what it stops: see Detach.
func (m Machine) Leave(ctx context.Context) (kept string, err error) {
	if err := m.writable(); err != nil {
		return "", err
	}
	l := &leaving{Machine: m}
	defer func() {
		if l.held != nil {
			err = errors.Join(err, l.held.Release())
		}
	}()
	for _, s := range steps() {
		if err := ctx.Err(); err != nil {
			return l.kept, fmt.Errorf("stopped before %s: %w", s.name, err)
		}
		if err := s.do(l, ctx); err != nil {
			return l.kept, hint.Wrap(fmt.Errorf("%s: %w", s.name, err), "mend it, then run it again: sudo %s leave", m.again())
		}
	}
	return l.kept, nil
}

func (m Machine) node() *node.Node {
	return node.New(node.Options{Root: m.Root, Systemd: m.Systemd, Run: m.Run, Now: m.Now, Version: m.Version, By: "leave"})
}

func (m Machine) real(path string) string { return filepath.Join(m.Root, path) }

func (m Machine) there(path string) bool {
	_, err := os.Lstat(m.real(path))
	return err == nil
}

// ours says whether a link leads into our directory.
func (m Machine) ours(target string) bool {
	return strings.HasPrefix(target, m.real(node.Dir)+"/")
}

// writable says whether all can be undone, while nothing has been.
func (m Machine) writable() error {
	for _, dir := range []string{"/etc", "/etc/systemd/system", "/usr/local/bin", "/var/lib", "/root"} {
		err := unix.Access(m.real(dir), unix.W_OK)
		switch {
		case errors.Is(err, unix.EROFS):
			return hint.New(dir+": the file system is read-only, nothing was touched", "mount it writable: mount -o remount,rw %s", dir)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s: %w; nothing was touched", dir, err)
		}
	}
	return nil
}

// again is the binary that goes on with an interrupted leave.
func (m Machine) again() string {
	if m.there(spare) {
		return spare
	}
	return m.Executable
}
