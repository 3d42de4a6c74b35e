package join

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
	"github.com/moggyfleet/moggy/internal/token"
)

const hostKeyPath = "/etc/ssh/ssh_host_ed25519_key.pub"

// fit says whether this machine can become the node.
func (m Machine) fit(ctx context.Context, n *node.Node, t token.Token) error {
	switch {
	case m.absent("/run/systemd/system"):
		return hint.New("systemd does not run here", "moggy needs a Linux with systemd as its init")
	case m.absent("/dev/net/tun"):
		return hint.New("there is no /dev/net/tun here, which the mesh needs",
			"modprobe tun; in a container, its host must hand the device in")
	}
	o, err := n.Observe(ctx, node.Look{})
	if err != nil {
		return err
	}
	if o.Manifest != nil && (o.Manifest.Fleet != t.Fleet || o.Manifest.Node != t.Node) {
		return hint.New(fmt.Sprintf("this machine is node %s of fleet %s already", o.Manifest.Node, o.Manifest.Fleet),
			"the token is for node %s of fleet %s, and one machine is one node: to leave the other first, moggy leave", t.Node, t.Fleet)
	}
	if o.Current.Number > generation {
		return hint.New(fmt.Sprintf("this machine is node %s already, at generation %d", t.Node, o.Current.Number),
			"nothing to join; moggy status at the operator's shows it")
	}
	return nil
}

// sshd sees to it that the operator's ssh will find a server here, and returns
// its host key.
func (m Machine) sshd(ctx context.Context, n *node.Node) (key [wire.HostKeySize]byte, err error) {
	if !m.sshdRuns(ctx) {
		if m.sshdUnit(ctx) == "" {
			yes, err := m.Ask("moggy apply reaches this machine by ssh, and there is no ssh server. Install openssh-server?")
			if err != nil {
				return key, err
			}
			if !yes {
				return key, hint.New("no ssh server on this machine", "install one, then join again: apt-get install openssh-server")
			}
			m.Say("installing openssh-server")
			if _, err := n.Packages(ctx, []string{"openssh-server"}); err != nil {
				return key, err
			}
		}
		if unit := m.sshdUnit(ctx); unit != "" && !m.sshdRuns(ctx) {
			m.Say("starting " + unit)
			if _, err := m.Run(ctx, nil, "systemctl", "enable", "--now", unit); err != nil {
				return key, hint.Wrap(err, "why: journalctl -u %s", unit)
			}
		}
	}
	if m.absent(hostKeyPath) {
		if _, err := m.Run(ctx, nil, "ssh-keygen", "-A"); err != nil {
			return key, fmt.Errorf("SSH host keys: %w", err)
		}
	}
	return m.hostKey()
}

// sshdNames are what distributions call the server's unit.
func sshdNames() []string { return []string{"ssh.service", "sshd.service"} }

func (m Machine) sshdRuns(ctx context.Context) bool {
	for _, unit := range append(sshdNames(), "ssh.socket", "sshd.socket") {
		if out, err := m.Run(ctx, nil, "systemctl", "is-active", unit); err == nil && strings.TrimSpace(string(out)) == "active" {
			return true
		}
	}
	return false
}

// sshdUnit is the server's unit, "" if none is installed.
func (m Machine) sshdUnit(ctx context.Context) string {
	for _, unit := range sshdNames() {
		if _, err := m.Run(ctx, nil, "systemctl", "cat", unit); err == nil {
			return unit
		}
	}
	return ""
}

func (m Machine) hostKey() (key [wire.HostKeySize]byte, err error) {
	text, err := os.ReadFile(m.real(hostKeyPath))
	if errors.Is(err, fs.ErrNotExist) {
		return key, hint.New("this machine has no SSH host key of type ed25519", "ssh-keygen -A makes one")
	}
	if err != nil {
		return key, err
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return key, fmt.Errorf("%s: %w", hostKeyPath, err)
	}
	if c, ok := public.(ssh.CryptoPublicKey); ok {
		if k, ok := c.CryptoPublicKey().(ed25519.PublicKey); ok {
			copy(key[:], k)
			return key, nil
		}
	}
	return key, fmt.Errorf("%s: is of type %s", hostKeyPath, public.Type())
}
