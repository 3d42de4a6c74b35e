package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/moggyfleet/moggy/internal/lab/machine"
	"github.com/moggyfleet/moggy/internal/lab/mirror"
	"github.com/moggyfleet/moggy/internal/lab/space"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// dialer connects from within a namespace of the host.
func dialer(name string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = space.Do(name, func() (err error) {
			var d net.Dialer
			c, err = d.DialContext(ctx, network, address)
			return err
		})
		return c, err
	}
}

// Serve serves the lab's internet: packages, on port 80 of the mirror's
// address. It listens until ctx ends. The caller must be in the mirror's
// network namespace.
func (l *Lab) Serve(ctx context.Context) error {
	s, err := l.open(ctx, false)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	return mirror.Serve(ctx, listener, s.state.Packages)
}

// serveTime is how long the mirror may take to answer.
const serveTime = 10 * time.Second

// serve starts the lab's internet's services if they do not answer.
func (s *session) serve(ctx context.Context) error {
	name := s.full(topology.Mirror)
	if s.answers(ctx, name) {
		return nil
	}
	if len(s.opts.Serve) == 0 {
		return s.serveHere(name)
	}
	log, err := os.OpenFile(s.run("serve.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.opts.Serve[0], append(s.opts.Serve[1:len(s.opts.Serve):len(s.opts.Serve)], s.name)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", machine.Mark(s.name)}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := space.Do(name, cmd.Start); err != nil {
		return fmt.Errorf("start the mirror: %w", err)
	}
	go cmd.Wait() //nolint:errcheck // it outlives us
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !s.answers(ctx, name) {
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(s.run("serve.log"))
			return fmt.Errorf("the mirror does not answer: %w: %s", ctx.Err(), said)
		case <-tick.C:
		}
	}
	return nil
}

func (s *session) answers(ctx context.Context, name string) bool {
	c, err := dialer(name)(ctx, "tcp4", net.JoinHostPort("127.0.0.1", "80"))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// serveHere serves from this process, until the lab is down and its directory
// gone with it.
func (s *session) serveHere(name string) error {
	var listener net.Listener
	if err := space.Do(name, func() (err error) {
		listener, err = net.Listen("tcp", ":80")
		return err
	}); err != nil {
		return fmt.Errorf("start the mirror: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for range tick.C {
			if _, err := os.Stat(s.run()); errors.Is(err, fs.ErrNotExist) {
				return
			}
		}
	}()
	go mirror.Serve(ctx, listener, s.state.Packages) //nolint:errcheck // its end is the lab's
	return nil
}
