package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan"
)

// backSlack is how much longer than its deadline a node may take until it is
// seen on the generation before: its units have to start.
const backSlack = 25 * time.Second

// known are the nodes of the file that have a key.
func (d *Deployment) known() []fleet.NodeName {
	var out []fleet.NodeName
	for _, l := range d.Lock().Nodes {
		if _, listed := d.Fleet.Node(l.Name); listed && !l.MeshKey.IsZero() {
			out = append(out, l.Name)
		}
	}
	return out
}

// ask observes nodes side by side; one that does not answer has a nil.
func (d *Deployment) ask(ctx context.Context, names []fleet.NodeName) map[fleet.NodeName]*fleet.Observed {
	out := make(map[fleet.NodeName]*fleet.Observed, len(names))
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, name := range names {
		wg.Go(func() {
			ctx, stop := context.WithTimeout(ctx, lookTimeout)
			defer stop()
			o, err := d.target(name).observe(ctx)
			if err != nil {
				o = nil
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = o
		})
	}
	wg.Wait()
	return out
}

// Ask asks one node how it is.
func (d *Deployment) Ask(ctx context.Context, name fleet.NodeName) (*fleet.Observed, error) {
	ctx, stop := context.WithTimeoutCause(ctx, lookTimeout, fmt.Errorf("no answer within %s", lookTimeout))
	defer stop()
	return d.target(name).observe(ctx)
}

// watch looks at a node that waits for its confirmation, and says whether it
// went back. One that does not answer is asked again later: what matters then
// is whether it can be confirmed.
func (d *Deployment) watch(ctx context.Context, n plan.NodePlan) (back bool, err error) {
	o := d.ask(ctx, []fleet.NodeName{n.Node})[n.Node]
	if o == nil {
		return false, nil
	}
	if o.Current.Number != n.To {
		return true, d.wentBack(ctx, n, o.Current.Number)
	}
	i := slices.IndexFunc(o.Units, func(u fleet.UnitState) bool { return u.Active == "failed" })
	if i >= 0 {
		return false, fmt.Errorf("%s failed while it was watched", o.Units[i].Name)
	}
	return false, nil
}

// await waits until the node is seen to have gone back, and says whether it
// was.
func (d *Deployment) await(ctx context.Context, n plan.NodePlan, within time.Duration) bool {
	ctx, stop := context.WithTimeout(ctx, max(within, 0)+backSlack)
	defer stop()
	for ctx.Err() == nil {
		if o := d.ask(ctx, []fleet.NodeName{n.Node})[n.Node]; o != nil && o.Current.Number != n.To && o.Activation == nil {
			return true
		}
		pause(ctx, 2*time.Second)
	}
	return false
}

// backError is a node that returned to the generation before by itself.
type backError struct{ error }

func (e *backError) Unwrap() error { return e.error }

func wentBack(err error) bool {
	var back *backError
	return errors.As(err, &back)
}

// wentBack says why a node went back, by its own history.
func (d *Deployment) wentBack(ctx context.Context, n plan.NodePlan, to int) error {
	err := fmt.Errorf("it went back from generation %d to %d", n.To, to)
	ctx, stop := context.WithTimeout(ctx, lookTimeout)
	defer stop()
	if h, herr := ask[protocol.History](ctx, d.target(n.Node), nil, "history"); herr == nil {
		for _, t := range slices.Backward(h.Turns) {
			if t.Kind == fleet.TurnWentBack && t.From == n.To && t.Why != "" {
				err = fmt.Errorf("%w: %s", err, t.Why)
				break
			}
		}
	}
	return &backError{hint.Wrap(err, "moggy history %s; moggy doctor %s", n.Node, n.Node)}
}

const keyGone = "a fresh connection is refused, which this very change may have caused by removing your key"

// unconfirmed explains why a generation could not be confirmed. refused says
// that the node let nobody in for a while.
func (d *Deployment) unconfirmed(ctx context.Context, n plan.NodePlan, err error, refused bool, by time.Time) error {
	until := ""
	if !by.IsZero() {
		until = " at " + by.UTC().Format(time.TimeOnly) + " UTC, by its clock"
	}
	if !lost(err) {
		// It answered, so it can say where it stands.
		ctx := context.WithoutCancel(ctx) // the deadline of confirming may have just passed
		if o := d.ask(ctx, []fleet.NodeName{n.Node})[n.Node]; o != nil && o.Current.Number != n.To {
			err = d.wentBack(ctx, n, o.Current.Number)
			if refused {
				err = fmt.Errorf("%s: %w", keyGone, err)
			}
			return err
		}
		return fmt.Errorf("generation %d is in force, but unconfirmed: %w", n.To, err)
	}
	if ssh.Denied(err) {
		err = fmt.Errorf("%s: %w", keyGone, err)
	}
	err = fmt.Errorf("generation %d is unconfirmed: %w", n.To, err)
	if n.From == 0 || n.From == n.To {
		return hint.Wrap(err, "moggy doctor %s; then apply again", n.Node)
	}
	return hint.Wrap(err, "%s goes back to generation %d by itself%s; then apply again", n.Node, n.From, until)
}
