// Package disk changes files so that power may fail at any instant. It knows
// nothing of what they are for.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
)

// Disk is a file system as a whole machine sees it. What has a name is
// whole, and what was reported done stays done. Content is flushed before it
// gets its name, and a directory is flushed after a name in it has changed.
//
// Paths are the machine's own; Root stands before each.
type Disk struct {
	Root string
	// NoSync leaves out the flushing, for tests that do not pull plugs.
	NoSync bool
	// Fault, in tests, is called before every change with its kind and path; an
	// error stops the change.
	Fault func(op, path string) error
}

// Real is where path is on this file system.
func (d *Disk) Real(path string) string { return filepath.Join(d.Root, path) }

func (d *Disk) change(op, path string) error {
	if d.Fault == nil {
		return nil
	}
	return d.Fault(op, path)
}

// Mkdir makes a directory with exactly that mode, or sets it on the one there.
func (d *Disk) Mkdir(path string, mode uint32) error {
	st, err := os.Lstat(d.Real(path))
	if err == nil && st.IsDir() && st.Mode().Perm() == fs.FileMode(mode) {
		return nil
	}
	if err := d.change("mkdir", path); err != nil {
		return err
	}
	if err := os.MkdirAll(d.Real(path), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(d.Real(path), fs.FileMode(mode)); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// Existing is the nearest directory above, or at, path that is there.
func (d *Disk) Existing(path string) string {
	for path != "/" && path != "." {
		if _, err := os.Stat(d.Real(path)); err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

// MissingDirs are the directories that must be made for path, outermost first.
func (d *Disk) MissingDirs(path string) []string {
	var out []string
	for dir := filepath.Dir(path); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if _, err := os.Stat(d.Real(dir)); err == nil {
			break
		}
		out = append([]string{dir}, out...)
	}
	return out
}

// TempName is what stands in for path while its content is in the making.
func TempName(path string) string {
	return filepath.Join(filepath.Dir(path), protocol.TempPrefix+filepath.Base(path))
}

// Write gives path that content in one rename. Only root may read it.
func (d *Disk) Write(path string, content []byte) error {
	return d.Fill(path, 0o600, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// Fill is write for content that fill writes. When it fails, nothing changed
// and nothing is left.
func (d *Disk) Fill(path string, mode uint32, fill func(io.Writer) error) error {
	tmp := TempName(path)
	if err := d.create(tmp, mode, fill); err != nil {
		return errors.Join(err, d.Discard(tmp))
	}
	if err := d.Rename(tmp, path); err != nil {
		return errors.Join(err, d.Discard(tmp))
	}
	return nil
}

// create makes a file, flushed, over whatever an earlier attempt left.
func (d *Disk) create(path string, mode uint32, fill func(io.Writer) error) (err error) {
	if err := d.Discard(path); err != nil {
		return err
	}
	if err := d.change("create", path); err != nil {
		return err
	}
	f, err := os.OpenFile(d.Real(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := d.change("write", path); err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Chmod(fs.FileMode(mode)); err != nil {
		return err
	}
	if d.NoSync {
		return nil
	}
	return f.Sync()
}

// Symlink makes path a link to target in one rename.
func (d *Disk) Symlink(target, path string) error {
	tmp := TempName(path)
	if err := d.Discard(tmp); err != nil {
		return err
	}
	if err := d.change("symlink", path); err != nil {
		return err
	}
	if err := os.Symlink(target, d.Real(tmp)); err != nil {
		return err
	}
	return d.Rename(tmp, path)
}

// Rename gives what is at from the name to, over what is there.
func (d *Disk) Rename(from, to string) error {
	if err := d.change("rename", to); err != nil {
		return err
	}
	if err := os.Rename(d.Real(from), d.Real(to)); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(to))
}

// Link gives the file at from a second name, or makes a copy where the file
// system has no such names or they would be on two file systems.
func (d *Disk) Link(from, to string) error {
	if err := d.change("link", to); err != nil {
		return err
	}
	err := os.Link(d.Real(from), d.Real(to))
	if err == nil {
		return d.syncDir(filepath.Dir(to))
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.Copy(from, to)
}

// Copy makes a second file of the same content, mode and owner.
func (d *Disk) Copy(from, to string) error {
	src, err := os.OpenFile(d.Real(from), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	err = d.create(to, uint32(st.Mode().Perm()), func(w io.Writer) error {
		_, err := io.Copy(w, src)
		return err
	})
	if err != nil {
		return errors.Join(err, d.Discard(to))
	}
	uid, gid := owner(st)
	if err := os.Lchown(d.Real(to), uid, gid); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(to))
}

// Remove takes a name away; one that is not there is no error.
func (d *Disk) Remove(path string) error {
	if _, err := os.Lstat(d.Real(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.change("remove", path); err != nil {
		return err
	}
	if err := os.Remove(d.Real(path)); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// Discard removes what nobody counts on; it need not survive a power loss.
func (d *Disk) Discard(path string) error {
	// On a read-only file system, removing what is not there is an error too.
	if _, err := os.Lstat(d.Real(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Remove(d.Real(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveTree takes a whole directory away: first its name, in one rename, so
// that no half of it can be taken for the whole.
func (d *Disk) RemoveTree(path string) error {
	if _, err := os.Lstat(d.Real(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	tmp := TempName(path)
	if err := os.RemoveAll(d.Real(tmp)); err != nil {
		return err
	}
	if err := d.Rename(path, tmp); err != nil {
		return err
	}
	if err := d.change("removeAll", path); err != nil {
		return err
	}
	return os.RemoveAll(d.Real(tmp))
}

// Sweep removes what was left in the making in a directory.
func (d *Disk) Sweep(dir string) error {
	left, err := filepath.Glob(d.Real(filepath.Join(dir, protocol.TempPrefix+"*")))
	if err != nil {
		return err
	}
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}

// SweepTree is sweep in a directory and all that are in it. A directory in
// which nothing else was goes as well.
func (d *Disk) SweepTree(dir string) error {
	if err := d.Sweep(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.Real(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		sub := filepath.Join(dir, e.Name())
		if err := d.SweepTree(sub); err != nil {
			return err
		}
		os.Remove(d.Real(sub)) // stays where there is something in it
	}
	return nil
}

func (d *Disk) syncDir(path string) error {
	if d.NoSync {
		return nil
	}
	f, err := os.Open(d.Real(path))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// SameFileSystem says whether two directories are on one file system, so that
// one can be linked or renamed into the other; yes, if that cannot be known.
func (d *Disk) SameFileSystem(a, b string) bool {
	var sa, sb unix.Stat_t
	if unix.Stat(d.Real(a), &sa) != nil || unix.Stat(d.Real(b), &sb) != nil {
		return true
	}
	return sa.Dev == sb.Dev
}

// SameMount says whether two directories came with one mount, so that where one
// can be seen the other can; yes, if that cannot be known. Two mounts may be of
// one file system. Kernels before 5.8 only tell the latter.
func (d *Disk) SameMount(a, b string) bool {
	var sa, sb unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, d.Real(a), 0, unix.STATX_MNT_ID, &sa) != nil ||
		unix.Statx(unix.AT_FDCWD, d.Real(b), 0, unix.STATX_MNT_ID, &sb) != nil ||
		sa.Mask&sb.Mask&unix.STATX_MNT_ID == 0 {
		return d.SameFileSystem(a, b)
	}
	return sa.Mnt_id == sb.Mnt_id
}
