package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// inside moves itself into the machine's cgroups and then enters the machine.
// $1 is the leader, $2 the cgroup directories, $3 the terminal's type.
const inside = `
leader=$1 cgroups=$2 term=$3; shift 3
for d in $cgroups; do echo 0 >"$d/cgroup.procs"; done 2>/dev/null
exec nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup -- \
	env -i -C /root HOME=/root USER=root LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8 ${term:+TERM="$term"} \
	PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
`

// Exec returns the command that runs argv in the machine, as if at its own
// keyboard: as root, in root's home, with nothing of the caller's environment
// but the terminal's type.
func (m Machine) Exec(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	leader, err := m.Leader()
	if err != nil {
		return nil, err
	}
	groups, err := groupsOf(leader)
	if err != nil {
		return nil, err
	}
	args := []string{"-c", inside, "moggy-lab", strconv.Itoa(leader), strings.Join(groups, " "), os.Getenv("TERM")}
	cmd := exec.CommandContext(ctx, "sh", append(args, argv...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	return cmd, nil
}

// groupsOf lists the directories of a process's cgroups.
func groupsOf(pid int) ([]string, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, err
	}
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // number:controllers:path
		if len(f) != 3 {
			continue
		}
		for _, h := range all {
			if h.has(f[0], f[1]) {
				out = append(out, filepath.Join(h.dir, f[2]))
				break
			}
		}
	}
	return out, nil
}

var errCopy = errors.New("copy")

// Put writes a file in the machine: whole or not at all, with that mode.
func (m Machine) Put(ctx context.Context, path string, mode os.FileMode, content io.Reader) error {
	const receive = `set -e; t=$(mktemp "$1.XXXXXX"); trap 'rm -f "$t"' EXIT; cat >"$t"; chmod "$2" "$t"; mv -T "$t" "$1"; trap - EXIT`
	cmd, err := m.Exec(ctx, "sh", "-c", receive, "copy", path, fmt.Sprintf("%04o", mode.Perm()))
	if err != nil {
		return err
	}
	cmd.Stdin = content
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w to %s:%s: %w: %s", errCopy, m.Host, path, err, strings.TrimSpace(string(out)))
	}
	return nil
}
