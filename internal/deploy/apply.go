package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
)

// Options are the operator's choices for an apply or a rollback.
type Options struct {
	// Only these nodes change, if there are any.
	Only []fleet.NodeName
	Soak time.Duration
	// Downgrade lets nodes go to an older moggy.
	Downgrade bool
	// Kill ends everything at once. The context's end lets nothing new begin, and
	// waits for what is under way.
	Kill <-chan struct{}
	// Told is called once when the context has ended and nodes are under way.
	Told func(underWay []fleet.NodeName)
}

// Apply carries the plan out and returns the plan it ended with: after first
// contact it is made anew, since keys that nobody knew are in it. While it
// works, every node concerned is held, so that no other operator changes it.
// The error is a *Stopped once anything was begun.
func (d *Deployment) Apply(ctx context.Context, p *plan.Plan, o Options) (*plan.Plan, error) {
	if newer := p.Newer(); len(newer) > 0 && !o.Downgrade {
		return p, tooOld(newer, d.Version)
	}
	ours, err := d.exclusive()
	if err != nil {
		return p, err
	}
	defer ours.free()
	held := concerned(p)
	if err := d.equip(ctx, p.Nodes, held); err != nil {
		return p, err
	}
	h, err := d.hold(ctx, ours.session, held)
	if err != nil {
		return p, err
	}
	defer h.release()
	if p, err = d.unmoved(ctx, p, o); err != nil {
		return p, err
	}
	var failed Failed
	if names := contacts(p); len(names) > 0 {
		if failed = d.each(ctx, names, d.contact); len(failed) == len(names) {
			return p, failed
		}
		seen, err := d.Observe(ctx, observeTimeout)
		if err != nil {
			return p, err
		}
		if p, err = d.compute(seen, nil, o); err != nil {
			return p, err
		}
		if err := h.add(ctx, d, concerned(p)); err != nil {
			return p, err
		}
	}
	if p, err = d.credentials(ctx, p, o); err != nil {
		return p, err
	}
	if err := d.learn(func(*fleet.Lock) {}); err != nil { // addresses, and who joined
		return p, err
	}
	err = errors.Join(failed.err(), d.roll(ctx, p.Rollout, planned(p), h, o))
	if err == nil && complete(p) && plan.Forgotten(d.Lock()) {
		err = d.learn(func(l *fleet.Lock) { plan.Forgotten(l) })
	}
	return p, err
}

// complete says whether the plan left nobody out.
func complete(p *plan.Plan) bool {
	return !slices.ContainsFunc(p.Nodes, func(n plan.NodePlan) bool {
		return n.Action == plan.ActionUnreachable || n.Action == plan.ActionBehind
	})
}

func tooOld(newer []plan.NodePlan, ours string) error {
	text := fmt.Sprintf("%s runs moggy %s, yours is %s: applying would take it back to yours", newer[0].Node, newer[0].Newer, ours)
	if len(newer) > 1 {
		text = fmt.Sprintf("%s, and %d more run a newer moggy than yours", text, len(newer)-1)
	}
	return hint.New(text, "upgrade yours, or --downgrade")
}

// unmoved looks again, now that nobody else can change anything, and returns
// the plan as made from that. The error says what is other than when the
// operator agreed to the plan.
func (d *Deployment) unmoved(ctx context.Context, p *plan.Plan, o Options) (*plan.Plan, error) {
	seen, err := d.Observe(ctx, observeTimeout)
	if err != nil {
		return p, err
	}
	now, err := d.compute(seen, nil, o)
	if err != nil {
		return p, err
	}
	if moved := p.Fingerprint().Moved(now.Fingerprint()); len(moved) > 0 {
		return p, hint.New("the fleet moved on while you looked at the plan: "+strings.Join(moved, "; "), "apply again, and look at what it shows now")
	}
	return now, nil
}

// concerned are the nodes that others must keep away from: those that change,
// and with new ones, which everybody is told of, all that answer.
func concerned(p *plan.Plan) []fleet.NodeName {
	var out []fleet.NodeName
	all := len(contacts(p)) > 0
	for _, n := range p.Nodes {
		if n.Action == plan.ActionChange || n.Action == plan.ActionRestore || all && n.Action == plan.ActionNone {
			out = append(out, n.Node)
		}
	}
	return out
}

func contacts(p *plan.Plan) []fleet.NodeName {
	var out []fleet.NodeName
	for _, n := range p.Rollout {
		if n.Work == rollout.WorkContact {
			out = append(out, n.Name)
		}
	}
	return out
}

func planned(p *plan.Plan) map[fleet.NodeName]plan.NodePlan {
	nodes := make(map[fleet.NodeName]plan.NodePlan, len(p.Nodes))
	for _, n := range p.Nodes {
		nodes[n.Node] = n
	}
	return nodes
}

func (d *Deployment) packages(ctx context.Context, n plan.NodePlan) error {
	ctx, stop := context.WithTimeoutCause(ctx, packagesTimeout, errors.New("installing packages took too long"))
	defer stop()
	d.Progress.Step(string(n.Node), "installing "+strings.Join(n.Packages, ", "))
	_, err := d.target(n.Node).packages(ctx, n.Packages)
	return err
}

// images has the node pull what its containers are made of, while what runs there
// goes on.
func (d *Deployment) images(ctx context.Context, n plan.NodePlan) error {
	for i, image := range n.Images {
		d.Progress.Step(string(n.Node), fmt.Sprintf("pulling %s (%d of %d)", image, i+1, len(n.Images)))
		ctx, stop := context.WithTimeoutCause(ctx, imageTimeout, fmt.Errorf("pulling %s took too long", image))
		err := d.target(n.Node).pull(ctx, image)
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Deployment) stage(ctx context.Context, n plan.NodePlan) error {
	ctx, stop := context.WithTimeoutCause(ctx, stageTimeout, errors.New("bringing the files took too long"))
	defer stop()
	d.Progress.Step(string(n.Node), fmt.Sprintf("staging generation %d", n.To))
	tell := func(text string) {
		d.Progress.Step(string(n.Node), fmt.Sprintf("staging generation %d: %s", n.To, text))
	}
	return d.target(n.Node).stage(ctx, n.Manifest, d.opener(n), tell)
}

// opener finds content by digest, in the plan or among the binaries.
func (d *Deployment) opener(n plan.NodePlan) func(fleet.Digest) (io.ReadCloser, int64, error) {
	return func(want fleet.Digest) (io.ReadCloser, int64, error) {
		for _, hold := range []interface {
			Open(fleet.Digest) (io.ReadCloser, int64, bool)
		}{d.Binaries, d.Programs, d.Engines[nomadEngine], d.Sites} {
			if r, n, ok := hold.Open(want); ok {
				return r, n, nil
			}
		}
		i := slices.IndexFunc(n.Want, func(f fleet.File) bool { return f.Digest == want && f.Content != nil })
		if i < 0 {
			return nil, 0, fmt.Errorf("the node asks for content that nobody has: %.12s", want)
		}
		b := n.Want[i].Content
		return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
	}
}

// activate puts the generation in force and stays with it to its end. The
// node goes on by itself when the connection is lost, which a change to the
// mesh can do; then we look for it again.
func (d *Deployment) activate(ctx context.Context, n plan.NodePlan, within time.Duration) (protocol.Outcome, error) {
	ctx, stop := context.WithTimeoutCause(ctx, activateTimeout, errors.New("activation took too long"))
	defer stop()
	number := strconv.Itoa(n.To)
	d.Progress.Step(string(n.Node), "activating generation "+number)
	tell := func(text string) { d.Progress.Step(string(n.Node), "activating generation "+number+": "+text) }
	args := []string{"activate", "--confirm-within", within.String()}
	if n.Manifest.Generation > 0 {
		args = append(args, "--digest", string(protocol.DigestOf(n.Manifest)))
	}
	if d.Commit != nil {
		if commit := d.Commit(); commit != "" {
			args = append(args, "--commit", commit)
		}
	}
	out, err := d.target(n.Node).follow(ctx, tell, append(args, number)...)
	until := time.Now().Add(reattach)
	for lost(err) && ctx.Err() == nil && time.Now().Before(until) {
		d.Progress.Step(string(n.Node), "connection lost, looking for it again")
		pause(ctx, time.Second)
		out, err = d.target(n.Node).follow(ctx, tell, "wait", number)
	}
	return out, err
}

// confirm tells the node that its operator can still reach it.
func (d *Deployment) confirm(ctx context.Context, n plan.NodePlan, within time.Duration, by time.Time) error {
	ctx, stop := context.WithTimeoutCause(ctx, within+confirmSlack, errors.New("it could not be reached again after the change"))
	defer stop()
	d.Progress.Step(string(n.Node), "confirming over a fresh connection")
	err := d.target(n.Node).confirm(ctx, n.To)
	refused := false
	for lost(err) && ctx.Err() == nil {
		why := "a fresh connection is not to be had yet"
		if ssh.Denied(err) {
			refused, why = true, "a fresh connection is refused: "+string(n.Node)+" goes back by itself if that stays so"
		}
		d.Progress.Step(string(n.Node), why)
		pause(ctx, time.Second)
		again := d.target(n.Node).confirm(ctx, n.To)
		if ctx.Err() == nil { // else the attempt was cut short, and says nothing
			err = again
		}
	}
	if err == nil {
		d.Progress.Done(string(n.Node), fmt.Sprintf("generation %d", n.To))
		d.note(func(l *fleet.Lock) {
			entry := l.Node(n.Node)
			entry.Generation = n.To
			l.Put(entry)
			l.Generation = max(l.Generation, n.To)
		})
		return nil
	}
	return d.unconfirmed(ctx, n, err, refused, by)
}

// look asks nodes for the mesh as they see it.
func (d *Deployment) look(ctx context.Context, names []fleet.NodeName) map[fleet.NodeName]rollout.Seen {
	out := make(map[fleet.NodeName]rollout.Seen, len(names))
	for name, o := range d.ask(ctx, names) {
		out[name] = rollout.SeenOf(o)
	}
	return out
}

// lost says whether err is about the way to the node and not about the node.
func lost(err error) bool {
	var told *nodeError
	return err != nil && !errors.As(err, &told)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// binaryPath is where a generation has our binary.
const binaryPath = agent.BinaryPath
