package examine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// written are the paths that moggy writes to on a node.
func written() []string {
	return []string{"/var/lib/moggy", "/etc", "/usr/local/bin", "/var", "/tmp"}
}

// mounts are the file systems behind the paths that moggy writes to, each once
// but for those that are read-only.
func (x Examiner) mounts(context.Context) (func(*fleet.Examination), error) {
	var out []fleet.Mount
	seen := make(map[unix.Fsid]bool)
	for _, path := range written() {
		var st unix.Statfs_t
		err := unix.Statfs(x.real(path), &st)
		if errors.Is(err, unix.ENOENT) {
			continue // before the first apply
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		block := uint64(st.Bsize) //nolint:unconvert // int32 on some architectures
		m := fleet.Mount{
			Path: path, Total: st.Blocks * block, Free: st.Bavail * block, Inodes: st.Files, InodesFree: st.Ffree,
			ReadOnly: errors.Is(unix.Access(x.real(path), unix.W_OK), unix.EROFS),
		}
		if !m.ReadOnly && st.Fsid != (unix.Fsid{}) && seen[st.Fsid] {
			continue
		}
		seen[st.Fsid] = true
		out = append(out, m)
	}
	return func(e *fleet.Examination) { e.Mounts = out }, nil
}

// ntp asks the kernel whether somebody keeps its clock (adjtimex(2)): that is
// the same whatever program does. It changes nothing and needs no privilege.
func ntp(context.Context) (func(*fleet.Examination), error) {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil {
		return nil, fmt.Errorf("adjtimex: %w", err)
	}
	kept := fleet.Yes
	if state == unix.TIME_ERROR || tx.Status&unix.STA_UNSYNC != 0 {
		kept = fleet.No
	}
	return func(e *fleet.Examination) { e.NTP = kept }, nil
}

// kernel looks at what moggy needs of the kernel, by using it.
func (x Examiner) kernel(ctx context.Context) (func(*fleet.Examination), error) {
	k := fleet.Kernel{TUN: x.tun(), Cgroup: x.cgroup(), NoIPv6: x.noIPv6()}
	unknown := ""
	_, err := x.Run(ctx, nil, "nft", "list", "tables")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		unknown = "nft is not installed"
	case err != nil:
		k.NFTables = err.Error()
	}
	return func(e *fleet.Examination) {
		e.Kernel = k
		if unknown != "" {
			e.Unknown["nftables"] = unknown
		}
	}, nil
}

// tun opens the device and closes it again: an interface comes only with
// TUNSETIFF.
func (x Examiner) tun() string {
	fd, err := unix.Open(x.real("/dev/net/tun"), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO):
		return "the kernel has no TUN"
	case err != nil:
		return err.Error()
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return "it is no device"
	}
	return ""
}

// cgroup says which hierarchy systemd uses: version 2 mounts itself at the top,
// a mixture has version 1's there (systemd's CGROUP_DELEGATION.md).
func (x Examiner) cgroup() int {
	if _, err := os.Stat(x.real("/sys/fs/cgroup/cgroup.controllers")); err == nil {
		return 2
	}
	if _, err := os.Stat(x.real("/sys/fs/cgroup/systemd")); err == nil {
		return 1
	}
	return 0
}

// noIPv6 says whether the machine cannot have an IPv6 address
// (networking/ip-sysctl.rst, disable_ipv6).
func (x Examiner) noIPv6() bool {
	b, err := os.ReadFile(x.real("/proc/sys/net/ipv6/conf/all/disable_ipv6"))
	return err != nil || strings.TrimSpace(string(b)) == "1"
}
