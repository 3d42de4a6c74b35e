package doctor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Attempt is one ssh to a node, made verbose (ssh -v), that ran Survey there.
type Attempt struct {
	Code           int // ssh's exit code; 255 is its own failure (ssh(1), EXIT STATUS)
	Stdout, Stderr string
	Late           bool // it was given up
}

// Survey is what an Attempt runs as root: it prints the user's number, and
// "systemd" or the name of what else is the machine's first process.
const Survey = `id -u; if [ -d /run/systemd/system ]; then echo systemd; else cat /proc/1/comm; fi`

// stage is how far an attempt got.
type stage int

const (
	atConnect stage = iota // no SSH server was talked to
	atHostKey              // the server's key is not the right one
	atLogin                // the server does not take our key
	inside                 // a command ran
)

// stage reads ssh's own words, which are the same in every version of OpenSSH
// since 2016 (sshconnect.c, sshconnect2.c).
func (a Attempt) stage() stage {
	switch {
	case a.Code != 255 && !a.Late:
		return inside
	case strings.Contains(a.Stderr, "Host key verification failed"):
		return atHostKey
	case strings.Contains(a.Stderr, "Permission denied (") || strings.Contains(a.Stderr, "Too many authentication failures"):
		return atLogin
	}
	return atConnect
}

// reason is the last line that ssh did not write for debugging.
func (a Attempt) reason() string {
	reason := ""
	for line := range strings.Lines(a.Stderr) {
		line = plain(line)
		if line == "" || strings.HasPrefix(line, "debug") || strings.HasPrefix(line, "OpenSSH_") ||
			strings.HasPrefix(line, "Transferred: ") || strings.HasPrefix(line, "Bytes per second: ") || strings.HasPrefix(line, "Authenticated to ") {
			continue
		}
		reason = line
	}
	if reason == "" && a.Late {
		reason = "no answer in time"
	}
	return reason
}

// key is the key that the server took, "" where ssh did not say.
func (a Attempt) key() string {
	for line := range strings.Lines(a.Stderr) {
		if _, key, ok := strings.Cut(line, "Server accepts key: "); ok {
			return plain(key)
		}
	}
	return ""
}

// Through is the result of a way through a hub.
func (a Attempt) Through(hub fleet.NodeName, took string) Result {
	if a.stage() == atConnect {
		res := fail("", fmt.Sprintf("no SSH through %s: %s", hub, a.reason()))
		res.Silent = a.Late || !strings.Contains(a.Stderr, "refused")
		return res
	}
	return pass("its sshd answers over the mesh in " + took)
}

// HostKey is the result for the host key.
func (a Attempt) HostKey(node fleet.NodeName) Result {
	switch a.stage() {
	case atConnect:
		return fail("at its keyboard: journalctl -u ssh -u sshd -n 50",
			"something answers at its port, but does not speak SSH with us: "+a.reason())
	case atHostKey:
		return fail(fmt.Sprintf("if it was reinstalled: moggy token %s --replace, or remove host_keys from its block in fleet.lock.hcl", node),
			"it shows another host key than fleet.lock.hcl holds: it was reinstalled, or somebody is in between")
	case atLogin, inside:
	}
	return pass("is the one that fleet.lock.hcl holds")
}

// Login is the result for logging in. Keys is what was found of the operator's
// own.
func (a Attempt) Login(node fleet.NodeName, user string, keys Result) Result {
	if a.stage() == atLogin {
		switch {
		case strings.Contains(a.Stderr, "Too many authentication failures"):
			return fail("name one key for it in ~/.ssh/config: IdentityFile, IdentitiesOnly yes", "your agent offers more keys than its sshd allows")
		case keys.Status == Warned:
			return fail(keys.Next, "its sshd refuses "+user+": "+keys.Text)
		}
		return fail(fmt.Sprintf("your key must be among %s's authorized keys on %s, and in your agent if it has a passphrase: ssh-add", user, node),
			"its sshd refuses "+user+" with every key you have")
	}
	if key := a.key(); key != "" {
		return pass("as " + user + " with " + key)
	}
	return pass("as " + user)
}

// Root is the result for being root there.
func (a Attempt) Root(user string) Result {
	facts := strings.Fields(a.Stdout)
	switch {
	case len(facts) > 0 && facts[0] == "0":
		if user != "root" {
			return pass(user + " becomes root by sudo")
		}
		return pass("as root")
	case user != "root":
		return fail(`give it passwordless sudo, or name root in the file: ssh = "root@..."`,
			user+" may not become root there: "+a.reason())
	}
	return fail("look at root's shell in /etc/passwd there", "logged in, but no command runs: "+a.reason())
}

// Systemd is the result for the machine's first process.
func (a Attempt) Systemd() Result {
	facts := strings.Fields(a.Stdout)
	if len(facts) > 1 && facts[1] == "systemd" {
		return pass("it is the machine's init")
	}
	return fail("moggy needs a Linux with systemd as its init", "systemd does not run there")
}

// Trouble is what the command that ran there said of why it failed.
func (a Attempt) Trouble() error {
	reason := a.reason()
	for line := range strings.Lines(a.Stderr) {
		if text, ok := strings.CutPrefix(plain(line), "moggy: error: "); ok {
			reason = text
			break
		}
	}
	return errors.New(reason)
}
