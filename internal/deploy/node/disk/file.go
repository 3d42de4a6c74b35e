package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Append adds a line to a file that grows at its end, for root alone. A line
// that a power loss cut short is closed first, so that it spoils none but
// itself.
func (d *Disk) Append(path string, line []byte) (err error) {
	if err := d.change("append", path); err != nil {
		return err
	}
	_, missing := os.Lstat(d.Real(path))
	f, err := os.OpenFile(d.Real(path), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	var last [1]byte
	if st.Size() > 0 {
		if _, err := f.ReadAt(last[:], st.Size()-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	if d.NoSync {
		return nil
	}
	if err := f.Sync(); err != nil || missing == nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// owner returns who owns the file.
func owner(st fs.FileInfo) (uid, gid int) {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid), int(sys.Gid)
	}
	return os.Geteuid(), os.Getegid()
}

// Same says whether two paths hold the same thing.
func (d *Disk) Same(a, b string) bool {
	sa, err := os.Lstat(d.Real(a))
	if err != nil {
		return false
	}
	sb, err := os.Lstat(d.Real(b))
	if err != nil || sa.Mode() != sb.Mode() {
		return false
	}
	if os.SameFile(sa, sb) {
		return true
	}
	if sa.Mode()&fs.ModeSymlink != 0 {
		ta, erra := os.Readlink(d.Real(a))
		tb, errb := os.Readlink(d.Real(b))
		return erra == nil && errb == nil && ta == tb
	}
	ca, erra := os.ReadFile(d.Real(a))
	cb, errb := os.ReadFile(d.Real(b))
	return erra == nil && errb == nil && string(ca) == string(cb)
}

// Keep puts what is at from, a file or a link, at to as well, in directories
// that only root may enter.
func (d *Disk) Keep(from, to string) error {
	for _, dir := range d.MissingDirs(to) {
		if err := d.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	st, err := os.Lstat(d.Real(from))
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(d.Real(from))
		if err != nil {
			return err
		}
		return d.Symlink(target, to)
	}
	tmp := TempName(to)
	if err := d.Discard(tmp); err != nil {
		return err
	}
	if err := d.Link(from, tmp); err != nil {
		return errors.Join(err, d.Discard(tmp))
	}
	return d.Rename(tmp, to)
}

// Duplicate copies a file or link.
func (d *Disk) Duplicate(from, to string) error {
	if target, err := os.Readlink(d.Real(from)); err == nil {
		return d.Symlink(target, to)
	}
	return d.Copy(from, to)
}

// RightMode says whether a file's permission bits and owner are as they should
// be.
func (d *Disk) RightMode(path string, want uint32) bool {
	st, err := os.Lstat(d.Real(path))
	if err != nil {
		return false
	}
	uid, gid := owner(st)
	mode := st.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	return mode == fs.FileMode(want) && uid == os.Geteuid() && gid == os.Getegid()
}

// SetMode puts a file's permission bits and owner right.
func (d *Disk) SetMode(path string, mode uint32) error {
	st, err := os.Lstat(d.Real(path))
	if err != nil {
		return err
	}
	if uid, gid := owner(st); uid != os.Geteuid() || gid != os.Getegid() {
		if err := d.change("chown", path); err != nil {
			return err
		}
		if err := os.Lchown(d.Real(path), os.Geteuid(), os.Getegid()); err != nil {
			return err
		}
	}
	if st.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) == fs.FileMode(mode) {
		return nil
	}
	if err := d.change("chmod", path); err != nil {
		return err
	}
	return os.Chmod(d.Real(path), fs.FileMode(mode))
}
