package deploy

import (
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

// exclusive keeps a second apply of the same user in the same directory out:
// both would write the lock, and with a fleet of new machines there is no node
// yet that could be held. The lock goes with the process that has it.
func (d *Deployment) exclusive() (free func(), err error) {
	if d.SSH == nil {
		return func() {}, nil
	}
	f, err := os.OpenFile(filepath.Join(d.SSH.Dir(), "apply.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close() // never locked
		return nil, hint.New("another operator is at work: "+holderOf(f)+", from this very directory", "apply again when it is done")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	b, err := json.Marshal(holder{d.By, os.Getpid(), time.Now()})
	if err == nil && f.Truncate(0) == nil {
		f.WriteAt(b, 0) //nolint:errcheck // it only says who
	}
	return func() { f.Close() }, nil
}

type holder struct {
	By    string    `json:"by"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

func holderOf(f io.Reader) string {
	var h holder
	if b, err := io.ReadAll(io.LimitReader(f, 4096)); err != nil || json.Unmarshal(b, &h) != nil || h.By == "" {
		return "somebody"
	}
	return fmt.Sprintf("%s (process %d) since %s", h.By, h.PID, h.Since.UTC().Format(time.RFC3339))
}
