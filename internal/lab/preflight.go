package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// diskNeed is the space that machines may write to, in bytes, at least.
const diskNeed = 256 << 20

var (
	errRoot    = errors.New("a lab needs root")
	errMissing = errors.New("not installed")
	errNoTun   = errors.New("this kernel offers no /dev/net/tun, which the mesh needs")
	errFull    = errors.New("not enough space")
)

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
	if err := os.MkdirAll(diskDir, 0o700); err != nil {
		return err
	}
	defer os.Remove(diskDir) // only if nothing is in it
	var st unix.Statfs_t
	if err := unix.Statfs(diskDir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", diskDir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < diskNeed { //nolint:gosec // a block size is positive
		return hint.Wrap(fmt.Errorf("%w in %s for what the machines write: %d MB, %d MB are needed", errFull, diskDir, free>>20, diskNeed>>20),
			"df -h %s", diskDir)
	}
	return nil
}
