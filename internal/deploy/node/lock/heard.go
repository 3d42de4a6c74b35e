package lock

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"
)

// Heard says once that the lock is had, and returns when in has ended, or gave
// no line for that long. The goroutine
// that reads it stays until its process ends: nothing else stops a read.
func Heard(ctx context.Context, within time.Duration, in io.Reader, has func() error) error {
	if err := has(); err != nil {
		return err
	}
	lines := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for r := bufio.NewReaderSize(in, 256); ; {
			if _, err := r.ReadSlice('\n'); err != nil {
				return // a line that long is no sign of life either
			}
			select {
			case lines <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	silent := time.NewTimer(within)
	defer silent.Stop()
	for {
		select {
		case <-lines:
			silent.Reset(within)
		case <-gone:
			return nil
		case <-silent.C:
			return fmt.Errorf("hold: nothing was heard of the operator for %s", within)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
