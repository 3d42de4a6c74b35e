package deploy

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/hint"
)

// turn is this directory's, and ours alone until free.
type turn struct {
	// session is what nodes know this directory's operator by. It outlives us: the
	// next turn has it too, and so takes over at once what a moggy that died, or
	// lost its network, holds on nodes still. That ours is the only one makes it
	// safe.
	session string
	free    func()
}

// exclusive keeps a second apply of the same user in the same directory out:
// both would write the lock, and with a fleet of new machines there is no node
// yet that could be held. The lock goes with the process that has it.
func (d *Deployment) exclusive() (turn, error) {
	if d.SSH == nil {
		return turn{rand.Text(), func() {}}, nil
	}
	f, err := os.OpenFile(filepath.Join(d.SSH.Dir(), "apply.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return turn{}, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	before := holderOf(f)
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close() // never locked
		return turn{}, hint.New("another operator is at work: "+before.String()+", from this very directory", "apply again when it is done")
	}
	if err != nil {
		f.Close()
		return turn{}, err
	}
	now := holder{By: d.By, PID: os.Getpid(), Since: time.Now(), Session: cmp.Or(before.Session, rand.Text())}
	b, err := json.Marshal(now)
	if err == nil && f.Truncate(0) == nil {
		f.WriteAt(b, 0) //nolint:errcheck // without, the next waits until nodes are free by themselves
	}
	return turn{now.Session, func() { f.Close() }}, nil
}

// holder is what the lock's file says of who has it, or had it last.
type holder struct {
	By      string    `json:"by"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Session string    `json:"session"`
}

// holderOf reads the file; what cannot be read says nothing.
func holderOf(f io.Reader) (h holder) {
	if b, err := io.ReadAll(io.LimitReader(f, 4096)); err != nil || json.Unmarshal(b, &h) != nil {
		return holder{}
	}
	return h
}

func (h holder) String() string {
	if h.By == "" {
		return "somebody"
	}
	return fmt.Sprintf("%s (process %d) since %s", h.By, h.PID, h.Since.UTC().Format(time.RFC3339))
}
