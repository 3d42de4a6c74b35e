package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/config/lock"
	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// LoadFleet reads the fleet from its files. Mistakes and warnings go to
// stderr; with a mistake there is no fleet, and the error is an exit code.
func (a *App) LoadFleet() (*fleet.Fleet, error) {
	sources, err := a.ReadSources()
	if err != nil {
		return nil, err
	}
	f, diags := config.Parse(sources)
	return f, a.Tell(diags)
}

// LoadLock reads the lock that stands beside the fleet's first file. Where
// there is none yet, it is a new one.
func (a *App) LoadLock(f *fleet.Fleet) (*lock.File, error) {
	l, diags, err := a.ReadLock()
	if err != nil {
		return nil, err
	}
	if l != nil {
		diags = append(diags, l.Check(f)...)
	}
	return l, a.Tell(diags)
}

// ReadLock is LoadLock before anything is said about it. The lock is nil
// where it has mistakes.
func (a *App) ReadLock() (*lock.File, source.Diagnostics, error) {
	name := LockName(a.Files[0])
	content, err := ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return lock.New(name), nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	l, diags := lock.Parse(source.Text{Name: name, Content: content})
	return l, diags, nil
}

// SaveLock writes the lock beside the fleet's first file. A reader, and a
// machine that loses power, has the old text or the new one, whole.
func (a *App) SaveLock(l *lock.File, next *fleet.Lock) error {
	before := l.Text()
	now, err := ReadFile(l.Name())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !bytes.Equal(before, now) {
		return hint.New(l.Name()+": somebody else has changed it meanwhile", "look at it (git diff %s), then run this again", l.Name())
	}
	text, err := l.Update(next)
	if err != nil {
		return err
	}
	if bytes.Equal(before, text) {
		return nil
	}
	return ReplaceFile(l.Name(), text)
}

// Tell prints diagnostics, and gives the exit code where one is a mistake.
func (a *App) Tell(diags source.Diagnostics) error {
	if err := diags.Write(a.Stderr, a.Palette(a.Stderr)); err != nil {
		return err
	}
	if diags.Mistakes() > 0 {
		return ExitCode(1)
	}
	return nil
}

// LockName is the lock's name beside a fleet's file: fleet.hcl has
// fleet.lock.hcl.
func LockName(file string) string { return strings.TrimSuffix(file, ".hcl") + source.LockSuffix }

// ReadSources reads the fleet's files, each once.
func (a *App) ReadSources() ([]source.Text, error) {
	var out []source.Text
	var seen []fs.FileInfo
	for _, name := range a.Files {
		if base, isLock := strings.CutSuffix(name, source.LockSuffix); isLock {
			return nil, hint.New(name+": a lock, which moggy finds by itself", "-f %s", base+".hcl")
		}
		content, err := ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, hint.Wrap(err, "moggy init writes one to start from; -f FILE names another")
		}
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		for i, other := range seen {
			if os.SameFile(info, other) {
				return nil, hint.New(fmt.Sprintf("%s: the same file as %s", name, out[i].Name), "name each file once with -f")
			}
		}
		seen = append(seen, info)
		out = append(out, source.Text{Name: name, Content: content})
	}
	return out, nil
}

// ReadFile reads a file that a person wrote: nothing but a regular file, and
// no more than a fleet may have.
func ReadFile(name string) ([]byte, error) {
	info, err := os.Stat(name) // before opening: that would wait at a pipe
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", name, errNoFile)
	case err != nil:
		return nil, PlainPathError(name, err)
	case info.IsDir():
		return nil, hint.New(name+": a directory, not a file", "-f %s", filepath.Join(name, "fleet.hcl"))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", name)
	case info.Size() > source.MaxSize:
		return nil, tooLarge(name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, PlainPathError(name, err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, source.MaxSize+1))
	if err != nil {
		return nil, PlainPathError(name, err)
	}
	if len(content) > source.MaxSize { // it grew, or its size was not told
		return nil, tooLarge(name)
	}
	return content, nil
}

// errNoFile reads better than the system's own words, and is fs.ErrNotExist.
var errNoFile = noFile{}

type noFile struct{}

func (noFile) Error() string        { return "there is no such file" }
func (noFile) Is(target error) bool { return target == fs.ErrNotExist }

func tooLarge(name string) error {
	return hint.New(fmt.Sprintf("%s: larger than %d MB: this is no fleet file", name, source.MaxSize>>20), "-f FILE names another")
}

// PlainPathError names the file once and the cause, not the system call.
func PlainPathError(name string, err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// ReplaceFile puts content in the place of a file, or of none, so that power
// may fail at any moment: what is on disk afterwards is whole. A link to the
// file stays one.
func ReplaceFile(name string, content []byte) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	err := renameio.WriteFile(name, content, 0o644, renameio.WithExistingPermissions(), renameio.WithTempDir(filepath.Dir(name)))
	if err != nil {
		return PlainPathError(name, err)
	}
	dir, err := os.Open(filepath.Dir(name)) // the rename itself is in the directory
	if err != nil {
		return PlainPathError(name, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return PlainPathError(name, err)
	}
	return nil
}
