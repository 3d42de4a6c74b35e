package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/command"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Systemctl is the real Manager, through systemctl(1), journalctl(1) and
// systemd-run(1): the interfaces that are the same on every distribution.
type Systemctl struct {
	Run command.Runner
}

var _ Manager = Systemctl{}

// DaemonReload runs systemctl daemon-reload.
func (s Systemctl) DaemonReload(ctx context.Context) error {
	_, err := s.Run(ctx, nil, "systemctl", "daemon-reload")
	return err
}

// Do runs systemctl with the verb, and without its advice: it says of every
// unit behind a link that its file has changed. What failed or crashed before is forgotten
// first, or systemd would refuse to start it too often.
func (s Systemctl) Do(ctx context.Context, verb Verb, units ...string) error {
	if len(units) == 0 {
		return nil
	}
	if verb == Start || verb == Restart {
		s.Run(ctx, nil, "systemctl", append([]string{"reset-failed", "--"}, units...)...) //nolint:errcheck // units that systemd has not loaded yet have nothing to forget
	}
	_, err := s.Run(ctx, nil, "systemctl", append([]string{string(verb), "--no-ask-password", "--quiet", "--"}, units...)...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok { // for people: without our flags
		_, said, _ := strings.Cut(err.Error(), exit.Error())
		return fmt.Errorf("systemctl %s %s: %w%s", verb, strings.Join(units, " "), exit, said)
	}
	return err
}

// Queue runs systemctl with --no-block.
func (s Systemctl) Queue(ctx context.Context, verb Verb, units ...string) error {
	if len(units) == 0 {
		return nil
	}
	_, err := s.Run(ctx, nil, "systemctl", append([]string{string(verb), "--no-block", "--no-ask-password", "--"}, units...)...)
	return err
}

// Show runs systemctl show.
func (s Systemctl) Show(ctx context.Context, units ...string) ([]Status, error) {
	if len(units) == 0 {
		return nil, nil
	}
	args := append([]string{
		"show", "--property=LoadState,ActiveState,SubState,Type,Result,NRestarts,ActiveEnterTimestampMonotonic", "--",
	}, units...)
	out, err := s.Run(ctx, nil, "systemctl", args...)
	if err != nil {
		return nil, err
	}
	blocks := strings.Split(strings.TrimRight(string(out), "\n"), "\n\n")
	if len(blocks) != len(units) {
		return nil, fmt.Errorf("systemctl show: asked for %d units, got %d", len(units), len(blocks))
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, err
	}
	states := make([]Status, len(units))
	for i, b := range blocks {
		states[i] = parseShow(units[i], b, time.Duration(now.Nano()))
	}
	return states, nil
}

// parseShow reads the properties of one unit. Now is on the monotonic clock.
func parseShow(name, block string, now time.Duration) Status {
	u := Status{Name: name}
	var since time.Duration
	for line := range strings.Lines(block) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "LoadState":
			u.Load = value
		case "ActiveState":
			u.Active = value
		case "SubState":
			u.Sub = value
		case "Type":
			u.Type = value
		case "Result":
			u.Result = value
		case "NRestarts":
			u.Restarts, _ = strconv.Atoi(value) // "[not set]" is none
		case "ActiveEnterTimestampMonotonic":
			us, _ := strconv.ParseInt(value, 10, 64) // "" is never
			since = time.Duration(us) * time.Microsecond
		}
	}
	if since > 0 && (u.Active == "active" || u.Active == "reloading") {
		u.ActiveFor = max(now-since, 1)
	}
	return u
}

// Log runs journalctl. The journal knows a unit by its own name, not by others
// that lead to it: on Debian sshd.service is ssh.service.
func (s Systemctl) Log(ctx context.Context, unit string, lines int) []string {
	if id, err := s.Run(ctx, nil, "systemctl", "show", "--property=Id", "--value", "--", unit); err == nil && len(bytes.TrimSpace(id)) > 0 {
		unit = string(bytes.TrimSpace(id))
	}
	out, err := s.Run(ctx, nil, "journalctl", "--no-pager", "--quiet", "--output=cat",
		"--lines="+strconv.Itoa(lines), "--unit="+unit)
	if err != nil {
		return nil
	}
	return command.LastLines(out, lines)
}

// Launch runs systemd-run. The unit is collected when it ends, so that the
// same name can be used again. Any exit code is an
// end; a signal or a dump of core is none (systemd.service(5), on-abnormal).
func (s Systemctl) Launch(ctx context.Context, unit string, command ...string) error {
	args := append([]string{
		"--quiet", "--no-ask-password", "--collect", "--unit=" + unit,
		"--description=moggy puts a generation in force",
		"--property=Type=exec", "--property=OOMScoreAdjust=-900",
		"--property=Restart=on-abnormal", "--property=RestartSec=200ms",
		"--property=StartLimitIntervalSec=300", "--property=StartLimitBurst=30", "--",
	}, command...)
	_, err := s.Run(ctx, nil, "systemd-run", args...)
	if errors.Is(err, fs.ErrNotExist) {
		return hint.Wrap(err, "moggy needs systemd on its nodes")
	}
	return err
}
