package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/machine"
	"github.com/moggyfleet/moggy/internal/lab/mirror"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// newKey makes an SSH key: the private half as OpenSSH's file, the public one
// as a line of authorized_keys.
func newKey(comment string) (private []byte, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return nil, "", err
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, "", err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPub))) + " " + comment + "\n"
	return pem.EncodeToMemory(block), line, nil
}

// makeKey makes the key of the lab's owner.
func (s *session) makeKey() error {
	private, public, err := newKey("owner of lab " + s.name)
	if err != nil {
		return err
	}
	if err := writeFile(s.run("key"), private); err != nil {
		return err
	}
	return writeFile(s.run("key.pub"), []byte(public))
}

// files are what makes a machine that one: its name, its host key, its owner's
// key and account, where it gets packages from, whom it asks for names and whom
// it trusts.
func (s *session) files(place topology.Machine) (map[string]machine.File, error) {
	hostKey, hostPub, err := newKey("root@" + string(place.Node))
	if err != nil {
		return nil, err
	}
	name := string(place.Node)
	hosts := fmt.Sprintf("127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n", name)
	trusted, err := os.ReadFile(s.run("trust.pem"))
	if err != nil {
		return nil, err
	}
	node, _ := s.state.Fleet.Node(place.Node)
	files := map[string]machine.File{
		"etc/hostname":                     {Text: name + "\n", Mode: 0o644},
		"etc/hosts":                        {Text: hosts, Mode: 0o644},
		"etc/resolv.conf":                  {Text: s.resolver(place.V4.IsValid(), place.V6.IsValid()), Mode: 0o644},
		debianRoots:                        {Text: string(trusted), Mode: 0o644},
		"etc/machine-id":                   {Text: "", Mode: 0o444},
		"etc/apt/sources.list":             {Text: mirror.Source, Mode: 0o644},
		"etc/ssh/ssh_host_ed25519_key":     {Text: string(hostKey), Mode: 0o600},
		"etc/ssh/ssh_host_ed25519_key.pub": {Text: hostPub, Mode: 0o644},
		"root/":                            {Mode: 0o700},
	}
	// From here update-ca-certificates takes them into the bundle when it is made anew.
	for _, name := range []string{"ca", "acme"} {
		cert, err := os.ReadFile(s.run(name + ".crt"))
		if err != nil {
			return nil, err
		}
		if len(cert) > 0 {
			files["usr/local/share/ca-certificates/lab-"+name+".crt"] = machine.File{Text: string(cert), Mode: 0o644}
		}
	}
	if port := sshPort(node); port != defaultSSHPort {
		files["etc/ssh/sshd_config.d/port.conf"] = machine.File{Text: fmt.Sprintf("Port %d\n", port), Mode: 0o644}
	}
	return files, s.account(files, sshUser(node))
}

const defaultSSHPort = 22

func sshPort(n fleet.Node) uint16 {
	if n.SSH.Port == 0 {
		return defaultSSHPort
	}
	return n.SSH.Port
}

func sshUser(n fleet.Node) string {
	if n.SSH.User == "" {
		return "root"
	}
	return n.SSH.User
}

// account lets the owner in by the user that the fleet's file names: one that
// may become root without a password, as hosters set them up.
func (s *session) account(files map[string]machine.File, user string) error {
	owner, err := os.ReadFile(s.run("key.pub"))
	if err != nil {
		return err
	}
	home, id := "root", 0
	if user != "root" {
		home, id = "home/"+user, 1000
		for name, line := range map[string]string{
			"etc/passwd": fmt.Sprintf("%s:x:%d:%d::/%s:/bin/bash\n", user, id, id, home),
			"etc/group":  fmt.Sprintf("%s:x:%d:\n", user, id),
			"etc/shadow": fmt.Sprintf("%s:*:19000:0:99999:7:::\n", user),
		} {
			path := filepath.Join(s.state.Root, name)
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			files[name] = machine.File{Text: string(text) + line, Mode: st.Mode().Perm()}
		}
		files[home+"/"] = machine.File{Mode: 0o755, User: id}
		files["etc/sudoers.d/owner"] = machine.File{Text: user + " ALL=(ALL) NOPASSWD: ALL\n", Mode: 0o440}
	}
	files[home+"/.ssh/"] = machine.File{Mode: 0o700, User: id}
	files[home+"/.ssh/authorized_keys"] = machine.File{Text: string(owner), Mode: 0o600, User: id}
	return nil
}
