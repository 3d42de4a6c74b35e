// Package lock keeps others out, and tells them who is in: a file lock that
// names its holder and goes with the holder's process, however that ends. What
// it guards is its users' business.
package lock

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

// ErrLocked is the cause when somebody else has the lock.
var ErrLocked = errors.New("somebody else is at work on this node")

// patience bounds the wait for a lock that is only looked at: whoever asks
// whether it is held holds it for that instant.
const patience = 500 * time.Millisecond

// Holder is what the lock's file says of who holds it.
type Holder struct {
	By    string    `json:"by"`
	What  string    `json:"what"` // "stage", "activate 42"
	PID   int       `json:"pid,omitempty"`
	Since time.Time `json:"since"`
	// Session names whoever may take the lock over from Keeper, a process that
	// has lost him: the same one, back over another connection. "" is nobody.
	Session string `json:"session,omitempty"`
	Keeper  int    `json:"keeper,omitempty"`
}

// Lock is a lock that we have.
type Lock struct{ file *os.File }

// Take takes the lock at path until Release, or until the process ends. When
// somebody else has it, the error says who and since when, and is ErrLocked. A
// keeper of the same session is ended first.
func Take(ctx context.Context, path string, who Holder) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = flock(ctx, f)
	if errors.Is(err, unix.EWOULDBLOCK) && dismiss(f, who) {
		err = flock(ctx, f)
	}
	if err != nil {
		defer f.Close() // never locked
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, lockedBy(f)
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	l := &Lock{f}
	l.sign(who)
	return l, nil
}

// dismiss ends the keeper of the lock if it keeps it for the same session.
func dismiss(f *os.File, who Holder) bool {
	had, ok := holder(f)
	return ok && who.Session != "" && had.Session == who.Session && had.Keeper > 1 &&
		unix.Kill(had.Keeper, unix.SIGTERM) == nil
}

// holder reads who has the lock.
func holder(f *os.File) (who Holder, ok bool) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	ok = err == nil && json.Unmarshal(b, &who) == nil && who.By != ""
	return who, ok
}

// Release gives the lock up.
func (l *Lock) Release() error {
	return errors.Join(l.file.Truncate(0), l.file.Close())
}

// sign says in the file who holds the lock. On a full disk it cannot, and the
// lock is as good without.
func (l *Lock) sign(who Holder) {
	b, err := json.Marshal(who)
	if err == nil && l.file.Truncate(0) == nil {
		l.file.WriteAt(b, 0) //nolint:errcheck // see above
	}
}

func flock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
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
	who, ok := holder(f)
	if !ok {
		who.By = "somebody"
	}
	said := who.By
	switch {
	case who.What != "" && who.PID != 0:
		said += fmt.Sprintf(" (%s, process %d)", who.What, who.PID)
	case who.What != "":
		said += " (" + who.What + ")"
	}
	if !who.Since.IsZero() {
		said += " since " + who.Since.UTC().Format(time.RFC3339)
	}
	return hint.Wrap(fmt.Errorf("locked by %s: %w", said, ErrLocked),
		"try again when it is done: the lock goes with the process that holds it")
}

// Held says whether somebody has the lock at path now.
func Held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // gives the lock up, if it was got
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
