package node

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

// disk changes files so that power may fail at any instant: what has a name is
// whole, and what was reported done stays done. Content is flushed before it
// gets its name, and a directory is flushed after a name in it has changed.
//
// Paths are the machine's own; root stands before each.
type disk struct {
	root string
	sync bool
	// fault, in tests, is called before every change with its kind and path; an
	// error stops the change.
	fault func(op, path string) error
}

// real is where path is on this file system.
func (d disk) real(path string) string { return filepath.Join(d.root, path) }

func (d disk) change(op, path string) error {
	if d.fault == nil {
		return nil
	}
	return d.fault(op, path)
}

// mkdir makes a directory with exactly that mode, or sets it on the one there.
func (d disk) mkdir(path string, mode uint32) error {
	st, err := os.Lstat(d.real(path))
	if err == nil && st.IsDir() && st.Mode().Perm() == fs.FileMode(mode) {
		return nil
	}
	if err := d.change("mkdir", path); err != nil {
		return err
	}
	if err := os.MkdirAll(d.real(path), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(d.real(path), fs.FileMode(mode)); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// existing is the nearest directory above, or at, path that is there.
func (d disk) existing(path string) string {
	for path != "/" && path != "." {
		if _, err := os.Stat(d.real(path)); err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

// missingDirs are the directories that must be made for path, outermost first.
func (d disk) missingDirs(path string) []string {
	var out []string
	for dir := filepath.Dir(path); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if _, err := os.Stat(d.real(dir)); err == nil {
			break
		}
		out = append([]string{dir}, out...)
	}
	return out
}

// tempName is what stands in for path while its content is in the making.
func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), protocol.TempPrefix+filepath.Base(path))
}

// write gives path that content in one rename. Only root may read it.
func (d disk) write(path string, content []byte) error {
	return d.fill(path, 0o600, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// fill is write for content that fill writes. When it fails, nothing changed
// and nothing is left.
func (d disk) fill(path string, mode uint32, fill func(io.Writer) error) error {
	tmp := tempName(path)
	if err := d.create(tmp, mode, fill); err != nil {
		return errors.Join(err, d.discard(tmp))
	}
	if err := d.rename(tmp, path); err != nil {
		return errors.Join(err, d.discard(tmp))
	}
	return nil
}

// create makes a file, flushed, over whatever an earlier attempt left.
func (d disk) create(path string, mode uint32, fill func(io.Writer) error) (err error) {
	if err := d.discard(path); err != nil {
		return err
	}
	if err := d.change("create", path); err != nil {
		return err
	}
	f, err := os.OpenFile(d.real(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
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
	if !d.sync {
		return nil
	}
	return f.Sync()
}

// symlink makes path a link to target in one rename.
func (d disk) symlink(target, path string) error {
	tmp := tempName(path)
	if err := d.discard(tmp); err != nil {
		return err
	}
	if err := d.change("symlink", path); err != nil {
		return err
	}
	if err := os.Symlink(target, d.real(tmp)); err != nil {
		return err
	}
	return d.rename(tmp, path)
}

func (d disk) rename(from, to string) error {
	if err := d.change("rename", to); err != nil {
		return err
	}
	if err := os.Rename(d.real(from), d.real(to)); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(to))
}

// link gives the file at from a second name, or makes a copy where the file
// system has no such names or they would be on two file systems.
func (d disk) link(from, to string) error {
	if err := d.change("link", to); err != nil {
		return err
	}
	err := os.Link(d.real(from), d.real(to))
	if err == nil {
		return d.syncDir(filepath.Dir(to))
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.copy(from, to)
}

// copy makes a second file of the same content, mode and owner.
func (d disk) copy(from, to string) error {
	src, err := os.OpenFile(d.real(from), os.O_RDONLY|unix.O_NOFOLLOW, 0)
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
		return errors.Join(err, d.discard(to))
	}
	uid, gid := owner(st)
	if err := os.Lchown(d.real(to), uid, gid); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(to))
}

// remove takes a name away; one that is not there is no error.
func (d disk) remove(path string) error {
	if _, err := os.Lstat(d.real(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.change("remove", path); err != nil {
		return err
	}
	if err := os.Remove(d.real(path)); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// discard removes what nobody counts on; it need not survive a power loss.
func (d disk) discard(path string) error {
	// On a read-only file system, removing what is not there is an error too.
	if _, err := os.Lstat(d.real(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Remove(d.real(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeTree takes a whole directory away: first its name, in one rename, so
// that no half of it can be taken for the whole.
func (d disk) removeTree(path string) error {
	if _, err := os.Lstat(d.real(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	tmp := tempName(path)
	if err := os.RemoveAll(d.real(tmp)); err != nil {
		return err
	}
	if err := d.rename(path, tmp); err != nil {
		return err
	}
	if err := d.change("removeAll", path); err != nil {
		return err
	}
	return os.RemoveAll(d.real(tmp))
}

// sweep removes what was left in the making in a directory.
func (d disk) sweep(dir string) error {
	left, err := filepath.Glob(d.real(filepath.Join(dir, protocol.TempPrefix+"*")))
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

// sweepTree is sweep in a directory and all that are in it. A directory in
// which nothing else was goes as well.
func (d disk) sweepTree(dir string) error {
	if err := d.sweep(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.real(dir))
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
		if err := d.sweepTree(sub); err != nil {
			return err
		}
		os.Remove(d.real(sub)) // stays where there is something in it
	}
	return nil
}

func (d disk) syncDir(path string) error {
	if !d.sync {
		return nil
	}
	f, err := os.Open(d.real(path))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// sameFileSystem says whether two directories are on one file system, so that
// one can be linked or renamed into the other; yes, if that cannot be known.
func (d disk) sameFileSystem(a, b string) bool {
	var sa, sb unix.Stat_t
	if unix.Stat(d.real(a), &sa) != nil || unix.Stat(d.real(b), &sb) != nil {
		return true
	}
	return sa.Dev == sb.Dev
}

// sameMount says whether two directories came with one mount, so that where one
// can be seen the other can; yes, if that cannot be known. Two mounts may be of
// one file system. Kernels before 5.8 only tell the latter.
func (d disk) sameMount(a, b string) bool {
	var sa, sb unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, d.real(a), 0, unix.STATX_MNT_ID, &sa) != nil ||
		unix.Statx(unix.AT_FDCWD, d.real(b), 0, unix.STATX_MNT_ID, &sb) != nil ||
		sa.Mask&sb.Mask&unix.STATX_MNT_ID == 0 {
		return d.sameFileSystem(a, b)
	}
	return sa.Mnt_id == sb.Mnt_id
}

// owner returns who owns the file.
func owner(st fs.FileInfo) (uid, gid int) {
	if sys, ok := st.Sys().(*unixStat); ok {
		return int(sys.Uid), int(sys.Gid)
	}
	return os.Geteuid(), os.Getegid()
}
