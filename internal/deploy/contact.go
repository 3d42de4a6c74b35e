package deploy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/cargo"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// firstDir is where our binary stands on a node until a generation brings it.
const firstDir = "/var/lib/moggy/first"

// contact meets a node for the first time: its host key is accepted and
// pinned, our binary brought, its mesh key made there.
func (d *Deployment) contact(ctx context.Context, name fleet.NodeName) error {
	ctx, stop := context.WithTimeoutCause(ctx, contactTimeout, errors.New("first contact took too long"))
	defer stop()
	if len(d.Lock().Node(name).HostKeys) == 0 {
		d.Progress.Step(string(name), "asking for its host key")
		if err := d.pin(ctx, name); err != nil {
			return err
		}
	}
	d.Progress.Step(string(name), "looking at the machine")
	arch, err := d.survey(ctx, name)
	if err != nil {
		return err
	}
	bin, err := d.Binaries.For(arch)
	if err != nil {
		return err
	}
	d.Progress.Step(string(name), "bringing moggy for "+arch+", "+size(bin.Size))
	if err := d.bring(ctx, name, bin); err != nil {
		return err
	}
	d.answersWith(name)
	made, err := d.target(name).init(ctx)
	if err != nil {
		return err
	}
	d.Progress.Done(string(name), "first contact made")
	return d.learn(func(l *fleet.Lock) {
		n := l.Node(name)
		n.NextKey, n.OldKey, n.GoneKey = fleet.Key{}, fleet.Key{}, fleet.Key{}
		n.MeshKey, n.Arch = made.MeshKey, made.Arch
		l.Put(n)
	})
}

// pin asks for the node's host key and, once it is accepted, keeps it.
func (d *Deployment) pin(ctx context.Context, name fleet.NodeName) error {
	keys, err := d.SSH.HostKeys(ctx, name)
	if err != nil {
		return err
	}
	for _, k := range keys {
		ok, err := d.Accept(name, k)
		if err != nil {
			return err
		}
		if !ok {
			return hint.New("its host key was not accepted", "compare it on the machine: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
		}
	}
	return d.learn(func(l *fleet.Lock) {
		n := l.Node(name)
		n.HostKeys = keys
		l.Put(n)
	})
}

// surveyScript prints, one a line: the machine as uname names it, the user's
// number, and whether systemd runs.
const surveyScript = `uname -m; id -u; if [ -d /run/systemd/system ]; then echo systemd; else echo none; fi`

// survey says of which architecture a machine is, having looked whether it can
// be a node at all.
func (d *Deployment) survey(ctx context.Context, name fleet.NodeName) (arch string, err error) {
	out, err := d.SSH.Output(ctx, name, nil, "sh", "-c", surveyScript)
	if err != nil {
		return "", err
	}
	facts := strings.Fields(string(out))
	if len(facts) != 3 {
		return "", fmt.Errorf("%s does not answer like a shell: %.100q", name, out)
	}
	switch {
	case facts[1] != "0":
		return "", hint.New("user "+d.user(name)+" may not become root there", "give it passwordless sudo, or name root in the file: ssh = \"root@...\"")
	case facts[2] != "systemd":
		return "", hint.New("systemd does not run there", "moggy needs a Linux with systemd as its init")
	}
	arch, ok := map[string]string{"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}[facts[0]]
	if !ok {
		return "", hint.New("a machine of type "+facts[0], "moggy is built for x86_64 and aarch64")
	}
	return arch, nil
}

// haveScript says whether our binary is on the node already, be it as that of
// the generation in force: $0 is the digest that it must have.
const haveScript = `set -eu; umask 077; mkdir -p ` + firstDir + `; cd ` + firstDir + `
is() { [ -f "$2" ] && echo "$1  $2" | sha256sum -c --status; }
if is "$0" moggy; then echo have; exit 0; fi
if is "$0" ` + binaryPath + `; then cp ` + binaryPath + ` moggy.part; chmod 0700 moggy.part; mv moggy.part moggy; echo have; fi`

// bringScript reads our binary, compressed, and leaves it only when it is
// whole: $0 is the digest that it must have.
const bringScript = `set -eu; umask 077; mkdir -p ` + firstDir + `; cd ` + firstDir + `
trap 'rm -f moggy.part' EXIT; gzip -dc >moggy.part; echo "$0  moggy.part" | sha256sum -c --status
chmod 0700 moggy.part; mv moggy.part moggy`

func (d *Deployment) bring(ctx context.Context, name fleet.NodeName, bin cargo.Binary) error {
	var have bytes.Buffer
	err := d.target(name).run.Run(ctx, name, ssh.Command{Args: []string{"sh", "-c", haveScript, string(bin.Digest)}, Stdout: &have})
	if err != nil {
		return fmt.Errorf("looking for moggy: %w", err)
	}
	if strings.TrimSpace(have.String()) == "have" {
		return nil
	}
	f, err := os.Open(bin.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, w := io.Pipe()
	go func() {
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // its only error is a level that does not exist
		_, err := io.Copy(z, f)
		w.CloseWithError(errors.Join(err, z.Close()))
	}()
	var out bytes.Buffer
	err = d.target(name).run.Run(ctx, name, ssh.Command{Args: []string{"sh", "-c", bringScript, string(bin.Digest)}, Stdin: r, Stdout: &out})
	r.CloseWithError(io.ErrClosedPipe)
	if err != nil {
		return fmt.Errorf("bringing moggy: %w", err)
	}
	return nil
}
