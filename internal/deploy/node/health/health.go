// Package health looks whether what a generation says of itself holds on this
// machine: that the mesh reaches a hub, that sshd answers, that a command is
// content, that a service answers. What follows from that is its callers' business.
package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/command"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Machine is where checks are made.
type Machine struct {
	Run command.Runner
	// Hubs are the members of the mesh in force that are hubs, but for the
	// machine itself.
	Hubs func() []fleet.MeshNode
	// Mesh asks the agent how the mesh is; nil when it does not answer.
	Mesh func(context.Context) *fleet.MeshStatus
	// Reach says whether another machine answers at a mesh address: nil if so, a
	// deadline's error if it says nothing.
	Reach func(context.Context, netip.Addr) error
	// Crashes says whether a unit keeps crashing: nobody waits for it any longer.
	// Nil where nobody can tell.
	Crashes func(context.Context, string) bool
}

const (
	// patience is how long a check may take to become true that does not say.
	patience = 20 * time.Second
	// every is how long a check that does not hold is left alone.
	every = 500 * time.Millisecond
	// wake is how long a hub is knocked at before the agent is believed: an agent
	// probes a hub it has no traffic with every 10 s, and one that it has every
	// second, of which three must fail (mesh/path: Background, Active).
	wake = 4 * time.Second
	// sshPatience bounds one connection to an SSH server.
	sshPatience = 5 * time.Second
)

// Failure is a check that does not hold.
type Failure struct {
	Check fleet.Check
	Seen  error
	After time.Duration // since it was first looked at
}

// Error names the check and what was seen.
func (f *Failure) Error() string {
	return fmt.Sprintf("check %q: not within %s: %v", f.Check.Name, f.After.Round(100*time.Millisecond), f.Seen)
}

// Unwrap is what was seen.
func (f *Failure) Unwrap() error { return f.Seen }

// Await looks at the checks side by side, each until it holds or its time is
// over. The error is the first of those that do not hold, a *Failure; or the
// context's.
func (m Machine) Await(ctx context.Context, checks []fleet.Check) error {
	errs := make([]error, len(checks))
	var wait sync.WaitGroup
	for i, c := range checks {
		wait.Go(func() { errs[i] = m.await(ctx, c) })
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (m Machine) await(ctx context.Context, c fleet.Check) error {
	within := time.Duration(c.Seconds) * time.Second
	if within <= 0 {
		within = patience
	}
	deadline, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	again := time.NewTicker(every)
	defer again.Stop()
	var seen error
	began := time.Now()
	for {
		err := m.Look(deadline, c)
		if err == nil {
			return nil
		}
		if seen == nil || deadline.Err() == nil { // the look that time cut short says less than the one before
			seen = err
		}
		if c.Unit != "" && m.Crashes != nil && m.Crashes(deadline, c.Unit) {
			return &Failure{c, fmt.Errorf("%s keeps crashing; %w", c.Unit, seen), time.Since(began)}
		}
		select {
		case <-again.C:
			continue
		case <-deadline.Done():
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return &Failure{c, seen, within}
	}
}

// Look looks once whether a check holds. The error is what was seen instead. A
// kind that is not known holds: it was made for a newer moggy.
func (m Machine) Look(ctx context.Context, c fleet.Check) error {
	switch c.Kind {
	case fleet.CheckMesh:
		return m.mesh(ctx)
	case fleet.CheckSSH:
		return ssh(ctx, c.Address)
	case fleet.CheckTCP:
		return takes(ctx, c.Address)
	case fleet.CheckHTTP:
		return answers(ctx, c.Address)
	case fleet.CheckRun:
		return m.run(ctx, c.Command)
	}
	return nil
}

// mesh knocks at every hub at once. An answer is proof, a refusal as well; of
// hubs that drop what they do not expect, the agent is asked once knocking has
// made it probe them.
func (m Machine) mesh(ctx context.Context) error {
	hubs := m.Hubs()
	if len(hubs) == 0 {
		return nil
	}
	knock, cancel := context.WithTimeout(ctx, wake)
	defer cancel()
	errs := make([]error, len(hubs))
	var wait sync.WaitGroup
	for i, h := range hubs {
		wait.Go(func() {
			if errs[i] = m.Reach(knock, h.V6); errs[i] == nil {
				cancel()
			}
		})
	}
	wait.Wait()
	st := m.Mesh(ctx)
	var seen []string
	for i, h := range hubs {
		switch {
		case errs[i] == nil:
			return nil
		case st == nil:
			continue
		case ctx.Err() == nil && errors.Is(errs[i], context.DeadlineExceeded) && reached(st, h.Name):
			return nil
		}
		seen = append(seen, fmt.Sprintf("%s: %s", h.Name, pathTo(st, h.Name)))
	}
	if st == nil {
		return errors.New("the agent does not answer")
	}
	return fmt.Errorf("no hub answers (%s)", strings.Join(seen, ", "))
}

func peer(st *fleet.MeshStatus, name fleet.NodeName) fleet.PeerStatus {
	for _, p := range st.Peers {
		if p.Name == name {
			return p
		}
	}
	return fleet.PeerStatus{Path: fleet.PathNone}
}

func reached(st *fleet.MeshStatus, name fleet.NodeName) bool {
	p := peer(st, name)
	return p.Path != fleet.PathNone && p.RTTMicro > 0
}

func pathTo(st *fleet.MeshStatus, name fleet.NodeName) string {
	p := peer(st, name)
	if p.Path == fleet.PathNone {
		return "no path"
	}
	return string(p.Path) + ", but nothing comes back"
}

// Knock is the real Reach: it opens a connection through the mesh's interface,
// and through no other.
func Knock(ctx context.Context, a netip.Addr) error {
	d := net.Dialer{Control: throughMesh}
	conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, knockPort).String())
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, unix.ECONNREFUSED):
		return nil // it was there to refuse
	case ctx.Err() != nil:
		return context.DeadlineExceeded // net has an error of its own
	}
	return err
}

// knockPort is SSH's: where anything listens on a machine, it does there.
const knockPort = 22

// ssh reads what an SSH server says first (RFC 4253, section 4.2): it may send
// other lines before the one with its version.
func ssh(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, sshPatience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if until, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(until); err != nil {
			return err
		}
	}
	const most = 8 << 10
	lines := bufio.NewScanner(io.LimitReader(conn, most))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "SSH-") {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	return fmt.Errorf("%s: what answers is no SSH server", address)
}

// run runs a command. One that is not on this machine has nothing to say.
func (m Machine) run(ctx context.Context, words []string) error {
	if len(words) == 0 {
		return nil
	}
	_, err := m.Run(ctx, nil, words[0], words[1:]...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
