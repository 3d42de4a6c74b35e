package leave

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/hint"
)

// unit is what a leave runs as: a connection over the mesh, and the session in
// it, end when the agent does.
const unit = "moggy-leave.service"

// spare is the copy of our binary that leaving runs, and that goes on where the
// machine lost power in between.
const spare = node.Dir + "/leave/moggy"

// Detach runs arguments of our own binary as a unit of its own, waits for its
// end, and returns the lines it wrote. When ctx ends, or the caller dies, the
// unit goes on.
func (m Machine) Detach(ctx context.Context, args ...string) ([]string, error) {
	if err := m.writable(); err != nil {
		return nil, err
	}
	if err := m.copySelf(); err != nil {
		return nil, fmt.Errorf("%s: %w", spare, err)
	}
	since := fmt.Sprintf("--since=@%d", m.Now().Unix())
	_, err := m.Run(ctx, nil, "systemd-run", append([]string{
		"--quiet", "--no-ask-password", "--collect", "--wait", "--unit=" + unit,
		"--description=moggy leaves this machine", "--property=OOMScoreAdjust=-900", "--", spare,
	}, args...)...)
	if ctx.Err() != nil {
		return nil, hint.New("interrupted, but it goes on by itself", "journalctl -f -u %s", unit)
	}
	m.Run(ctx, nil, "journalctl", "--sync") //nolint:errcheck // what is not in the log is not shown
	out, _ := m.Run(ctx, nil, "journalctl", "--no-pager", "--quiet", "--output=cat", since, "--unit="+unit, "_TRANSPORT=stdout")
	said, told := split(string(out))
	if err == nil {
		return said, nil
	}
	if told == nil {
		told = hint.Wrap(fmt.Errorf("leaving: %w", err), "what it says: journalctl -u %s", unit)
	}
	return said, told
}

// split takes what a moggy wrote apart: what it said, and its error.
func split(out string) (said []string, err error) {
	var text []string
	var hints []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if e, ok := strings.CutPrefix(line, "moggy: error:"); ok {
			text = append(text, strings.TrimSpace(e))
		} else if h, ok := strings.CutPrefix(line, "moggy: hint:"); ok {
			hints = append(hints, strings.TrimSpace(h))
		} else if line != "" {
			said = append(said, line)
		}
	}
	if len(text) == 0 {
		return said, nil
	}
	err = errors.New(strings.Join(text, "\n"))
	for _, h := range hints {
		err = hint.Wrap(err, "%s", h)
	}
	return said, err
}

// copySelf puts our own binary where it outlives what is removed.
func (m Machine) copySelf() error {
	to := m.real(spare)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	from, err := os.Open(m.Executable)
	if err != nil {
		return err
	}
	defer from.Close()
	if a, err := from.Stat(); err == nil {
		if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
			return nil // it is what runs
		}
	}
	part := to + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(filepath.Dir(to)))
	}
	return nil
}
