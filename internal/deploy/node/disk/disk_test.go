package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func newDisk(t *testing.T) *Disk {
	t.Helper()
	return &Disk{Root: t.TempDir()}
}

// list is every path below root with its mode and content or target.
func list(t *testing.T, d *Disk) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(d.Root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == d.Root {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		line := path[len(d.Root):] + " " + st.Mode().String()
		switch {
		case e.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(b)
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " " + target
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func want(t *testing.T, d *Disk, lines ...string) {
	t.Helper()
	if got := list(t, d); !slices.Equal(got, lines) {
		t.Errorf("the disk has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestFill(t *testing.T) {
	d := newDisk(t)
	must(t, d.Fill("/a", 0o640, func(w io.Writer) error { _, err := io.WriteString(w, "one"); return err }))
	must(t, d.Write("/b", []byte("b")))
	want(t, d, "/a -rw-r----- one", "/b -rw------- b")
	broken := errors.New("broken")
	err := d.Fill("/a", 0o640, func(w io.Writer) error {
		io.WriteString(w, "half")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	want(t, d, "/a -rw-r----- one", "/b -rw------- b")
	must(t, os.WriteFile(d.Real(TempName("/a")), []byte("left by a killed one"), 0o777))
	must(t, d.Fill("/a", 0o600, func(w io.Writer) error { _, err := io.WriteString(w, "two"); return err }))
	want(t, d, "/a -rw------- two", "/b -rw------- b")
}

func TestSymlinkReplacesInOneStep(t *testing.T) {
	d := newDisk(t)
	must(t, d.Write("/a", []byte("a")), d.Symlink("x", "/a"), d.Symlink("y", "/a"))
	must(t, os.Symlink("left by a killed one", d.Real(TempName("/a"))), d.Symlink("z", "/a"))
	want(t, d, "/a Lrwxrwxrwx z")
}

func TestMkdir(t *testing.T) {
	d := newDisk(t)
	if got := d.MissingDirs("/a/b/c/file"); !slices.Equal(got, []string{"/a", "/a/b", "/a/b/c"}) {
		t.Errorf("missing %v", got)
	}
	must(t, d.Mkdir("/a/b", 0o711), d.Mkdir("/a/b", 0o700), d.Mkdir("/a/b", 0o700))
	want(t, d, "/a drwxr-xr-x", "/a/b drwx------")
	if got := d.MissingDirs("/a/b/c/file"); !slices.Equal(got, []string{"/a/b/c"}) {
		t.Errorf("missing %v", got)
	}
	if got := d.Existing("/a/b/c/d"); got != "/a/b" {
		t.Errorf("existing %s", got)
	}
}

func TestRemoveTreeTakesTheNameFirst(t *testing.T) {
	d := newDisk(t)
	must(t, d.Mkdir("/t/sub", 0o755), d.Write("/t/sub/f", nil))
	d.Fault = func(op, _ string) error {
		if op == "removeAll" {
			return unix.EIO
		}
		return nil
	}
	if err := d.RemoveTree("/t"); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Real("/t")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("half a tree still has its name")
	}
	d.Fault = nil
	must(t, d.RemoveTree("/t"), d.Sweep("/"))
	want(t, d)
}

func TestSweepTree(t *testing.T) {
	d := newDisk(t)
	must(t, d.Mkdir("/t/a/b", 0o755), d.Mkdir("/t/c", 0o755), d.Write("/t/c/keep", nil))
	for _, f := range []string{"/t/f", "/t/a/b/g", "/t/c/keep"} {
		must(t, os.WriteFile(d.Real(TempName(f)), nil, 0o600))
	}
	must(t, d.SweepTree("/t"), d.SweepTree("/none"))
	want(t, d, "/t drwxr-xr-x", "/t/c drwxr-xr-x", "/t/c/keep -rw------- ")
}

func TestLinkOrCopy(t *testing.T) {
	d := newDisk(t)
	must(t, d.Write("/a", []byte("a")), os.Chmod(d.Real("/a"), 0o640), d.Link("/a", "/b"), d.Copy("/a", "/c"))
	want(t, d, "/a -rw-r----- a", "/b -rw-r----- a", "/c -rw-r----- a")
	for path, linked := range map[string]bool{"/b": true, "/c": false} {
		a, err := os.Stat(d.Real("/a"))
		must(t, err)
		o, err := os.Stat(d.Real(path))
		must(t, err)
		if os.SameFile(a, o) != linked {
			t.Errorf("%s is the same file: %t, want %t", path, !linked, linked)
		}
	}
	if !d.Same("/a", "/c") || d.Same("/a", "/none") {
		t.Error("what holds the same?")
	}
	if err := d.Link("/a", "/b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over something: %v", err)
	}
}

func TestLinkAcrossFileSystems(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system, which needs root")
	}
	d := newDisk(t)
	must(t, d.Mkdir("/other", 0o755), d.Write("/a", []byte("a")))
	if err := unix.Mount("tmpfs", d.Real("/other"), "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounts a file system: %v", err)
	}
	defer unix.Unmount(d.Real("/other"), 0)
	must(t, d.Link("/a", "/other/a"), d.Keep("/a", "/other/deep/er/a"))
	if !d.Same("/a", "/other/a") || !d.Same("/a", "/other/deep/er/a") {
		t.Error("not copied")
	}
	if d.SameFileSystem("/", "/other") || d.SameMount("/", "/other") || !d.SameMount("/", "/a") {
		t.Error("what is mounted where?")
	}
}

func TestKeep(t *testing.T) {
	d := newDisk(t)
	must(t, d.Write("/f", []byte("f")), d.Symlink("there", "/l"))
	must(t, d.Keep("/f", "/k/deep/f"), d.Keep("/l", "/k/l"), d.Duplicate("/l", "/l2"))
	want(t, d,
		"/f -rw------- f", "/k drwx------", "/k/deep drwx------", "/k/deep/f -rw------- f", "/k/l Lrwxrwxrwx there",
		"/l Lrwxrwxrwx there", "/l2 Lrwxrwxrwx there",
	)
	if !d.Same("/l", "/k/l") || d.Same("/l", "/f") {
		t.Error("what holds the same?")
	}
}

func TestModes(t *testing.T) {
	d := newDisk(t)
	must(t, d.Write("/f", nil), os.Chmod(d.Real("/f"), 0o755|fs.ModeSetuid))
	if d.RightMode("/f", 0o755) {
		t.Error("setuid passes for 755")
	}
	must(t, d.SetMode("/f", 0o755))
	if !d.RightMode("/f", 0o755) || d.RightMode("/f", 0o700) || d.RightMode("/none", 0o755) {
		t.Error("modes")
	}
}
