package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/moggyfleet/moggy/internal/lab/machine"
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

// Serve serves the lab's internet until ctx ends: packages, names, images, and
// the front of the ACME server, each on its own address. The caller must be in
// the internet's servers' network namespace.
func (l *Lab) Serve(ctx context.Context) error {
	s, err := l.open(ctx, false)
	if err != nil {
		return err
	}
	i, err := s.listen()
	if err != nil {
		return err
	}
	return i.serve(ctx)
}

// serveTime is how long the lab's internet may take to answer.
const serveTime = 30 * time.Second

// serve starts what the lab's internet serves, if it does not answer.
func (s *session) serve(ctx context.Context, p Progress) error {
	p.Step(PartInternet, "starting its servers")
	if _, err := s.authority(); err != nil {
		return err
	}
	if err := s.startPebble(ctx); err != nil {
		return err
	}
	if err := s.startServing(ctx); err != nil {
		return err
	}
	root, err := s.acmeRoot(ctx)
	if err != nil {
		return err
	}
	if err := s.writeTrust(root); err != nil {
		return err
	}
	p.Done(PartInternet, "packages, names"+s.engines(root != nil))
	return nil
}

// engines says what else there is, and what is not because it was not built.
func (s *session) engines(acme bool) string {
	have, missing := "", ""
	for _, e := range []struct {
		there      bool
		what, name string
	}{
		{exists(s.engine("images")), "images", "images"},
		{acme, "certificates", "pebble"},
	} {
		if e.there {
			have += ", " + e.what
		} else {
			missing += "; no " + e.what + " until scripts/engine.sh " + e.name + " was run"
		}
	}
	return have + missing
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s *session) startServing(ctx context.Context) error {
	front := net.JoinHostPort(s.net.Servers[topology.Packages].V4.String(), "80")
	if s.reaches(ctx, front) {
		return nil
	}
	if len(s.opts.Serve) == 0 {
		return s.serveHere()
	}
	argv := append(s.opts.Serve[1:len(s.opts.Serve):len(s.opts.Serve)], s.name)
	if err := s.detached("serve.log", nil, s.opts.Serve[0], argv...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !s.reaches(ctx, front) {
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(s.run("serve.log"))
			return fmt.Errorf("the lab's internet does not answer: %w: %s", ctx.Err(), said)
		case <-tick.C:
		}
	}
	return nil
}

// detached starts a program in the namespace of the internet's servers. It
// outlives us, and goes with the lab.
func (s *session) detached(file string, env []string, program string, args ...string) error {
	out, err := os.OpenFile(s.run(file), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", machine.Mark(s.name)}, env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := space.Do(s.full(topology.Mirror), cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	go cmd.Wait() //nolint:errcheck // it outlives us
	return nil
}

// reaches says whether a server of the internet takes connections, asked from
// beside it.
func (s *session) reaches(ctx context.Context, address string) bool {
	c, err := dialer(s.full(topology.Mirror))(ctx, "tcp4", address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// serveHere serves from this process, until the lab is down and its directory
// gone with it.
func (s *session) serveHere() error {
	var i *internet
	if err := space.Do(s.full(topology.Mirror), func() (err error) {
		i, err = s.listen()
		return err
	}); err != nil {
		return fmt.Errorf("start the lab's internet: %w", err)
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
	go i.serve(ctx) //nolint:errcheck // its end is the lab's
	return nil
}
