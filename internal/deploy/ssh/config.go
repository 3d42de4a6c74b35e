package ssh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Timeouts of one connection, in seconds. A dead connection is noticed after
// aliveInterval * aliveCount.
const (
	connectTimeout = 6
	aliveInterval  = 2
	aliveCount     = 3
	// persist is how long a shared connection waits for the next command: a
	// handshake costs both ends more than all that is said over it.
	persist = 60
)

// config is the file given to ssh with -F: an entry for each route, what they
// share, then the user's own configuration, so that their keys, agents and
// habits go on working. ssh takes the first value it finds (ssh_config(5)).
func config(routes map[fleet.NodeName][]Route, dir string) string {
	var b strings.Builder
	b.WriteString("# Written by moggy on every run; ssh -F this-file NODE works by hand.\n")
	var aliases []string
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		for _, r := range routes[name] {
			aliases = append(aliases, r.Alias)
			fmt.Fprintf(&b, "Host %s\n  HostName %s\n  HostKeyAlias %s\n  User %s\n", r.Alias, r.Host, r.Node, r.User)
			if r.Port != 0 {
				fmt.Fprintf(&b, "  Port %d\n", r.Port)
			}
			if r.Jump != "" {
				fmt.Fprintf(&b, "  ProxyJump %s\n", r.Jump)
			}
		}
	}
	if len(aliases) > 0 {
		fmt.Fprintf(&b, "Host %s\n", strings.Join(aliases, " "))
		for _, line := range []string{
			"UserKnownHostsFile " + quoteConfig(dir+"/known_hosts"),
			"GlobalKnownHostsFile /dev/null",
			"BatchMode yes", // a question from one of many connections cannot be answered
			"StrictHostKeyChecking yes",
			"UpdateHostKeys no",
			"CheckHostIP no",
			"ControlPath " + quoteConfig(dir+"/%C"),
			"ControlMaster no", // what jumps uses a shared connection, and never leaves one behind
			fmt.Sprintf("ConnectTimeout %d", connectTimeout),
			fmt.Sprintf("ServerAliveInterval %d", aliveInterval),
			fmt.Sprintf("ServerAliveCountMax %d", aliveCount),
			"ForwardAgent no",
			"ForwardX11 no",
			"LogLevel ERROR",
		} {
			b.WriteString("  " + line + "\n")
		}
	}
	b.WriteString("Match all\nInclude ~/.ssh/config\nInclude /etc/ssh/ssh_config\n")
	return b.String()
}

func quoteConfig(s string) string { return `"` + s + `"` }

// knownHosts are the keys the lock pins, one line each, under the node's name
// whatever its address.
func knownHosts(l *fleet.Lock) string {
	var b strings.Builder
	for _, n := range l.Nodes {
		for _, k := range n.HostKeys {
			fmt.Fprintf(&b, "%s %s\n", n.Name, k)
		}
	}
	return b.String()
}

// Quote makes words into one line of POSIX shell that yields them again, as
// sshd hands a command to the login shell.
func Quote(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsFunc(w, special) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func special(r rune) bool {
	plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@%+,", r)
	return !plain
}
