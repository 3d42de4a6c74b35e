package report

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// holdAt is where a drill stops an activation: the file names a step, "back"
// and a step for the way back, "stage", "confirm" or "probation". Nothing goes
// on from there until the file is gone or names another. Only root can put
// it there.
const holdAt = "hold-at"

// Pause waits where a drill wants it to; said is told once that it does.
func (d Dir) Pause(ctx context.Context, at string, said func(string)) error {
	held := func() bool {
		b, err := os.ReadFile(filepath.Join(string(d), holdAt))
		return err == nil && strings.TrimSpace(string(b)) == at
	}
	if !held() {
		return nil
	}
	said("waits at " + at + " until " + filepath.Join(string(d), holdAt) + " is gone")
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for held() {
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
