// Package history keeps what happened to a node's generations: one line for
// each turn, in a file that only grows at its end. It does not decide what is
// worth a line.
package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Kept is how many turns a node remembers: years of a busy fleet. The file may
// grow by a quarter more before its oldest lines are dropped.
const Kept = 1000

// maxField bounds, in bytes, what of a turn comes from outside.
const maxField = 2000

// File is a history on a disk.
type File struct {
	Disk *disk.Disk
	Path string
}

// Add puts a turn at the end.
func (f File) Add(t fleet.Turn) error {
	t.By, t.Commit, t.Why = bounded(t.By), bounded(t.Commit), bounded(t.Why)
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	had, err := f.lines()
	if err != nil {
		return err
	}
	if len(had) < Kept+Kept/4 {
		return f.Disk.Append(f.Path, b)
	}
	had = append(had[len(had)-Kept+1:], b)
	return f.Disk.Write(f.Path, append(bytes.Join(had, []byte("\n")), '\n'))
}

func bounded(s string) string { return s[:min(len(s), maxField)] }

// Turns are the latest turns, oldest first. A line that makes no sense, such as
// the last one of a machine that lost power, is passed over.
func (f File) Turns() ([]fleet.Turn, error) {
	lines, err := f.lines()
	if err != nil {
		return nil, err
	}
	var turns []fleet.Turn
	for _, line := range lines {
		var t fleet.Turn
		if json.Unmarshal(line, &t) == nil && t.Kind != "" {
			turns = append(turns, t)
		}
	}
	return turns[max(0, len(turns)-Kept):], nil
}

// lines are the lines of the file, without their ends.
func (f File) lines() ([][]byte, error) {
	b, err := os.ReadFile(f.Disk.Real(f.Path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	if len(b) == 0 {
		return nil, nil
	}
	return bytes.Split(b, []byte("\n")), nil
}
