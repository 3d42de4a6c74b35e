// Package report is where an activation writes what it does, line by line, and
// where others follow it: files in memory, so that a full disk does not silence
// them, and none is left of a machine that was switched off. It does not know
// who writes one, or whether that lives.
package report

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
)

// ID names the report of one activation.
type ID string

// Dir is a directory of reports.
type Dir string

// kept is how many reports stay until the next reboot.
const kept = 20

// Make makes the directory, for root alone.
func (d Dir) Make() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// New makes a report, empty, so that whoever comes next follows this one.
func (d Dir) New(generation int, now time.Time) (ID, error) {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	id := ID(fmt.Sprintf("%d.%s-%s", generation, now.UTC().Format("20060102T150405.000Z"), hex.EncodeToString(b[:])))
	f, err := d.open(id)
	if err != nil {
		return "", err
	}
	return id, f.Close()
}

func (d Dir) path(id ID) string {
	return filepath.Join(string(d), filepath.Base(string(id))+".jsonl")
}

// Last is the newest report of a generation's activations.
func (d Dir) Last(generation int) (ID, bool) {
	all, err := filepath.Glob(filepath.Join(string(d), strconv.Itoa(generation)+".*.jsonl"))
	if err != nil || len(all) == 0 {
		return "", false
	}
	newest := slices.MaxFunc(all, func(a, b string) int { return modTime(a).Compare(modTime(b)) })
	return ID(strings.TrimSuffix(filepath.Base(newest), ".jsonl")), true
}

func modTime(path string) time.Time {
	st, err := os.Lstat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// Remove takes a report away.
func (d Dir) Remove(id ID) { os.Remove(d.path(id)) }

// Prune removes all but the newest.
func (d Dir) Prune() error {
	reports, err := filepath.Glob(filepath.Join(string(d), "*.jsonl"))
	if err != nil {
		return err
	}
	slices.SortFunc(reports, func(a, b string) int { return modTime(b).Compare(modTime(a)) })
	for _, r := range reports[min(len(reports), kept):] {
		if err := os.Remove(r); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Open opens a report for writing at its end. What is given to tell is a line in
// it at once; a line that cannot be written is lost, which stops nothing.
func (d Dir) Open(id ID) (tell func(protocol.Event), done func() error, err error) {
	f, err := d.open(id)
	if err != nil {
		return nil, nil, err
	}
	return func(e protocol.Event) {
		if b, err := json.Marshal(e); err == nil {
			f.Write(append(b, '\n')) //nolint:errcheck // see above
		}
	}, f.Close, nil
}

func (d Dir) open(id ID) (*os.File, error) {
	if err := d.Make(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(id), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return f, nil
}
