package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/lock"
	"github.com/moggyfleet/moggy/internal/hint"
)

// ErrLocked is the cause when somebody else is changing the node.
var ErrLocked = lock.ErrLocked

// Held is the node while nobody else may change it. What changes the node is
// its methods; they are not for two goroutines at once.
type Held struct {
	*Node
	lock *lock.Lock
}

// Lock makes the node ours until Release, or until the process ends however it
// may end, and sweeps away what a killed one left. What says what for. When
// somebody else has it, the error says who and since when, and is ErrLocked.
func (n *Node) Lock(ctx context.Context, what string) (*Held, error) {
	if err := n.layout(); err != nil {
		return nil, readOnlyHint(fmt.Errorf("%s: %w", Dir, err))
	}
	l, err := lock.Take(ctx, n.disk.Real(lockFile), lock.Holder{By: n.by, What: what, PID: os.Getpid(), Since: n.now()})
	if err != nil {
		return nil, readOnlyHint(err)
	}
	h := &Held{n, l}
	if err := h.recover(); err != nil {
		return nil, errors.Join(err, h.Release())
	}
	return h, nil
}

// Release gives the node up.
func (h *Held) Release() error { return h.lock.Release() }

// held says whether somebody has the lock now.
func (n *Node) held() bool { return lock.Held(n.disk.Real(lockFile)) }

// readOnlyHint explains the two commonest reasons why nothing can be written.
func readOnlyHint(err error) error {
	switch {
	case errors.Is(err, unix.EROFS):
		return hint.Wrap(err, "the file system is read-only: mount it writable, or look in dmesg why the kernel made it so")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return hint.Wrap(err, "the disk is full: df -h %s; nothing that runs was touched", Dir)
	}
	return err
}
