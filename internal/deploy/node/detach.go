package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/hint"
)

// An activation may cut the connection it was asked for over, when it restarts
// the agent or sshd. So it runs as a unit of its own, and whoever asked follows
// its report:
//
//	moggy node activate 42 ──Launch──▶ moggy-activate-42.service
//	        │                                  │ Reporter
//	        └──Follow── /run/moggy-node/42.20261122T124000Z-1f0c.jsonl

// ReportID names the report of one activation.
type ReportID string

func unitName(generation int) string { return fmt.Sprintf("moggy-activate-%d.service", generation) }

func (n *Node) newReport(generation int) ReportID {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return ReportID(fmt.Sprintf("%d.%s-%s", generation, n.now().UTC().Format("20060102T150405.000Z"), hex.EncodeToString(b[:])))
}

func (n *Node) reportPath(id ReportID) string {
	return n.disk.Real(filepath.Join(reportsDir, filepath.Base(string(id))+".jsonl"))
}

// lastReport is the newest report of a generation's activations.
func (n *Node) lastReport(generation int) (ReportID, bool) {
	all, err := filepath.Glob(n.disk.Real(filepath.Join(reportsDir, strconv.Itoa(generation)+".*.jsonl")))
	if err != nil || len(all) == 0 {
		return "", false
	}
	newest := slices.MaxFunc(all, func(a, b string) int { return modTime(a).Compare(modTime(b)) })
	return ReportID(strings.TrimSuffix(filepath.Base(newest), ".jsonl")), true
}

func modTime(path string) time.Time {
	st, err := os.Lstat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// Detach starts a command as a unit of its own, to activate the generation and
// report under the name it is given; or finds the one that does so already. It
// returns the report to follow.
func (n *Node) Detach(ctx context.Context, generation int, command func(ReportID) []string) (ReportID, error) {
	unit := unitName(generation)
	if id, ok := n.reporting(ctx, unit, generation); ok {
		return id, nil
	}
	h, err := n.Lock(ctx, fmt.Sprintf("activate %d", generation)) // who has it says so here better than in a log
	if err != nil {
		return "", err
	}
	if _, err = h.manifest(generation); err == nil {
		err = h.pruneReports()
	}
	if err := errors.Join(err, h.Release()); err != nil {
		return "", err
	}
	// The report is there before its writer, so that whoever comes next follows
	// this one and not one of an earlier activation.
	id := n.newReport(generation)
	f, err := n.openReport(id)
	if err != nil {
		return "", err
	}
	f.Close()
	err = n.systemd.Launch(ctx, unit, command(id)...)
	if err == nil {
		return id, nil
	}
	os.Remove(n.reportPath(id))
	if id, ok := n.reporting(ctx, unit, generation); ok {
		return id, nil // somebody else was faster
	}
	return "", fmt.Errorf("activate %d: %w", generation, err)
}

// reporting is the report of an activation that runs.
func (n *Node) reporting(ctx context.Context, unit string, generation int) (ReportID, bool) {
	if running, err := n.activating(ctx, unit); err != nil || !running {
		return "", false
	}
	return n.lastReport(generation)
}

func (n *Node) activating(ctx context.Context, unit string) (bool, error) {
	states, err := n.systemd.Show(ctx, unit)
	if err != nil {
		return false, err
	}
	return states[0].Active == "active" || states[0].Active == "activating" || states[0].Active == "deactivating", nil
}

// keptReports is how many reports stay until the next reboot.
const keptReports = 20

func (h *Held) pruneReports() error {
	reports, err := filepath.Glob(h.disk.Real(reportsDir + "/*.jsonl"))
	if err != nil {
		return err
	}
	slices.SortFunc(reports, func(a, b string) int { return modTime(b).Compare(modTime(a)) })
	for _, r := range reports[min(len(reports), keptReports):] {
		if err := os.Remove(r); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Reporter opens a report for writing. What is given to it is a line in the
// report at once; a line that cannot be written is lost, which stops nothing.
func (n *Node) Reporter(id ReportID) (report func(protocol.Event), closeReport func() error, err error) {
	f, err := n.openReport(id)
	if err != nil {
		return nil, nil, err
	}
	return func(e protocol.Event) {
		if b, err := json.Marshal(e); err == nil {
			f.Write(append(b, '\n')) //nolint:errcheck // see above
		}
	}, f.Close, nil
}

func (n *Node) openReport(id ReportID) (*os.File, error) {
	if err := n.disk.Mkdir(reportsDir, 0o700); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	f, err := os.OpenFile(n.reportPath(id), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return f, nil
}

// End is the event that ends a report.
func (n *Node) End(out protocol.Outcome, err error) protocol.Event {
	if err != nil {
		out.Error, out.Hints = err.Error(), hint.All(err)
	}
	return protocol.Event{Hello: protocol.Hello{Protocol: protocol.Version}, At: n.now(), End: &out}
}

// LastReport is the report to follow of an activation that runs or ran here
// since the machine started.
func (n *Node) LastReport(generation int) (ReportID, error) {
	id, ok := n.lastReport(generation)
	if !ok {
		return "", hint.New(fmt.Sprintf("wait: no activation of generation %d since this machine started", generation),
			"moggy status shows where the node stands")
	}
	return id, nil
}

// followEvery is how often a report is looked at, and aliveEvery how often,
// when it has nothing new, whether its writer lives.
const (
	followEvery = 50 * time.Millisecond
	aliveEvery  = time.Second
)

// Follow hands on each line of a report until the one that ends it. The error
// is that of following: the outcome says how the activation went.
func (n *Node) Follow(ctx context.Context, generation int, id ReportID, line func([]byte) error) (protocol.Outcome, error) {
	again := time.NewTicker(followEvery)
	defer again.Stop()
	var tail tail
	lastChance := false
	for quiet := time.Duration(0); ; quiet += followEvery {
		lines, err := tail.read(n.reportPath(id))
		if err != nil {
			return protocol.Outcome{}, err
		}
		for _, l := range lines {
			if err := line(l); err != nil {
				return protocol.Outcome{}, err
			}
			if e, err := protocol.Decode[protocol.Event](l); err == nil && e.End != nil {
				return *e.End, nil
			}
			quiet = 0
		}
		if lastChance {
			return protocol.Outcome{}, n.silent(ctx, generation)
		}
		if quiet >= aliveEvery {
			alive, err := n.activating(ctx, unitName(generation))
			if err != nil {
				return protocol.Outcome{}, err
			}
			lastChance, quiet = !alive, 0 // what it wrote last may have come since
			continue
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return protocol.Outcome{}, fmt.Errorf("the activation goes on: %w", ctx.Err())
		}
	}
}

// silent is the error of an activation that ended without a word.
func (n *Node) silent(ctx context.Context, generation int) error {
	err := fmt.Errorf("generation %d: its activation was killed", generation)
	if p := n.pending(); p != nil {
		err = fmt.Errorf("%w at %s", err, p.Step)
	}
	if log := n.systemd.Log(ctx, unitName(generation), logLines); len(log) > 0 {
		err = hint.Wrap(err, "its last lines:\n    %s", strings.Join(log, "\n    "))
	}
	return hint.Wrap(err, "moggy apply finishes it")
}

// tail reads a growing file line by line.
type tail struct {
	at   int64
	part []byte
}

// read returns the lines that are whole since the last time. A file that is not
// there yet has none.
func (t *tail) read(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, t.at, 1<<20))
	if err != nil {
		return nil, err
	}
	t.at += int64(len(b))
	t.part = append(t.part, b...)
	var lines [][]byte
	for {
		line, rest, whole := bytes.Cut(t.part, []byte("\n"))
		if !whole {
			return lines, nil
		}
		lines, t.part = append(lines, bytes.Clone(line)), rest
	}
}
