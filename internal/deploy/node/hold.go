package node

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/lock"
)

// holdFile keeps operators apart for the length of an apply. It guards nothing
// by itself: the lock in our directory does, step by step.
const holdFile = runDir + "/hold.lock"

// HoldPatience is how long an operator who holds a node may be silent.
const HoldPatience = 20 * time.Second

// Hold keeps other operators from holding the node while in gives a line at
// least every patience. It says once that it has the node; it ends, and the
// node is free, when in ends, is silent, or the process dies. Where somebody
// else holds the node the error is ErrLocked and says who, and since when; but a
// hold of the same session, whose connection was lost, makes way for this one.
func (n *Node) Hold(ctx context.Context, what, session string, patience time.Duration, in io.Reader, has func() error) error {
	if err := n.Reports().Make(); err != nil {
		return err
	}
	l, err := lock.Take(ctx, n.disk.Real(holdFile), lock.Holder{
		By: n.by, What: what, Since: n.now(), Session: session, Keeper: os.Getpid(),
	})
	if err != nil {
		return err
	}
	return errors.Join(lock.Heard(ctx, patience, in, has), l.Release())
}
