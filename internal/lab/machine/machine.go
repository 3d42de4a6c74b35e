// Package machine boots one machine of a lab as a systemd-nspawn container,
// runs commands in it, and pulls its plug. It knows nothing of fleets and
// networks: the machine is given a network namespace that is ready.
package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/hint"
)

// Machine is where a machine's parts are. A Machine with the same fields is
// the same machine: there is no other record of it.
type Machine struct {
	Lab, Host string // the lab's name; its own host name
	Root      string // the read-only root file system
	Disk      string // directory of what it writes: survives a pulled plug
	Run       string // directory for its mount point and its console's log
	Net       string // file of its network namespace
}

// Name is the machine's name on this box: a host name of at most 64
// characters, as systemd-nspawn wants it.
func (m Machine) Name() string { return shorten("moggy-" + m.Lab + "-" + m.Host) }

// File is a file to lay on a machine's disk before it boots.
type File struct {
	Text string
	Mode fs.FileMode
	User int // number of the user and of the group it belongs to
}

// Prepare makes the disk, with the files on it (by their path without the
// first slash; a directory's path ends in one).
func (m Machine) Prepare(files map[string]File) error {
	dirs := []string{m.upper(), m.work(), m.mount()}
	for _, b := range m.binds() {
		dirs = append(dirs, b.from)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := m.makeTun(); err != nil {
		return err
	}
	root, err := os.OpenRoot(m.upper())
	if err != nil {
		return err
	}
	defer root.Close()
	for name, f := range files {
		if err := lay(root, name, f); err != nil {
			return err
		}
	}
	return nil
}

// lay puts one file on the disk with exactly its mode, whatever the umask.
// Directories on the way that are new get the usual one: the machine sees
// them in place of the root file system's.
func lay(root *os.Root, name string, f File) error {
	path, isDir := strings.CutSuffix(name, "/")
	for i := range path {
		if path[i] != '/' {
			continue
		}
		if err := makeDir(root, path[:i]); err != nil {
			return err
		}
	}
	var err error
	if isDir {
		err = makeDir(root, path)
	} else {
		err = root.WriteFile(path, []byte(f.Text), f.Mode)
	}
	return errors.Join(err, root.Lchown(path, f.User, f.User), root.Chmod(path, f.Mode))
}

func makeDir(root *os.Root, path string) error {
	err := root.Mkdir(path, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return errors.Join(err, root.Chmod(path, 0o755))
}

// makeTun makes the machine's own /dev/net/tun, as udev makes it on Debian:
// open to all, since the kernel asks for CAP_NET_ADMIN anyhow. This box's node
// may be closed to all but root, and is not ours to change.
func (m Machine) makeTun() error {
	const major, minor = 10, 200 // Documentation/admin-guide/devices.txt
	err := unix.Mknod(m.ownTun(), unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", m.ownTun(), err)
	}
	return os.Chmod(m.ownTun(), 0o666)
}

func (m Machine) ownTun() string { return filepath.Join(m.Disk, "tun") }

// tun is the device node to bind into the machine: its own, unless the disk
// lies where device nodes do nothing.
func (m Machine) tun() string {
	var st unix.Statfs_t
	if unix.Statfs(m.Disk, &st) == nil && st.Flags&unix.ST_NODEV != 0 {
		return "/dev/net/tun"
	}
	return m.ownTun()
}

// bind is a directory of the disk that does not lie on the overlay.
type bind struct{ from, to string }

// binds are the places where container engines keep images: these are overlays
// themselves, and an overlay cannot be the upper layer of another.
func (m Machine) binds() []bind {
	return []bind{
		{filepath.Join(m.Disk, "docker"), "/var/lib/docker"},
		{filepath.Join(m.Disk, "containerd"), "/var/lib/containerd"},
	}
}

func (m Machine) upper() string { return filepath.Join(m.Disk, "upper") }
func (m Machine) work() string  { return filepath.Join(m.Disk, "work") }
func (m Machine) mount() string { return filepath.Join(m.Run, m.Host+".root") }

// Console is the file with what the machine said while it booted.
func (m Machine) Console() string { return filepath.Join(m.Run, m.Host+".console") }

// launcher is what stands outside of the machine as long as it is on. $1 is
// the overlay's options, $2 its mount point, $3 the network namespace, $4 the
// cgroup directories, $5 the name of a systemd scope to use instead; the rest
// runs.
//
// It lives in a mount namespace of its own, so that the machine's disk is
// unmounted with it, however it ends, and lets go of the other namespaces'
// names there, which would keep them alive. systemd-nspawn with --keep-unit
// leaves with 133 when the machine reboots; a machine that reboots has lost
// its rules, tunnels and policy routes, so they are taken from its network
// namespace.
const launcher = `
options=$1 root=$2 net=$3 cgroups=$4 scope=$5 boots=0; shift 5
for d in $cgroups; do echo 0 >"$d/launcher/cgroup.procs" || exit; done
mount -t overlay overlay -o "$options" "$root" || exit
others=
for n in /run/netns/*; do [ "$n" = "$net" ] || others="$others $n"; done
[ -z "$others" ] || umount -l $others 2>/dev/null
boot() {
	for d in $cgroups; do echo 0 >"$d/cgroup.procs" || exit; done
	[ -n "$scope" ] || exec "$@"
	exec systemd-run --quiet --scope --collect --unit="$scope.$boots.scope" --description="$scope" --slice=machine.slice \
		--property=Delegate=yes --property=TasksMax=16384 -- "$@"
}
while :; do
	boots=$((boots + 1))
	(boot "$@")
	[ $? = 133 ] || exit
	nsenter --net="$net" sh -c '
		nft flush ruleset
		ip -br link | while read -r dev _; do dev=${dev%@*}; case $dev in lo|eth0) ;; *) ip link del "$dev" ;; esac; done
		for f in -4 -6; do ip $f rule flush; ip $f rule add pref 32766 table main; done
		ip -4 rule add pref 32767 table default' 2>/dev/null
done
`

// Start switches the machine on. It returns when the machine's first process
// has been started; see [Machine.Ready] for when it answers.
func (m Machine) Start() error {
	if err := os.RemoveAll(filepath.Join(m.work(), "work", "incompat")); err != nil {
		return err // the mark of a "volatile" mount, whose disk is well since only the machine lost power
	}
	groups, err := m.makeGroups()
	if err != nil {
		return err
	}
	console, err := os.OpenFile(m.Console(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,volatile", m.Root, m.upper(), m.work())
	script := filepath.Join(m.Run, m.Host+".launch")
	if err := os.WriteFile(script, []byte(launcher), 0o600); err != nil {
		return err
	}
	args := []string{script, options, m.mount(), m.Net, strings.Join(groups, " "), m.scope()}
	cmd := exec.Command("sh", append(args, m.nspawn()...)...)
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		// Only the network's part of /proc/sys may be written; the rest is the host's.
		"SYSTEMD_NSPAWN_API_VFS_WRITABLE=network",
		labMark + "=" + m.Lab, machineMark + "=" + m.Name(),
	}
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		return m.refused(err)
	}
	go cmd.Wait() //nolint:errcheck // it outlives us; where it does not, somebody must take its exit code
	return nil
}

// nspawn is the command that boots the machine.
func (m Machine) nspawn() []string {
	args := []string{
		"systemd-nspawn", "--quiet", "--register=no", "--directory=" + m.mount(), "--machine=" + m.Name(),
		"--hostname=" + m.Host, "--network-namespace-path=" + m.Net,
		// What container engines in the machine need; it is no prison.
		// All that a machine may, but for the clock: there is one for all of them,
		// and it is this machine's.
		"--capability=all", "--drop-capability=CAP_SYS_TIME", "--system-call-filter=@keyring bpf @mount add_key", "--bind=" + m.tun() + ":/dev/net/tun",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--keep-unit", "--boot",
	}
	for _, b := range m.binds() {
		args = append(args, "--bind="+b.from+":"+b.to)
	}
	if legacyCgroups() {
		args = append(args, "systemd.unified_cgroup_hierarchy=0", "systemd.legacy_systemd_cgroup_controller=1")
	}
	return args
}

// refused explains why a process with namespaces of its own could not be.
func (m Machine) refused(err error) error {
	err = fmt.Errorf("start machine %s: %w", m.Host, err)
	if errors.Is(err, syscall.EPERM) {
		return hint.Wrap(err, "this box may not make mount namespaces; in a container, run it privileged")
	}
	return err
}

var errOff = errors.New("switched itself off while booting")

// Ready waits until the machine's sshd answers on that port.
func (m Machine) Ready(ctx context.Context, port uint16, dial func(ctx context.Context, network, address string) (net.Conn, error)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		if greets(ctx, port, dial) {
			return nil
		}
		if n%10 == 0 && !m.powered() {
			return fmt.Errorf("machine %s %w: %s", m.Host, errOff, m.lastWords())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("machine %s: sshd does not answer: %w", m.Host, ctx.Err())
		case <-tick.C:
		}
	}
}

// hello is how long a connection may take to show that sshd is behind it.
const hello = 2 * time.Second

func greets(ctx context.Context, port uint16, dial func(ctx context.Context, network, address string) (net.Conn, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, hello)
	defer cancel()
	c, err := dial(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	var said [4]byte
	_, err = io.ReadFull(c, said[:])
	return err == nil && string(said[:]) == "SSH-"
}

// lastWords is the end of the console's log.
func (m Machine) lastWords() string {
	text, err := os.ReadFile(m.Console())
	if err != nil || len(strings.TrimSpace(string(text))) == 0 {
		return "it said nothing"
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " / ")
}
