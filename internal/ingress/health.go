package ingress

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/ingress/probe"
	"github.com/moggyfleet/moggy/internal/ingress/table"
)

// now is the time; table and others take it as a value.
func now() time.Time { return time.Now() }

var errLost = errors.New("the backend fell silent")

// lost ends when a backend falls silent, and with it the requests that wait for it.
type lost struct {
	ctx context.Context
	end context.CancelCauseFunc
}

func (in *Ingress) lifeLocked(b *table.Backend) *lost {
	l := in.lost[b]
	if l == nil {
		ctx, end := context.WithCancelCause(context.Background())
		l = &lost{ctx, end}
		in.lost[b] = l
	}
	return l
}

// out is told of a backend that is out. Requests that wait for one that fell silent
// turn to another, if there is one; those of one that only takes no new ones, as one
// that is being stopped, are left to end.
func (in *Ingress) out(b *table.Backend, o table.Outcome, why string) {
	in.log.Warn("backend out", fieldService, b.Service, fieldNode, b.Node, fieldAddress, b.Address, fieldWhy, why)
	if o != table.Failed {
		return
	}
	in.mu.Lock()
	l, others := in.lost[b], in.table.Others(b)
	if l != nil && others {
		delete(in.lost, b)
	}
	in.mu.Unlock()
	if l != nil && others {
		l.end(errLost)
	}
	// What is idle leads to a machine that may be gone; a request that cannot be
	// repeated must not find that out.
	if closers := in.idle.Load(); closers != nil {
		for _, c := range *closers {
			c()
		}
	}
}

func (in *Ingress) addIdle(c func()) {
	var all []func()
	if have := in.idle.Load(); have != nil {
		all = append(all, *have...)
	}
	all = append(all, c)
	if len(all) > 2 { // those of the configuration before
		all = all[len(all)-2:]
	}
	in.idle.Store(&all)
}

// probe asks backends, each when it is due, until ctx is done.
func (in *Ingress) probe(ctx context.Context) error {
	prober := probe.New()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-in.wake:
		}
		in.mu.Lock()
		due, next := in.table.Due(now(), rand.Float64)
		in.forgetLocked()
		in.mu.Unlock()
		for _, b := range due {
			go in.ask(ctx, prober, b)
		}
		timer.Reset(time.Until(next))
	}
}

// forgetLocked drops what is known of backends that left the table.
func (in *Ingress) forgetLocked() {
	for b := range in.lost {
		if !in.table.Has(b) {
			delete(in.lost, b)
		}
	}
}

func (in *Ingress) ask(ctx context.Context, prober *probe.Prober, b *table.Backend) {
	in.mu.Lock()
	kind, path := in.table.Question(b)
	in.mu.Unlock()
	o, why := prober.Ask(ctx, kind, b.Address, path)
	if ctx.Err() != nil {
		return
	}
	in.mu.Lock()
	changed := in.table.Probed(b, o, why, now())
	up := b.State == fleet.BackendUp
	in.mu.Unlock()
	switch {
	case changed && up:
		in.log.Info("backend in", fieldService, b.Service, fieldNode, b.Node, fieldAddress, b.Address)
	case changed:
		in.out(b, o, why)
	}
	if o != table.Answered || changed {
		poke(in.wake) // it is asked again soon
	}
}
