package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// world is the namespaces, processes and files of one run. Each machine has a
// namespace of its own, with one link to a bridge:
//
//	hub1   hub2   a   b   c   d   large
//	  |      |    |   |   |   |     |
//	==+======+====+===+===+===+=====+==  internet, 203.0.113.0/24
//
// Between c and d nothing passes, so they talk by a hub.
type world struct {
	tag  string
	dir  string
	undo []func()
}

func newWorld() (*world, error) {
	dir, err := os.MkdirTemp("", "moggy-bench-")
	if err != nil {
		return nil, err
	}
	w := &world{tag: fmt.Sprint("mb", os.Getpid()), dir: dir}
	w.undo = append(w.undo, func() { _ = os.RemoveAll(dir) })
	err = w.add("net")
	if err == nil {
		err = w.sh("net", "ip link add br0 type bridge && ip link set br0 up")
	}
	return w, err
}

// close ends the processes and removes what was made, the last first.
func (w *world) close() {
	for _, undo := range slices.Backward(w.undo) {
		undo()
	}
}

func (w *world) ns(name string) string { return w.tag + name }

func (w *world) add(name string) error {
	if err := execute("ip", "netns", "add", w.ns(name)); err != nil {
		return err
	}
	w.undo = append(w.undo, func() { _ = execute("ip", "netns", "del", w.ns(name)) })
	return w.sh(name, "ip link set lo up")
}

// plug makes the machine name with an address on the bridge.
func (w *world) plug(name, addr string) error {
	if err := w.add(name); err != nil {
		return err
	}
	err := execute("ip", "link", "add", "eth0", "netns", w.ns(name), "type", "veth", "peer", "name", name, "netns", w.ns("net"))
	if err != nil {
		return err
	}
	if err := w.sh("net", "ip link set dev "+name+" master br0 up"); err != nil {
		return err
	}
	return w.sh(name, "ip link set eth0 up && ip addr add "+addr+"/24 dev eth0")
}

// command is a program in the machine name; it dies with us.
func (w *world) command(ctx context.Context, name string, argv ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", w.ns(name)}, argv...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

func (w *world) sh(name, script string) error {
	return execute("ip", "netns", "exec", w.ns(name), "sh", "-ec", script)
}

// start starts a program that runs until the world ends, and returns its
// process: `ip netns exec` becomes it.
func (w *world) start(ctx context.Context, name string, argv ...string) (int, error) {
	c := w.command(ctx, name, argv...)
	log, err := os.Create(filepath.Join(w.dir, name+"-"+filepath.Base(argv[0])+".log"))
	if err != nil {
		return 0, err
	}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return 0, errors.Join(err, log.Close())
	}
	w.undo = append(w.undo, func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		_ = log.Close()
	})
	return c.Process.Pid, nil
}

// timerSlack is TimerSlackNSec= of the agent's systemd unit.
const timerSlack = 200 * time.Microsecond

// asUnit does what starts a program with the timer slack that systemd gives the
// agent: it is inherited (prctl(2), PR_SET_TIMERSLACK).
func asUnit(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
		return fmt.Errorf("timer slack: %w", err)
	}
	err := do()
	return errors.Join(err, unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)) // the default again
}

func execute(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// await waits until ok, for ten seconds at most.
func await(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s", what)
		}
	}
	return nil
}

// pause lets d pass.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
