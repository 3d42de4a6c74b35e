package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
)

// ErrSilent is the error of a report whose writer is dead and has not ended it.
var ErrSilent = errors.New("the report ended without a word")

// lookEvery is how often a report is looked at, and aliveEvery how often, when
// it has nothing new, whether its writer lives.
const (
	lookEvery  = 50 * time.Millisecond
	aliveEvery = time.Second
)

// Follow hands on each line of a report until the one that ends it; a report
// that was ended and goes on, because the node went back later, until the last
// that does. The error is that of following: the outcome says how the
// activation went.
func (d Dir) Follow(ctx context.Context, id ID, alive func(context.Context) (bool, error), line func([]byte) error) (protocol.Outcome, error) {
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	var tail tail
	lastChance := false
	for quiet := time.Duration(0); ; quiet += lookEvery {
		lines, err := tail.read(d.path(id))
		if err != nil {
			return protocol.Outcome{}, err
		}
		end, err := hand(lines, line)
		if err != nil {
			return protocol.Outcome{}, err
		}
		if end != nil {
			return *end, nil
		}
		if len(lines) > 0 {
			quiet = 0
		}
		if lastChance {
			return protocol.Outcome{}, ErrSilent
		}
		if quiet >= aliveEvery {
			lives, err := alive(ctx)
			if err != nil {
				return protocol.Outcome{}, err
			}
			lastChance, quiet = !lives, 0 // what it wrote last may have come since
			continue
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return protocol.Outcome{}, fmt.Errorf("the activation goes on: %w", ctx.Err())
		}
	}
}

// hand hands lines on, and returns the last end among them.
func hand(lines [][]byte, line func([]byte) error) (*protocol.Outcome, error) {
	var end *protocol.Outcome
	for _, l := range lines {
		if err := line(l); err != nil {
			return nil, err
		}
		if e, err := protocol.Decode[protocol.Event](l); err == nil && e.End != nil {
			end = e.End
		}
	}
	return end, nil
}

// Begun says whether anything was written to a report.
func (d Dir) Begun(id ID) bool {
	st, err := os.Stat(d.path(id))
	return err == nil && st.Size() > 0
}

// Ended says whether a report has an end, so that one whose writer was killed
// is not ended twice.
func (d Dir) Ended(id ID) bool {
	b, err := os.ReadFile(d.path(id))
	if err != nil {
		return false
	}
	end, err := hand(bytes.Split(b, []byte("\n")), func([]byte) error { return nil })
	return err == nil && end != nil
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
