package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/hint"
)

// ErrLocked is the cause when somebody else is changing the node.
var ErrLocked = errors.New("somebody else is at work on this node")

// lockPatience bounds the wait for a lock that is only looked at: whoever asks
// whether it is held holds it for that instant.
const lockPatience = 500 * time.Millisecond

// Held is the node while nobody else may change it. What changes the node is
// its methods; they are not for two goroutines at once.
type Held struct {
	*Node
	lock *os.File
}

// holder is what the lock file says of who holds it.
type holder struct {
	By    string    `json:"by"`
	What  string    `json:"what"` // "stage", "activate 42"
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

// Lock makes the node ours until Release, or until the process ends however it
// may end, and sweeps away what a killed one left. What says what for. When
// somebody else has it, the error says who and since when, and is ErrLocked.
func (n *Node) Lock(ctx context.Context, what string) (*Held, error) {
	if err := n.layout(); err != nil {
		return nil, readOnlyHint(fmt.Errorf("%s: %w", Dir, err))
	}
	f, err := os.OpenFile(n.disk.Real(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, readOnlyHint(fmt.Errorf("lock: %w", err))
	}
	if err := flock(ctx, f); err != nil {
		defer f.Close() // never locked
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, lockedBy(f)
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	h := &Held{n, f}
	h.sign(holder{n.by, what, os.Getpid(), n.now()})
	if err := h.recover(); err != nil {
		return nil, errors.Join(err, h.Release())
	}
	return h, nil
}

// Release gives the node up.
func (h *Held) Release() error {
	return errors.Join(h.lock.Truncate(0), h.lock.Close())
}

// sign says in the lock file who holds it. On a full disk it cannot, and the
// lock is as good without.
func (h *Held) sign(who holder) {
	b, err := json.Marshal(who)
	if err == nil && h.lock.Truncate(0) == nil {
		h.lock.WriteAt(b, 0) //nolint:errcheck // see above
	}
}

func flock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-again.C:
		}
	}
}

// lockedBy is the error that says who has the lock.
func lockedBy(f *os.File) error {
	var who holder
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil || json.Unmarshal(b, &who) != nil || who.By == "" {
		who.By = "somebody"
	}
	said := who.By
	if who.What != "" {
		said += fmt.Sprintf(" (%s, process %d)", who.What, who.PID)
	}
	if !who.Since.IsZero() {
		said += " since " + who.Since.UTC().Format(time.RFC3339)
	}
	return hint.Wrap(fmt.Errorf("locked by %s: %w", said, ErrLocked),
		"try again when it is done: the lock goes with the process that holds it")
}

// held says whether somebody has the lock now.
func (n *Node) held() bool {
	f, err := os.Open(n.disk.Real(lockFile))
	if err != nil {
		return false
	}
	defer f.Close() // gives the lock up, if it was got
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

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
