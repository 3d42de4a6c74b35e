package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab/machine"
	"github.com/moggyfleet/moggy/internal/lab/space"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// Stdio is what a command reads and writes.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

var errNoSite = errors.New("no such site in the lab")

// Run runs a command of the host in the lab's internet, or with from in that
// site's LAN: it asks the lab's resolver for names, trusts whom everybody there
// trusts, and has an SSH agent that holds the key of the lab's owner. It
// returns the command's exit code (128 and the signal's number where one ended
// it), or an error if there was none.
func (l *Lab) Run(ctx context.Context, from fleet.SiteName, argv []string, io Stdio) (int, error) {
	s, err := l.open(ctx, false)
	if err != nil {
		return 0, err
	}
	where, err := s.desk(from)
	if err != nil {
		return 0, err
	}
	socket, stop, err := s.agent()
	if err != nil {
		return 0, err
	}
	defer stop()
	cmd, err := s.guest(argv)
	if err != nil {
		return 0, err
	}
	cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+socket, "SSH_AGENT_PID=")
	return s.passThrough(cmd, io, where)
}

// guesting puts the lab's resolver in place of this box's, in a mount namespace
// of its own, and lets go of other namespaces' names there, which would keep
// them alive. $1 is the file's directory, $2 the beginning of the names of this
// lab's namespaces; the rest runs.
const guesting = `
run=$1 own=$2; shift 2
for f in resolv.conf nsswitch.conf; do
	[ ! -e "$run/$f" ] || [ ! -e "/etc/$f" ] || mount --bind "$run/$f" "/etc/$f" || exit
done
for n in /run/netns/*; do
	case $n in "$own"*) ;; *) [ ! -e "$n" ] || umount -l "$n" 2>/dev/null ;; esac
done
exec "$@"
`

// guest is a command of this box's as it is run in the lab.
func (s *session) guest(argv []string) (*exec.Cmd, error) {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	if err := s.writeResolver(); err != nil {
		return nil, err
	}
	args := append([]string{"-c", guesting, "moggy-lab", s.run(), space.Path(s.full("")), program}, argv[1:]...)
	cmd := exec.Command("sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		// This box's way to the internet does not lead to the lab's.
		if !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	trusted := s.run("trust.pem")
	cmd.Env = append(cmd.Env, machine.Mark(s.name), "SSL_CERT_FILE="+trusted, "CURL_CA_BUNDLE="+trusted)
	return cmd, nil
}

// writeResolver writes what a command of this box asks for names: the lab's
// resolver, by the way of resolv.conf, whatever this box itself uses.
func (s *session) writeResolver() error {
	if err := writeFile(s.run("resolv.conf"), []byte(s.resolver(true, true))); err != nil {
		return err
	}
	text, err := os.ReadFile("/etc/nsswitch.conf")
	if err != nil {
		return nil //nolint:nilerr // without that file it is files, then DNS
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "hosts:") {
			line = "hosts: files dns\n"
		}
		b.WriteString(line)
	}
	return errors.Join(writeFile(s.run("nsswitch.conf"), []byte(b.String())),
		os.Chmod(s.run("resolv.conf"), 0o644), os.Chmod(s.run("nsswitch.conf"), 0o644))
}

// desk is the space that commands of the operator run in.
func (s *session) desk(from fleet.SiteName) (string, error) {
	if from == "" {
		return topology.Operator, nil
	}
	if _, ok := s.state.Fleet.Site(from); !ok {
		return "", hint.Wrap(fmt.Errorf("site %s: %w", from, errNoSite), "moggy lab status lists them")
	}
	return topology.Desk(from), nil
}

// passThrough runs the command with this process's standard files, hands it
// the signals this process gets, and returns its exit code. in is the space to
// run it in, "" for this process's own.
func (s *session) passThrough(cmd *exec.Cmd, io Stdio, in string) (int, error) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.In, io.Out, io.Err
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	start := cmd.Start
	if in != "" {
		start = func() error { return space.Do(s.full(in), cmd.Start) }
	}
	if err := start(); err != nil {
		return 0, err
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case sig := <-signals:
				// The terminal has sent its own to the whole foreground group.
				if sig != syscall.SIGINT && sig != syscall.SIGQUIT || !ownsTerminal(io.In) {
					_ = cmd.Process.Signal(sig)
				}
			case <-done:
				return
			}
		}
	}()
	return exitCode(cmd.Wait())
}

// ownsTerminal says whether r is a terminal, whose keys reach the command
// without our help.
func ownsTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// agent serves the owner's key on a socket until stop is called.
func (s *session) agent() (socket string, stop func(), err error) {
	text, err := os.ReadFile(s.run("key"))
	if err != nil {
		return "", nil, err
	}
	key, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", s.run("key"), err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key, Comment: "owner of lab " + s.name}); err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp(s.run(), "agent-")
	if err != nil {
		return "", nil, err
	}
	socket = filepath.Join(dir, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = agent.ServeAgent(ring, c) // ends when the client hangs up
			}()
		}
	}()
	return socket, func() { listener.Close(); os.RemoveAll(dir) }, nil
}

// Exec runs a command at the machine's own keyboard, as root, and returns its
// exit code. It needs no network in the machine.
func (l *Lab) Exec(ctx context.Context, node fleet.NodeName, argv []string, io Stdio) (int, error) {
	s, err := l.open(ctx, false)
	if err != nil {
		return 0, err
	}
	_, m, err := s.node(node)
	if err != nil {
		return 0, err
	}
	cmd, err := m.Exec(context.WithoutCancel(ctx), argv...)
	if err != nil {
		return 0, s.off(node, err)
	}
	return s.passThrough(cmd, io, "")
}

func (s *session) off(node fleet.NodeName, err error) error {
	if errors.Is(err, machine.ErrOff) {
		return hint.Wrap(err, "moggy lab heal %s", node)
	}
	return err
}

// Copy carries a file to a machine, as with a USB stick: whole or not at all,
// with its mode.
func (l *Lab) Copy(ctx context.Context, file string, node fleet.NodeName, path string) error {
	s, err := l.open(ctx, false)
	if err != nil {
		return err
	}
	_, m, err := s.node(node)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if strings.HasSuffix(path, "/") {
		path += filepath.Base(file)
	}
	return s.off(node, m.Put(ctx, path, st.Mode(), f))
}

// SSH runs the host's ssh to a node as its owner: from the lab's internet, or
// from the node's own site where it has no public address. It returns ssh's
// exit code.
func (l *Lab) SSH(ctx context.Context, node fleet.NodeName, argv []string, io Stdio) (int, error) {
	s, err := l.open(ctx, false)
	if err != nil {
		return 0, err
	}
	place, _, err := s.node(node)
	if err != nil {
		return 0, err
	}
	n, _ := s.state.Fleet.Node(node)
	from, address := fleet.SiteName(""), place.V4
	if len(n.Public) > 0 {
		address = n.Public[0]
	} else {
		from = place.Site
	}
	if !address.IsValid() {
		address = place.V6
	}
	if !address.IsValid() {
		return 0, hint.Wrap(fmt.Errorf("node %s has no address", node), "moggy lab exec %s -- bash", node)
	}
	known, err := os.CreateTemp(s.run(), "known-hosts-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(known.Name())
	key, err := os.ReadFile(s.disk(string(node), "upper/etc/ssh/ssh_host_ed25519_key.pub"))
	if err == nil {
		_, err = fmt.Fprintf(known, "%s %s", node, key)
	}
	if err := errors.Join(err, known.Close()); err != nil {
		return 0, err
	}
	args := []string{
		"ssh", "-F", "none", "-l", sshUser(n), "-p", fmt.Sprint(sshPort(n)),
		"-o", "UserKnownHostsFile=" + known.Name(), "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
		"-o", "HostKeyAlias=" + string(node), "-o", "LogLevel=ERROR", address.String(),
	}
	return l.Run(ctx, from, append(args, argv...), io)
}
