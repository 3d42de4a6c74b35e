// Package rootfs builds the Debian that every machine of a lab boots: once,
// with debootstrap, into a cache that all labs share. Machines only read it;
// what they write goes elsewhere.
package rootfs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// suite is the Debian that the lab's machines run.
const suite = "bookworm"

// include is what machines have besides Debian's essential packages: what a
// rented server comes with. What moggy installs itself is left out, so that a
// first contact is one.
func include() []string {
	return []string{
		"ca-certificates", "curl", "dbus", "iproute2", "iputils-ping", "openssh-server", "sudo", "systemd", "systemd-sysv",
	}
}

// masked are units that do nothing for a machine that lives an hour, or that
// would reach for the host's kernel.
func masked() []string {
	return []string{
		"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
		"fstrim.timer", "systemd-pstore.service", "console-getty.service", "getty@tty1.service",
		"systemd-modules-load.service", "modprobe@.service",
		"dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
		"sys-kernel-config.mount", "sys-fs-fuse-connections.mount",
		// each of these takes one of the few inotify instances that root has
		"systemd-ask-password-console.path", "systemd-ask-password-wall.path",
	}
}

// cgroupsWritable is for hosts with cgroups version 1, where systemd-nspawn
// mounts the controllers read-only: Docker and Nomad want to write there. A
// remount without "bind" says busy.
const cgroupsWritable = `[Unit]
Description=Make version 1 cgroups writable for container engines
ConditionPathExists=!/sys/fs/cgroup/cgroup.controllers
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for d in /sys/fs/cgroup/*; do mount -o remount,bind,rw "$d"; done; mount -o remount,rw /sys/fs/cgroup; exit 0'

[Install]
WantedBy=sysinit.target
`

// files are written into the root file system as they are.
func files() map[string]string {
	return map[string]string{
		"etc/systemd/system/lab-cgroups.service": cgroupsWritable,
		"etc/systemd/journald.conf.d/lab.conf":   "[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\nForwardToConsole=no\n",
		"etc/apt/apt.conf.d/90lab":               "Acquire::Languages \"none\";\n",
		"etc/apt/sources.list":                   "",
		"etc/machine-id":                         "",
		"etc/hostname":                           "localhost\n",
		"etc/resolv.conf":                        "",
		"etc/dpkg/dpkg.cfg.d/lab":                "path-exclude /usr/share/man/*\npath-exclude /usr/share/doc/*\n",
		"etc/systemd/system.conf.d/lab.conf":     "[Manager]\nShowStatus=no\nDefaultTimeoutStopSec=10s\n",
		"etc/ssh/sshd_config.d/lab.conf":         "HostKey /etc/ssh/ssh_host_ed25519_key\n",
		"var/lib/dbus/.keep":                     "",
	}
}

// recipe is everything that decides what is in the root file system.
func recipe(arch string) string {
	var b strings.Builder
	fmt.Fprintln(&b, suite, arch, include(), masked())
	all := files()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s %q\n", name, all[name])
	}
	return b.String()
}

// name is the root file system's directory in the cache.
func name(arch string) string {
	sum := sha256.Sum256([]byte(recipe(arch)))
	return "rootfs-" + hex.EncodeToString(sum[:6])
}

// finish turns what debootstrap made into what machines boot.
func finish(root string) error {
	for _, pattern := range []string{
		"etc/ssh/ssh_host_*", "var/lib/dbus/machine-id", "var/lib/apt/lists/*", "var/cache/apt/*.bin",
		"var/cache/apt/archives/*.deb", "var/log/*.log",
	} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, f := range found {
			if err := os.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	for name, text := range files() {
		if err := write(filepath.Join(root, name), text); err != nil {
			return err
		}
	}
	// There are setuid programs in it that nobody will ever update: nothing for
	// this box's users. Machines see the mode of their own disk's root.
	if err := os.Chmod(root, 0o700); err != nil {
		return err
	}
	units := filepath.Join(root, "etc/systemd/system")
	for _, unit := range masked() {
		if err := link("/dev/null", filepath.Join(units, unit)); err != nil {
			return err
		}
	}
	return link("/etc/systemd/system/lab-cgroups.service", filepath.Join(units, "sysinit.target.wants/lab-cgroups.service"))
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err // not followed if it is a link
	}
	return os.WriteFile(path, []byte(text), fs.FileMode(0o644))
}

func link(target, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Symlink(target, path)
}
