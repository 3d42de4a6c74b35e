package rootfs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/hint"
)

// defaultMirror is where Debian is fetched from when the host's own apt has
// no Debian source.
const defaultMirror = "http://deb.debian.org/debian"

// need is the space that building takes, in bytes, with the downloads.
const need = 1 << 30

var errNoSpace = errors.New("no space")

// Ensure returns the directory of the root file system in the cache, and
// builds it first if it is not there. say is called with what is being done.
// Of several callers one builds; the others wait for it. A build that did not
// come to its end leaves nothing that a later one would take for whole.
func Ensure(ctx context.Context, cache string, say func(string)) (string, error) {
	root := filepath.Join(cache, name(runtime.GOARCH))
	if whole(root) {
		return root, nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, cache, say)
	if err != nil {
		return "", err
	}
	defer unlock()
	if whole(root) {
		return root, nil
	}
	return root, build(ctx, cache, root, say)
}

func whole(root string) bool {
	_, err := os.Stat(filepath.Join(root, "usr/sbin/sshd"))
	return err == nil
}

// lock makes sure that only one builds in the cache.
func lock(ctx context.Context, cache string, say func(string)) (func(), error) {
	f, err := os.OpenFile(filepath.Join(cache, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd())
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
		return func() { f.Close() }, nil
	}
	say("another moggy is building it")
	got := make(chan error, 1)
	go func() { got <- unix.Flock(fd, unix.LOCK_EX) }()
	select {
	case err := <-got:
		return func() { f.Close() }, err
	case <-ctx.Done():
		return nil, ctx.Err() // the file goes with the process
	}
}

func build(ctx context.Context, cache, root string, say func(string)) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(cache, &fs); err != nil {
		return fmt.Errorf("statfs %s: %w", cache, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < need { //nolint:gosec // a block size is positive
		return hint.Wrap(fmt.Errorf("%w for the root file system: %s has %d MB, it needs %d MB", errNoSpace, cache, free>>20, need>>20),
			"moggy lab up --cache DIR puts it elsewhere")
	}
	stale, err := filepath.Glob(filepath.Join(cache, "rootfs-*.partial"))
	if err != nil {
		return err
	}
	for _, dir := range stale {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	partial := root + ".partial"
	if err := debootstrap(ctx, partial, say); err != nil {
		return errors.Join(err, os.RemoveAll(partial))
	}
	say("finishing")
	if err := finish(partial); err != nil {
		return errors.Join(err, os.RemoveAll(partial))
	}
	return os.Rename(partial, root)
}

// debootstrap runs it in mount and process namespaces of its own: what it
// mounts and starts goes when it does, even when we are killed.
func debootstrap(ctx context.Context, dir string, say func(string)) error {
	mirror := Mirror(ctx)
	cmd := exec.CommandContext(ctx, "sh", "-c", `mount -t proc proc /proc && exec debootstrap "$@"`, "sh",
		"--variant=minbase", "--include="+strings.Join(include(), ","), suite, dir, mirror)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	// Pdeathsig is about the thread that started the process, not about us.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("debootstrap: %w", err)
	}
	last := follow(out, say)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return hint.Wrap(fmt.Errorf("debootstrap from %s: %w: %s", mirror, err, lastLine(errs.String(), last)),
			"it needs that mirror; another one: a Debian source in /etc/apt/sources.list, or http_proxy in the environment")
	}
	return nil
}

// follow reads debootstrap's output, tells how far it is, and returns its last
// line.
func follow(r io.Reader, say func(string)) string {
	count := map[string]int{}
	last := ""
	for lines := bufio.NewScanner(r); lines.Scan(); {
		last = lines.Text()
		word, rest, _ := strings.Cut(strings.TrimPrefix(last, "I: "), " ")
		pkg, _, _ := strings.Cut(strings.TrimSuffix(rest, "..."), " ")
		count[word]++
		switch word {
		case "Retrieving", "Extracting":
			say(fmt.Sprintf("debootstrap: %s package %d, %s", strings.ToLower(word), count[word], pkg))
		case "Unpacking", "Configuring":
			say(fmt.Sprintf("debootstrap: %s package %d of %d, %s", strings.ToLower(word), count[word], count["Retrieving"], pkg))
		}
	}
	return last
}

func lastLine(texts ...string) string {
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" {
			return t[strings.LastIndexByte(t, '\n')+1:]
		}
	}
	return "it said nothing"
}

// Mirror is the Debian mirror that the host's own apt uses, else Debian's.
func Mirror(ctx context.Context) string {
	cmd := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(CODENAME)", "Created-By: Packages")
	out, err := cmd.Output()
	if err != nil {
		return defaultMirror
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "Debian" && strings.HasPrefix(f[1], "http") && !strings.ContainsAny(f[2], "-/") {
			return strings.TrimSuffix(f[1], "/")
		}
	}
	return defaultMirror
}
