package command

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	if _, err := Run(t.Context(), nil, "moggy-no-such-command"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such command: %v", err)
	}
	out, err := Run(t.Context(), []string{"X=y"}, "sh", "-c", "echo $X $LC_ALL")
	if err != nil || string(out) != "y C\n" {
		t.Errorf("%q, %v", out, err)
	}
	_, err = Run(t.Context(), nil, "sh", "-c", "echo one; echo two >&2; echo three >&2; exit 3")
	if err == nil || !strings.HasSuffix(err.Error(), "exit status 3: two; three") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, nil, "sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that does not end: %v", err)
	}
}
