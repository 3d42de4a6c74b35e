package labtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Namespaces are a test's network namespaces: less than a lab, for what needs
// the kernel and no machines. They are gone when the test ends.
type Namespaces struct {
	tb  testing.TB
	tag string
}

// NewNamespaces returns none yet; their names begin with prefix. It skips the
// test where there can be none, as Need does.
func NewNamespaces(tb testing.TB, prefix string) *Namespaces {
	tb.Helper()
	Need(tb)
	return &Namespaces{tb, fmt.Sprint(prefix, os.Getpid())}
}

// Name is what the system calls a namespace.
func (n *Namespaces) Name(ns string) string { return n.tag + ns }

// Add makes a namespace whose addresses can be used at once.
func (n *Namespaces) Add(ns string) {
	n.tb.Helper()
	n.Run("ip", "netns", "add", n.Name(ns))
	n.tb.Cleanup(func() { n.Run("ip", "netns", "del", n.Name(ns)) })
	n.Sh(ns, "ip link set lo up; sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
}

// Sh runs a script in a namespace, and returns what it said. It may not fail.
func (n *Namespaces) Sh(ns, script string) string {
	n.tb.Helper()
	return n.Run("ip", "netns", "exec", n.Name(ns), "sh", "-ec", script)
}

// Run runs a command, and returns what it said. It may not fail.
func (n *Namespaces) Run(name string, args ...string) string {
	n.tb.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		n.tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
