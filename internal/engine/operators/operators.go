// Package operators renders who may log in to a node: the fleet's operators,
// in a file of our own that sshd is told to read besides the user's. It never
// touches the keys a machine's owner put there by hand.
package operators

import (
	"fmt"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// sshdDropIn adds our directory to the places where sshd looks for keys. The
// first two are sshd's own default (sshd_config(5)).
const sshdDropIn = `# Written by moggy; a change made here is shown as drift and taken back.
AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2 /etc/moggy/authorized_keys.d/%u
`

// sshdSound says whether sshd would start with its configuration. On Debian the
// directory it wants is there only while it runs, which is no mistake of its
// configuration's.
const sshdSound = `[ -x /usr/sbin/sshd ] || exit 0
said=$(/usr/sbin/sshd -t 2>&1) && exit 0
case $said in *"privilege separation directory"*) exit 0 ;; esac
echo "$said" >&2
exit 1`

const (
	dropInPath = "/etc/ssh/sshd_config.d/50-moggy.conf"
	keysDir    = "/etc/moggy/authorized_keys.d/"
)

// Part is what lets the operators in as the user that node names.
func Part(f *fleet.Fleet, n fleet.Node) fleet.Part {
	var keys strings.Builder
	keys.WriteString("# Written by moggy: the fleet's operators.\n")
	for _, o := range f.Operators {
		fmt.Fprintf(&keys, "%s\n", strings.TrimSpace(o.Key))
	}
	return fleet.Part{
		Engine: "operators",
		Files: []fleet.File{
			fleet.NewFile(keysDir+n.SSH.User, 0o644, []byte(keys.String())),
			fleet.NewFile(dropInPath, 0o644, []byte(sshdDropIn)),
		},
		Units: []fleet.Unit{{Name: "sshd.service", Foreign: true, ReloadOn: []string{dropInPath}}},
		Checks: []fleet.Check{
			// Where sshd does not listen on the loopback it did not before, either, and
			// the check passes.
			{Name: "sshd answers", Kind: fleet.CheckSSH, Address: fmt.Sprintf("127.0.0.1:%d", n.SSH.Port)},
			{Name: "sshd accepts its configuration", Kind: fleet.CheckRun, Command: []string{"/bin/sh", "-c", sshdSound}},
		},
	}
}
