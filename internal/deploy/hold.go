package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Times of holding nodes.
const (
	holdBeat    = 5 * time.Second  // a line to each node, so that it knows us alive
	holdTimeout = 20 * time.Second // until a node says that it is held
)

// holds keeps other operators away from nodes while a rollout is under way:
// `moggy node hold` on each, for as long as it hears from us. When we die, each
// is free within 20 s, and for our next turn at once.
type holds struct {
	ctx  context.Context
	end  context.CancelFunc
	wait sync.WaitGroup
	lost chan error // a node that somebody else took when we had lost it
	// session is what a node knows us by when we come back after a lost
	// connection, or a death, that its end may not have noticed yet.
	session string
	have    map[fleet.NodeName]bool
}

// hold holds all of the nodes, or none. The first is held before the others, so
// that of two operators who come at once one is told at the door.
func (d *Deployment) hold(ctx context.Context, session string, names []fleet.NodeName) (*holds, error) {
	h := &holds{lost: make(chan error, 1), have: make(map[fleet.NodeName]bool), session: session}
	h.ctx, h.end = context.WithCancel(context.WithoutCancel(ctx))
	if err := h.add(ctx, d, names); err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

// add holds more nodes. What was held stays so, whatever comes of them.
func (h *holds) add(ctx context.Context, d *Deployment, names []fleet.NodeName) error {
	var more []fleet.NodeName
	for _, n := range names {
		if !h.have[n] {
			h.have[n] = true
			more = append(more, n)
		}
	}
	if len(more) == 0 {
		return nil
	}
	if err := h.take(ctx, d, more[:1]); err != nil {
		return err
	}
	return h.take(ctx, d, more[1:])
}

func (h *holds) take(ctx context.Context, d *Deployment, names []fleet.NodeName) error {
	failed := Failed{}
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, name := range names {
		asked.Go(func() {
			answer := make(chan error, 1)
			h.wait.Go(func() { h.keep(d, name, answer) })
			timeout := time.NewTimer(holdTimeout)
			defer timeout.Stop()
			var err error
			select {
			case err = <-answer:
			case <-timeout.C:
				err = fmt.Errorf("no answer within %s", holdTimeout)
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[name] = busy(ssh.Explain(name, d.user(name), err))
			}
		})
	}
	asked.Wait()
	return gather(failed)
}

// busy adds to a refusal what its reader can do.
func busy(err error) error {
	if !taken(err) {
		return err
	}
	return hint.Wrap(fmt.Errorf("another operator is at work: %w", err),
		"where its holder died, the node is free within 20 s")
}

var errNotHeld = errors.New("it does not say that it is held: its moggy may be too old for that")

// taken says whether the node was refused because somebody else has it.
func taken(err error) bool {
	var told *nodeError
	return errors.As(err, &told) && told.code == protocol.ExitLocked
}

// keep holds one node until the end, also across a lost connection, and a
// laptop that slept. answer gets the first outcome.
func (h *holds) keep(d *Deployment, name fleet.NodeName, answer chan<- error) {
	first := true
	for h.ctx.Err() == nil {
		err := d.target(name).hold(h.ctx, h.session, func() {
			if first {
				first = false
				answer <- nil
			}
		})
		if h.ctx.Err() != nil {
			return
		}
		if first {
			if err == nil || errors.Is(err, exec.ErrWaitDelay) { // one that does not know the command shows its help
				err = errNotHeld
			}
			answer <- err
			return
		}
		if taken(err) {
			select {
			case h.lost <- fmt.Errorf("%s: it was lost, and somebody else took it: %w", name, err):
			default: // one is enough to stop
			}
			return
		}
		pause(h.ctx, time.Second)
	}
}

// release frees what is held.
func (h *holds) release() {
	h.end()
	h.wait.Wait()
}

// hold runs until ctx ends, or the connection. held is called once the node
// says that it is.
func (t target) hold(ctx context.Context, session string, held func()) error {
	r, w := io.Pipe()
	defer r.Close()
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() {
		defer w.Close() // which the node takes for the end
		beat := time.NewTicker(holdBeat)
		defer beat.Stop()
		for {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return
			}
			select {
			case <-beat.C:
			case <-running.Done():
				return
			case <-ctx.Done():
				// The node ends by itself at the end of its input; not to wait for one
				// that is away, it is cut off.
				time.AfterFunc(holdGrace, stop)
				return
			}
		}
	}()
	return said(t.run.Run(running, t.node, ssh.Command{Args: t.command("hold", "--session", session), Stdin: r, Stdout: &firstLine{told: func(line []byte) {
		if _, err := protocol.Decode[protocol.Done](line); err == nil {
			held()
		}
	}}}))
}

// holdGrace is how long a node has to let go before its connection is cut.
const holdGrace = 2 * time.Second

// firstLine hands on the first line written to it.
type firstLine struct {
	b    []byte
	told func([]byte)
	done bool
}

func (f *firstLine) Write(p []byte) (int, error) {
	if f.done {
		return len(p), nil
	}
	f.b = append(f.b, p...)
	if i := bytes.IndexByte(f.b, '\n'); i >= 0 {
		f.done = true
		f.told(f.b[:i])
	}
	return len(p), nil
}
