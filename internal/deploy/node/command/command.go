// Package command runs the machine's own commands. What they are for is their
// callers' business.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"time"
)

// Runner runs a command of the machine's to its end and returns what it wrote
// to stdout. Env is added to our own environment. The error has the last of
// what it wrote to stderr; it is fs.ErrNotExist where there is no such command.
type Runner func(ctx context.Context, env []string, name string, args ...string) (stdout []byte, err error)

// Run is the real Runner. The command speaks English, whatever the
// machine's language, because its words are read.
func Run(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(append(cmd.Environ(), "LC_ALL=C"), env...)
	cmd.WaitDelay = 2 * time.Second // for pipes that a grandchild holds open
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	case ctx.Err() != nil && err != nil:
		return out, fmt.Errorf("%s: %w", name, ctx.Err())
	case err != nil:
		said := LastLines(append(out, stderr.Bytes()...), 4)
		if stderr.Len() > 0 {
			said = LastLines(stderr.Bytes(), 4)
		}
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
		if len(said) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.Join(said, "; "))
		}
		return out, err
	}
	return out, nil
}

// LastLines are the last lines that have something on them.
func LastLines(b []byte, most int) []string {
	var out []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out[max(0, len(out)-most):]
}
