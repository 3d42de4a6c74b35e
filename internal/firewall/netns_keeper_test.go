package firewall

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/engine/firewall"
)

// TestNetnsKept takes the rules away in every way there is: each time they are
// back within a second. Others' changes are none of the keeper's business.
func TestNetnsKept(t *testing.T) {
	w := newWorld(t)
	p := w.keep()
	whole := w.Sh("node", "nft -s list table inet "+firewall.Table)
	for _, script := range []string{
		"nft delete table inet moggy",
		"nft flush ruleset",
		"nft flush table inet moggy",
		"nft flush chain inet moggy input",
		"nft insert rule inet moggy asked accept",
		"nft add element inet moggy web-from-v4 { 10.77.0.4 }",
		"nft delete table inet moggy; nft flush ruleset; nft add table inet moggy",
	} {
		before := strings.Count(w.said(), "somebody changed")
		w.Sh("node", script)
		took := w.await(script, func() bool {
			return w.standing() && w.Sh("node", "nft -s list ruleset") == whole && strings.Count(w.said(), "somebody changed") > before
		})
		t.Logf("%s: undone after %v", script, took)
		if took > time.Second {
			t.Errorf("%s: undone after %v", script, took)
		}
	}
	if !strings.Contains(w.said(), "by=nft") {
		t.Error("the log does not say who changed them")
	}

	// A keeper that took its own loads for somebody's would load without end.
	said, since := "", time.Now()
	w.await("quiet", func() bool {
		if now := w.said(); now != said {
			said, since = now, time.Now()
		}
		return time.Since(since) > 4*calm
	})
	before := strings.Count(w.said(), "somebody changed")
	w.Sh("node", "nft add table inet home; nft add chain inet home moggy; nft add table ip moggy; nft delete table inet home; nft delete table ip moggy")
	// A change that is the keeper's business comes after those that are not.
	w.Sh("node", "nft delete table inet moggy")
	w.await("back again", w.standing)
	if n := strings.Count(w.said(), "somebody changed"); n != before+1 {
		t.Errorf("%d changes were taken for changes of ours", n-before)
	}

	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.await("stopped, the table goes", func() bool { return !w.standing() })
}

// TestNetnsKilled says that a keeper that dies leaves the rules as they are.
func TestNetnsKilled(t *testing.T) {
	w := newWorld(t)
	p := w.keep()
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if !w.standing() {
		t.Error("the table went with its keeper")
	}
}

// TestNetnsReplaced replaces the rules 50 times under traffic: nothing that is
// allowed is lost, and nothing else ever passes.
func TestNetnsReplaced(t *testing.T) {
	const times = 50
	w := newWorld(t)
	p := w.keep()
	got := make(map[uint16]*atomic.Int64)
	for _, port := range []uint16{53, 54} { // allowed, and not
		got[port] = w.count(port)
	}
	w.echo("node", "tcp", netip.AddrPortFrom(v6(cosmo), 443))
	stream, err := w.dial("mesh", "tcp", v6(ari), netip.AddrPortFrom(v6(cosmo), 443), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()

	stop := make(chan struct{})
	var traffic sync.WaitGroup
	var sent atomic.Int64
	for _, port := range []uint16{53, 54} {
		c, err := w.dial("mesh", "udp", v4(ari), netip.AddrPortFrom(v4(cosmo), port), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		traffic.Go(func() {
			every := time.NewTicker(time.Millisecond)
			defer every.Stop()
			for {
				select {
				case <-stop:
					return
				case <-every.C:
				}
				if _, err := c.Write([]byte{1}); err == nil && port == 53 { // an error is the refusal of the one before
					sent.Add(1)
				}
			}
		})
	}
	var bytesBack int64
	traffic.Go(func() { bytesBack = echoed(t, stream, stop) })

	for range times {
		before := strings.Count(w.said(), "READY=1")
		if err := p.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		w.await("loaded again", func() bool { return strings.Count(w.said(), "READY=1") > before })
	}
	close(stop)
	traffic.Wait()
	w.await("all that was sent", func() bool { return got[53].Load() == sent.Load() })
	t.Logf("%d replacements: %d datagrams, %d bytes of a stream", times, sent.Load(), bytesBack)
	if sent.Load() < times || bytesBack == 0 {
		t.Error("there was hardly any traffic")
	}
	if n := got[54].Load(); n > 0 {
		t.Errorf("%d datagrams passed that must not", n)
	}
	if strings.Contains(w.said(), "somebody") {
		t.Errorf("the keeper took its own loads for somebody's:\n%s", w.said())
	}
}

// count counts the datagrams that arrive at a port of cosmo's.
func (w *world) count(port uint16) *atomic.Int64 {
	w.t.Helper()
	var n atomic.Int64
	err := w.in("node", func() error {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(v4(cosmo), port)))
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { c.Close() })
		go func() {
			for buf := make([]byte, 16); ; n.Add(1) {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		}()
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return &n
}

// echoed sends numbers and checks that they come back, until it is stopped. It
// returns how many bytes did.
func echoed(t *testing.T, c net.Conn, stop <-chan struct{}) int64 {
	var n int64
	want, have := make([]byte, 8), make([]byte, 8)
	for {
		select {
		case <-stop:
			return n
		default:
		}
		binary.BigEndian.PutUint64(want, uint64(n))
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(want); err != nil {
			t.Errorf("stream: %v", err)
			return n
		}
		for got := 0; got < len(have); {
			k, err := c.Read(have[got:])
			if err != nil {
				t.Errorf("stream: %v", err)
				return n
			}
			got += k
		}
		if !bytes.Equal(want, have) {
			t.Errorf("stream: sent %x, got %x", want, have)
		}
		n += 8
	}
}
