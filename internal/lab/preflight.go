package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/hint"
)

// tools are the programs of the host that a lab uses, with the Debian package
// of each.
func tools() [][2]string {
	return [][2]string{
		{"systemd-nspawn", "systemd-container"},
		{"debootstrap", "debootstrap"},
		{"nft", "nftables"},
		{"nsenter", "util-linux"},
		{"ip", "iproute2"},
		{"apt-get", "apt"},
		{"dpkg-deb", "dpkg"},
	}
}

// refused adds what can be done where even root may not make namespaces.
func refused(err error) error {
	if errors.Is(err, unix.EPERM) {
		return hint.Wrap(err, "root may not do that here; in a container, run it with --privileged")
	}
	return err
}

// diskNeed is the space that machines may write to, in bytes, at least.
const diskNeed = 256 << 20

var (
	errRoot    = errors.New("a lab needs root")
	errMissing = errors.New("not installed")
	errNoTun   = errors.New("this kernel offers no /dev/net/tun, which the mesh needs")
	errFull    = errors.New("not enough space")
	errOverlay = errors.New("lies on an overlay, as a container's own files do, and another cannot be laid on it")
	errInotify = errors.New("too few inotify instances for systemd in that many machines")
)

// inotifyPerMachine is how many inotify instances a machine with an agent and
// a container engine holds; systemd alone has three, logind and D-Bus one
// each. All machines are root's and share root's limit, 128 by default.
const inotifyPerMachine = 7

// inotify looks whether the machines can have the inotify instances they need:
// without, systemd fails in them in ways that are hard to read.
func inotify(machines int) error {
	const knob = "fs.inotify.max_user_instances"
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		return nil //nolint:nilerr // a kernel that does not tell has no such limit
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil //nolint:nilerr // likewise
	}
	open, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return err
	}
	used := 0
	for _, fd := range open {
		if to, err := os.Readlink(fd); err == nil && to == "anon_inode:inotify" {
			used++
		}
	}
	if need := machines * inotifyPerMachine; used+need > limit {
		return hint.Wrap(fmt.Errorf("%w: %s is %d, %d are in use, %d machines take %d", errInotify, knob, limit, used, machines, need),
			"sysctl -w %s=%d", knob, max(1024, 2*(used+need)))
	}
	return nil
}

func asRoot() error {
	if os.Geteuid() != 0 {
		return hint.Wrap(errRoot, "sudo %s", strings.Join(os.Args, " "))
	}
	return nil
}

// preflight finds what this box lacks before anything is begun.
func preflight() error {
	if err := asRoot(); err != nil {
		return err
	}
	var missing, packages []string
	for _, t := range tools() {
		if _, err := exec.LookPath(t[0]); err != nil {
			missing, packages = append(missing, t[0]), append(packages, t[1])
		}
	}
	if len(missing) > 0 {
		return hint.Wrap(fmt.Errorf("%s: %w", strings.Join(missing, ", "), errMissing),
			"apt-get install --no-install-recommends %s", strings.Join(packages, " "))
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return hint.Wrap(errNoTun, "modprobe tun; in a container: --device /dev/net/tun")
	}
	return room()
}

// room looks whether there is space for what machines write: in their directory,
// or where it would be made. Another lab may make or remove it meanwhile.
func room() error {
	var st unix.Statfs_t
	dir := diskDir
	err := unix.Statfs(dir, &st)
	for errors.Is(err, fs.ErrNotExist) && dir != "/" {
		dir = filepath.Dir(dir)
		err = unix.Statfs(dir, &st)
	}
	if err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return hint.Wrap(fmt.Errorf("%s %w", diskDir, errOverlay), "mount a volume or a tmpfs there: mount -t tmpfs none %s", diskDir)
	}
	if free := st.Bavail * uint64(st.Bsize); free < diskNeed { //nolint:gosec // a block size is positive
		return hint.Wrap(fmt.Errorf("%w in %s for what the machines write: %d MB, %d MB are needed", errFull, diskDir, free>>20, diskNeed>>20),
			"df -h %s", diskDir)
	}
	return nil
}
