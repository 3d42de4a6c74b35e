// Package deploy makes a fleet what its file says: it asks the nodes how they
// are, makes first contact with new ones, and carries out a plan. What is to
// be done package plan decides; how to reach a machine package ssh knows; what
// happens on it is package node's.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/cargo"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan"
)

// Progress shows how each node is getting on.
type Progress interface {
	Step(name, text string)
	Done(name, text string)
	Fail(name string, err error)
}

// Deployment is one fleet being looked at or changed by one operator. Its
// methods are called one after the other; what they do on the nodes goes side
// by side.
type Deployment struct {
	Fleet    *fleet.Fleet
	SSH      *ssh.Client
	Binaries cargo.Binaries
	Programs cargo.Programs // of the services
	Sites    cargo.Sites    // likewise
	Engines  map[string]cargo.Binaries
	By       string // who is at work: "nico@laptop"
	Version  string // of our own moggy
	Progress Progress
	// Commit is the git commit of the fleet file, for the nodes' history; "" where
	// there is none. It may be nil.
	Commit func() string
	// Accept decides about the key of a host that is seen for the first time.
	Accept func(node fleet.NodeName, key string) (bool, error)
	// Save keeps the lock. It is called each time something was learned that
	// must not be lost.
	Save func(*fleet.Lock) error

	mu   sync.Mutex // guards what follows
	lock *fleet.Lock
	own  map[fleet.NodeName]bool // where the moggy that we brought answers, not the generation's

	run Runner // in tests; else it is SSH
}

// Timeouts of what is done on one node.
const (
	observeTimeout  = 10 * time.Second
	contactTimeout  = 5 * time.Minute // carries our binary over a slow line
	packagesTimeout = 10 * time.Minute
	imageTimeout    = 15 * time.Minute // of one
	stageTimeout    = 10 * time.Minute
	activateTimeout = 3 * time.Minute
	reattach        = time.Minute     // how long a lost connection is sought again
	confirmSlack    = 5 * time.Second // how much longer than the node we wait for a confirmation
	lookTimeout     = 5 * time.Second // of one look at a node during a rollout
)

// Open allocates what is not allocated yet and prepares the ways to the nodes.
// The lock is not saved by it.
func (d *Deployment) Open(l *fleet.Lock) error {
	lock, err := plan.Allocate(d.Fleet, l)
	if err != nil {
		return err
	}
	d.lock = lock
	return d.use()
}

// use tells ssh what the lock says now.
func (d *Deployment) use() error {
	if d.SSH == nil {
		return nil
	}
	return d.SSH.Use(d.Fleet, d.lock)
}

// Lock is a copy of the lock as it stands.
func (d *Deployment) Lock() *fleet.Lock {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lock.Clone()
}

// learn changes the lock and keeps it.
func (d *Deployment) learn(change func(*fleet.Lock)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d.lock)
	if err := d.use(); err != nil {
		return err
	}
	return d.Save(d.lock)
}

// note changes the lock, to be kept with what is learned next: a rollout of a
// thousand nodes does not write it a thousand times. It is nothing that leads
// to a node.
func (d *Deployment) note(change func(*fleet.Lock)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d.lock)
}

// Observe asks every node that is known, side by side, each for at most the
// given time, and takes in those that joined by token in the meantime.
func (d *Deployment) Observe(ctx context.Context, within time.Duration) (map[fleet.NodeName]plan.Observation, error) {
	seen := make(map[fleet.NodeName]plan.Observation)
	if err := d.observe(ctx, within, seen); err != nil {
		return nil, err
	}
	joined, err := d.adopt(seen)
	if err != nil {
		return nil, err
	}
	if joined {
		err = d.observe(ctx, within, seen)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, o := range seen {
		if l := d.lock.Node(name); o.Seen != nil && l.Arch == "" {
			l.Arch = o.Seen.System.Arch
			d.lock.Put(l)
		}
	}
	return seen, err
}

// adopt takes those that joined by token into the lock, and says whether there
// are any.
func (d *Deployment) adopt(seen map[fleet.NodeName]plan.Observation) (bool, error) {
	reports := make(map[fleet.NodeName][]fleet.Joined)
	for name, o := range seen {
		if o.Seen != nil && o.Seen.Mesh != nil {
			reports[name] = o.Seen.Mesh.Joined
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	joined, err := plan.Adopt(d.Fleet, d.lock, reports)
	if err != nil || len(joined) == 0 {
		return false, err
	}
	for _, name := range joined {
		delete(seen, name) // whoever answered, or did not, was the machine before
	}
	return true, d.use()
}

// observe asks those that are known and not yet in seen.
func (d *Deployment) observe(ctx context.Context, within time.Duration, seen map[fleet.NodeName]plan.Observation) error {
	var ask []fleet.Node
	for _, l := range d.Lock().Nodes {
		n, listed := d.Fleet.Node(l.Name)
		if _, done := seen[l.Name]; !done && listed && !l.MeshKey.IsZero() {
			ask = append(ask, n)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, n := range ask {
		wg.Go(func() {
			ctx, stop := context.WithTimeoutCause(ctx, within, fmt.Errorf("no answer within %s", within))
			defer stop()
			o, err := d.target(n.Name).observe(ctx)
			mu.Lock()
			defer mu.Unlock()
			seen[n.Name] = plan.Observation{Seen: o, Problem: problem(err)}
		})
	}
	wg.Wait()
	return ctx.Err()
}

func problem(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (d *Deployment) target(n fleet.NodeName) target {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := target{run: d.run, node: n, by: d.By, own: d.own[n]}
	if t.run == nil {
		t.run = d.SSH
	}
	return t
}

// Plan makes the plan from what was observed, fetching what the diffs need.
func (d *Deployment) Plan(ctx context.Context, seen map[fleet.NodeName]plan.Observation, o Options) (*plan.Plan, error) {
	p, err := d.compute(seen, nil, o)
	if err != nil {
		return nil, err
	}
	contents := d.fetch(ctx, p)
	if len(contents) == 0 {
		return p, nil
	}
	return d.compute(seen, contents, o)
}

func (d *Deployment) compute(seen map[fleet.NodeName]plan.Observation, contents map[fleet.Digest]string, o Options) (*plan.Plan, error) {
	lock := d.Lock()
	return plan.Compute(plan.Input{
		Fleet: d.Fleet, Lock: lock, Observed: seen, Contents: contents, Parts: Parts(d.Fleet, lock, d.Binaries, d.Programs, d.Engines, d.Sites),
		Binary: binaryPath, Moggy: d.Version, Only: o.Only, Soak: o.Soak,
	})
}

// fetch brings the content of files that the plan changes, each from one of
// the nodes that hold it. A node that does not answer leaves its diffs out.
func (d *Deployment) fetch(ctx context.Context, p *plan.Plan) map[fleet.Digest]string {
	ctx, stop := context.WithTimeout(ctx, observeTimeout)
	defer stop()
	contents := make(map[fleet.Digest]string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for node, paths := range holders(p) {
		wg.Go(func() {
			o, err := d.target(node).observe(ctx, paths...)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, c := range o.Contents {
				contents[fleet.DigestOf([]byte(c))] = c
			}
		})
	}
	wg.Wait()
	return contents
}

// holders says whom to ask for which files so that each content is brought
// once.
func holders(p *plan.Plan) map[fleet.NodeName][]string {
	asked := make(map[fleet.Digest]bool)
	out := make(map[fleet.NodeName][]string)
	for _, n := range p.Nodes {
		for _, f := range n.Files {
			if f.Unseen() && !asked[f.Before] {
				asked[f.Before] = true
				out[n.Node] = append(out[n.Node], f.Path)
			}
		}
	}
	return out
}

// each runs work for every node of names side by side and gathers what failed.
func (d *Deployment) each(ctx context.Context, names []fleet.NodeName, work func(context.Context, fleet.NodeName) error) Failed {
	failed := Failed{}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, name := range names {
		wg.Go(func() {
			err := work(ctx, name)
			if err == nil {
				return
			}
			if ctx.Err() != nil {
				err = errors.Join(context.Cause(ctx), err)
			}
			err = ssh.Explain(name, d.user(name), err)
			d.Progress.Fail(string(name), err)
			mu.Lock()
			defer mu.Unlock()
			failed[name] = err
		})
	}
	wg.Wait()
	return failed
}

func (d *Deployment) user(name fleet.NodeName) string {
	n, _ := d.Fleet.Node(name)
	return n.SSH.User
}
