package mesh

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// in runs do on a thread that is in a namespace: sockets that are made there stay
// in it.
func (w *world) in(ns string, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		f, err := os.Open("/run/netns/" + w.Name(ns))
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// listen listens for TCP on m's mesh address.
func (m *machine) listen(at netip.Addr) net.Listener {
	m.w.t.Helper()
	var l net.Listener
	err := m.w.in(m.name, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
		return err
	})
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.w.t.Cleanup(func() { l.Close() })
	return l
}

// dial connects from m to a listener on the mesh.
func (m *machine) dial(l net.Listener, within time.Duration) (net.Conn, error) {
	var c net.Conn
	err := m.w.in(m.name, func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), within)
		return err
	})
	return c, err
}

// transfer sends size bytes of TCP from m to another's mesh address, and returns
// how long it took until all had arrived.
func (m *machine) transfer(to netip.Addr, other *machine, size int64, within time.Duration) (time.Duration, error) {
	m.w.t.Helper()
	l := other.listen(to)
	defer l.Close()
	begin := time.Now()
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err
			return
		}
		defer c.Close()
		_ = c.SetDeadline(begin.Add(within))
		n, err := io.Copy(io.Discard, c)
		if err == nil && n != size {
			err = errors.New("cut short")
		}
		if err != nil {
			err = fmt.Errorf("after %d of %d bytes: %w", n, size, err)
		}
		got <- err
	}()
	c, err := m.dial(l, within)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(begin.Add(within))
	chunk := make([]byte, 16<<10)
	for left := size; left > 0 && err == nil; left -= int64(len(chunk)) {
		_, err = c.Write(chunk[:min(left, int64(len(chunk)))])
	}
	if err == nil {
		err = c.(*net.TCPConn).CloseWrite()
	}
	return time.Since(begin).Round(time.Millisecond), errors.Join(err, <-got)
}

// stream is TCP that flows in one direction, half a megabyte a second in full
// packets, while something is broken.
type stream struct {
	send, recv net.Conn
	mu         sync.Mutex
	times      []time.Time // of what arrived
	failed     error
}

const (
	streamEvery = 20 * time.Millisecond
	streamChunk = 10 << 10
)

func (m *machine) stream(to *machine) *stream {
	m.w.t.Helper()
	l := to.listen(to.node.V4)
	defer l.Close()
	s := &stream{}
	var err error
	if s.send, err = m.dial(l, 10*time.Second); err != nil {
		m.w.t.Fatalf("stream from %s to %s: %v", m.name, to.name, err)
	}
	if s.recv, err = l.Accept(); err != nil {
		m.w.t.Fatal(err)
	}
	m.w.t.Cleanup(s.end)
	go s.write()
	go s.read()
	return s
}

func (s *stream) write() {
	tick := time.NewTicker(streamEvery)
	defer tick.Stop()
	chunk := make([]byte, streamChunk)
	for range tick.C {
		if _, err := s.send.Write(chunk); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *stream) read() {
	b := make([]byte, 64<<10)
	for {
		n, err := s.recv.Read(b)
		if err != nil {
			s.fail(err)
			return
		}
		if n > 0 {
			s.mu.Lock()
			s.times = append(s.times, time.Now())
			s.mu.Unlock()
		}
	}
}

func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		s.failed = err
	}
}

func (s *stream) end() {
	s.send.Close()
	s.recv.Close()
}

// gap is the longest time since a moment in which nothing arrived.
func (s *stream) gap(t *testing.T, since time.Time) (longest time.Duration) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		t.Errorf("the stream broke: %v", s.failed)
	}
	last := since
	for _, at := range s.times {
		if at.After(last) {
			longest = max(longest, at.Sub(last))
			last = at
		}
	}
	return max(longest, time.Since(last)).Round(time.Millisecond)
}
