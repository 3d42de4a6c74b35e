// Package ssh reaches the fleet's machines through the system's own ssh: the
// user's keys, agents and configuration, host keys checked against the lock,
// nodes behind NAT through any hub. It carries bytes and exit codes; what to
// say to a node is package deploy's business.
package ssh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// hedge is how long one route may take before the next is tried beside it.
const hedge = 800 * time.Millisecond

// dialTimeout is how long a node's own addresses are tried.
const dialTimeout = 8 * time.Second

// killDelay is how long ssh may take to end after it was told to.
const killDelay = 2 * time.Second

// Client runs commands on nodes. Its methods may be called from any goroutine.
type Client struct {
	dir    string // 0700: configuration, known hosts, control sockets
	config string

	mu     sync.Mutex // guards what follows
	routes map[fleet.NodeName][]Route
	ready  map[fleet.NodeName]Route // the route that answered last
	dials  map[fleet.NodeName]*dialling

	life    context.Context // of what commands share: until Close
	end     context.CancelFunc
	running sync.WaitGroup // every ssh that was started
}

// New prepares a directory for ssh, of which there is one per fleet directory,
// user and network namespace: shared connections must never lead into another
// network where the same addresses mean other machines.
func New(fleetDir string) (*Client, error) {
	dir, err := stateDir(fleetDir)
	if err != nil {
		return nil, err
	}
	c := &Client{
		dir: dir, config: filepath.Join(dir, "config"),
		ready: make(map[fleet.NodeName]Route), dials: make(map[fleet.NodeName]*dialling),
	}
	c.life, c.end = context.WithCancel(context.Background())
	return c, nil
}

// stateDir is short, since a control socket's path must fit 104 bytes
// (unix(7), with room for ssh's own suffix).
func stateDir(fleetDir string) (string, error) {
	abs, err := filepath.Abs(fleetDir)
	if err != nil {
		return "", err
	}
	network, _ := os.Readlink("/proc/self/ns/net") // "" where there are none: then there is one network
	sum := sha256.Sum256([]byte(abs + "\x00" + network))
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" || len(base) > 30 {
		base = filepath.Join(os.TempDir(), fmt.Sprintf("moggy-%d", os.Getuid()))
		if err := private(base); err != nil {
			return "", err
		}
	}
	dir := filepath.Join(base, "moggy-"+hex.EncodeToString(sum[:5]))
	return dir, private(dir)
}

// private makes a directory that only its owner enters, or checks that it is
// one: in /tmp somebody else may have made it first.
func private(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() || fi.Mode().Perm() != 0o700 || !ownedByUs(fi) {
		return hint.New(dir+": not a directory of yours alone", "remove it, or set XDG_RUNTIME_DIR")
	}
	return nil
}

// Dir is a directory that is the user's alone, one for each fleet directory and
// network.
func (c *Client) Dir() string { return c.dir }

// Use tells the client what the fleet and its lock say now; it is called again
// whenever the lock has learned something.
func (c *Client) Use(f *fleet.Fleet, l *fleet.Lock) error {
	routes := Routes(f, l)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routes = routes
	if err := renameio.WriteFile(filepath.Join(c.dir, "known_hosts"), []byte(knownHosts(l)), 0o600); err != nil {
		return err
	}
	return renameio.WriteFile(c.config, []byte(config(routes, c.dir)), 0o600)
}

// Command is what is run on a node, as root.
type Command struct {
	Args   []string
	Stdin  io.Reader
	Stdout io.Writer
	// Fresh asks for a connection of its own.
	Fresh bool
}

// Run runs the command on the node over the first route that answers. Its
// error is an *Unreachable where no route did, an *ExitError where the command
// failed.
func (c *Client) Run(ctx context.Context, node fleet.NodeName, cmd Command) error {
	r, err := c.route(ctx, node)
	if err != nil {
		return err
	}
	err = c.exec(ctx, r, cmd)
	if _, ok := errors.AsType[*connectionError](err); ok {
		c.forget(node)
	}
	return err
}

// Output is Run, returning what the command wrote to its standard output.
func (c *Client) Output(ctx context.Context, node fleet.NodeName, stdin io.Reader, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := c.Run(ctx, node, Command{Args: args, Stdin: stdin, Stdout: &out})
	return out.Bytes(), err
}

// Via says over which route the node answered last.
func (c *Client) Via(node fleet.NodeName) (Route, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.ready[node]
	return r, ok
}

// Interactive is the argument list of an ssh that gives its user the terminal.
func (c *Client) Interactive(ctx context.Context, node fleet.NodeName, args ...string) ([]string, error) {
	r, err := c.route(ctx, node)
	if err != nil {
		return nil, err
	}
	argv := []string{"ssh", "-F", c.config, "-o", "BatchMode=no"}
	if r.Jump != "" {
		argv = append(argv, "-o", "ProxyJump="+r.Jump)
	}
	argv = append(argv, r.Alias)
	if len(args) > 0 {
		argv = append(argv, "--", Quote(args...))
	}
	return argv, nil
}

func (c *Client) forget(node fleet.NodeName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ready, node)
}

// exec runs ssh once.
func (c *Client) exec(ctx context.Context, r Route, cmd Command, options ...string) error {
	c.running.Add(1)
	defer c.running.Done()
	args := append([]string{"-F", c.config, "-T"}, options...)
	if cmd.Fresh {
		args = append(args, "-o", "ControlPath=none")
	} else {
		args = append(args, "-o", "ControlMaster=auto", "-o", fmt.Sprintf("ControlPersist=%d", persist))
	}
	if r.Jump != "" {
		args = append(args, "-o", "ProxyJump="+r.Jump)
	}
	words := cmd.Args
	if r.User != "root" {
		words = append([]string{"sudo", "-n", "--"}, words...)
	}
	args = append(args, r.Alias, "--", Quote(words...))
	run := exec.CommandContext(ctx, "ssh", args...)
	// A Ctrl-C at the terminal is ours to decide about: it must not cut off what is
	// under way on the nodes.
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
	run.WaitDelay = killDelay
	var stderr tail
	run.Stdin, run.Stdout, run.Stderr = cmd.Stdin, cmd.Stdout, &stderr
	err := run.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return hint.Wrap(err, "apt-get install openssh-client")
	}
	if ctxErr := context.Cause(ctx); err != nil && ctxErr != nil {
		return &connectionError{r, ctxErr.Error()}
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if exit.ExitCode() == 255 { // ssh's own failure (ssh(1), EXIT STATUS)
		return &connectionError{r, stderr.lastLine()}
	}
	return &ExitError{Code: exit.ExitCode(), Args: cmd.Args, Stderr: stderr.String()}
}

// Close gives up what is still being tried. Shared connections stay a while,
// for the next command.
func (c *Client) Close() {
	c.end()
	c.running.Wait()
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }

func (t *tail) lastLine() string {
	s := t.String()
	return strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
}
