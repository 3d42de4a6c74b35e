package examine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// maxSockets bounds how many lines of the kernel's socket tables are read: a
// busy server has tens of thousands.
const maxSockets = 200_000

// tcpListen is the state of a TCP socket that waits for connections (the
// kernel's net/tcp_states.h).
const tcpListen = "0A"

// socket is one line of the kernel's tables.
type socket struct {
	protocol string
	port     uint16
	inode    string
}

// ports says who holds the mesh's port, and where sshd listens.
func (x Examiner) ports(ctx context.Context) (func(*fleet.Examination), error) {
	mesh, err := x.meshPort()
	if err != nil {
		return nil, err
	}
	var want []socket
	for _, table := range []string{"udp", "udp6", "tcp", "tcp6"} {
		all, err := x.sockets(table)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // no IPv6, no table
			return nil, err
		}
		for _, s := range all {
			if s.protocol == "tcp" || s.port == mesh {
				want = append(want, s)
			}
		}
	}
	owners := x.owners(ctx, want)
	var out []fleet.Port
	for _, s := range want {
		p := fleet.Port{Protocol: s.protocol, Number: s.port, Owner: owners[s.inode]}
		if s.protocol == "tcp" && !isSSH(p.Owner) || slices.Contains(out, p) {
			continue
		}
		out = append(out, p)
	}
	return func(e *fleet.Examination) { e.MeshPort, e.Ports = mesh, out }, nil
}

func isSSH(owner string) bool {
	return owner == "ssh.service" || owner == "sshd.service" || owner == "ssh.socket" || owner == "sshd.socket" || owner == "sshd"
}

// meshPort is what the agent was told; the default where there is no agent.
func (x Examiner) meshPort() (uint16, error) {
	b, err := os.ReadFile(x.real(fleet.AgentConfigPath))
	if errors.Is(err, fs.ErrNotExist) {
		return fleet.DefaultPort, nil
	}
	if err != nil {
		return 0, err
	}
	var c struct {
		Port uint16 `json:"port"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return 0, fmt.Errorf("%s: %w", fleet.AgentConfigPath, err)
	}
	return c.Port, nil
}

func (x Examiner) sockets(table string) ([]socket, error) {
	f, err := os.Open(x.real("/proc/net/" + table))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseSockets(f, strings.TrimSuffix(table, "6"))
}

// parseSockets reads /proc/net/udp and its like (proc_net_tcp.rst):
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ...
//	 0: 00000000:CAA5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12345 ...
func parseSockets(r io.Reader, protocol string) ([]socket, error) {
	var out []socket
	lines := bufio.NewScanner(r)
	for n := 0; lines.Scan() && n < maxSockets; n++ {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || protocol == "tcp" && f[3] != tcpListen {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if !ok || err != nil {
			continue // the heading
		}
		out = append(out, socket{protocol, uint16(port), f[9]})
	}
	return out, lines.Err()
}

// owners says, by inode, whose the sockets are.
func (x Examiner) owners(ctx context.Context, sockets []socket) map[string]string {
	want := make(map[string]string, len(sockets))
	for _, s := range sockets {
		want["socket:["+s.inode+"]"] = s.inode
	}
	out := make(map[string]string)
	processes, err := os.ReadDir(x.real("/proc"))
	if err != nil {
		return out
	}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil || ctx.Err() != nil || len(out) == len(want) {
			continue
		}
		dir := x.real("/proc/" + p.Name())
		files, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue // it has ended, or is none of ours to look into
		}
		for _, file := range files {
			to, err := os.Readlink(filepath.Join(dir, "fd", file.Name()))
			if inode, ok := want[to]; err == nil && ok && (out[inode] == "" || p.Name() != "1") {
				out[inode] = owner(dir)
			}
		}
	}
	return out
}

// owner is the systemd unit a process belongs to, which its control group
// names, or the process' own name. The last one counts: a machine may be a unit
// itself.
func owner(dir string) string {
	unit := ""
	b, err := os.ReadFile(dir + "/cgroup")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			for part := range strings.SplitSeq(strings.TrimSpace(line), "/") {
				if strings.HasSuffix(part, ".service") && !strings.HasPrefix(part, "user@") {
					unit = part
				}
			}
		}
	}
	if unit != "" {
		return unit
	}
	b, err = os.ReadFile(dir + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
