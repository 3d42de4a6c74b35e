package link

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// message is one of WireGuard's of that type, as far as a Bind looks into it.
func message(kind byte, first, second uint32) []byte {
	b := make([]byte, 148)
	b[0] = kind
	binary.LittleEndian.PutUint32(b[4:], first)
	binary.LittleEndian.PutUint32(b[8:], second)
	return b
}

// TestTieBreak: which handshake messages pass, of two ends that begin at the
// same time.
func TestTieBreak(t *testing.T) {
	const ms = int64(time.Millisecond)
	ask, answer := message(1, 7, 0), message(2, 8, 7)
	type step struct {
		at    int64 // in ms
		out   bool
		msg   []byte
		lower bool // whether it passes at the node with the lower ID
		upper bool // and at the one with the higher
	}
	tests := map[string][]step{
		"crossing":                  {{0, true, ask, true, true}, {10, false, ask, false, true}, {20, true, answer, true, true}},
		"ours is lost":              {{0, true, ask, true, true}, {251, false, ask, true, true}},
		"ours was answered":         {{0, true, ask, true, true}, {60, false, answer, true, true}, {120, false, ask, true, true}},
		"theirs just came":          {{0, false, ask, true, true}, {1, true, ask, false, false}},
		"theirs was answered":       {{0, false, ask, true, true}, {1, true, answer, true, true}, {2, true, ask, true, true}},
		"theirs is never answered":  {{0, false, ask, true, true}, {251, true, ask, true, true}},
		"answer after initiation":   {{0, true, ask, true, true}, {300, false, ask, true, true}, {301, false, answer, false, false}},
		"initiation after answer":   {{0, true, ask, true, true}, {9, false, answer, true, true}, {10, false, ask, false, false}},
		"forged initiations":        {{0, false, ask, true, true}, {200, false, ask, true, true}, {251, true, ask, true, true}, {600, false, ask, true, true}, {601, false, answer, true, true}, {700, true, ask, true, true}},
		"forged answer":             {{0, true, ask, true, true}, {9, false, message(2, 8, 9), true, true}, {10, false, ask, false, true}},
		"the peer begins once more": {{0, false, ask, true, true}, {100, false, ask, true, true}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			n := nodes(t, 2)
			lower, upper := n[0], n[1]
			if bytes.Compare(lower.id[:], upper.id[:]) > 0 {
				lower, upper = upper, lower
			}
			begin := lower.bind.nano(time.Now())
			for i, s := range steps {
				for _, x := range []struct {
					name string
					peer *peer
					want bool
				}{{"lower", lower.bind.peer(upper.id), s.lower}, {"upper", upper.bind.peer(lower.id), s.upper}} {
					does := x.peer.hears
					if s.out {
						does = x.peer.says
					}
					if got := does(s.msg, begin+s.at*ms); got != x.want {
						t.Errorf("step %d at the %s: passes %v, want %v", i, x.name, got, x.want)
					}
				}
			}
		})
	}
}

// TestShut: when data that cannot be opened means that the session is void.
func TestShut(t *testing.T) {
	const ms = time.Millisecond
	n := nodes(t, 2)
	lower, upper := n[0], n[1]
	if bytes.Compare(lower.id[:], upper.id[:]) > 0 {
		lower, upper = upper, lower
	}
	p, b := lower.bind.peer(upper.id), lower.bind
	begin := time.Now()
	at := func(d time.Duration) int64 { return b.nano(begin.Add(d)) }
	expect := func(d time.Duration, want Handshake) {
		t.Helper()
		if got := b.Handshake(upper.id, begin.Add(d)); got != want {
			t.Errorf("after %v: %d, want %d", d, got, want)
		}
	}
	p.arrived(at(0)) // a second copy
	expect(time.Minute, Settled)
	p.arrived(at(time.Minute))
	expect(time.Minute+ms, Yielding)
	p.reads()
	expect(2*time.Minute, Settled)

	p.arrived(at(0))
	p.arrived(at(99 * ms))
	expect(250*ms, Settled)
	p.arrived(at(100 * ms))
	expect(199*ms, Yielding)
	expect(200*ms, Void)
	p.says(message(1, 7, 0), at(150*ms))
	expect(300*ms, Yielding) // we are at it
	expect(400*ms, Void)
	other := upper.bind.peer(lower.id)
	other.arrived(at(0))
	other.arrived(at(100 * ms))
	if shut, due := other.void(at(299 * ms)); !shut || due {
		t.Errorf("the higher ID: %v, %v, want it to wait", shut, due)
	}
	if _, due := other.void(at(300 * ms)); !due {
		t.Error("the higher ID: not void")
	}

	// It goes on: each time later, until something is opened.
	again := func(d time.Duration) {
		b.Voided(upper.id, begin.Add(d))
		p.waiting.Store(false)
		p.arrived(at(d))
		p.arrived(at(d + 100*ms))
	}
	again(10 * time.Second)
	expect(10*time.Second+999*ms, Settled)
	expect(11*time.Second, Void)
	again(20 * time.Second)
	expect(22*time.Second-ms, Settled)
	expect(22*time.Second, Void)
	for range 20 {
		again(30 * time.Second)
	}
	expect(90*time.Second-ms, Settled)
	expect(90*time.Second, Void)
	p.reads()
	again(100 * time.Second)
	expect(101*time.Second, Void)
}

// TestClock: setting the machine's clock changes nothing about sessions.
func TestClock(t *testing.T) {
	n := nodes(t, 2)
	b, p := n[0].bind, n[0].bind.peer(n[1].id)
	for _, at := range []time.Time{b.begin, time.Now(), time.Now().Add(time.Hour)} {
		back := b.when(b.nano(at))
		if d := back.Sub(at); d != 0 && d != time.Nanosecond {
			t.Errorf("%v became %v", at, back)
		}
		if !strings.Contains(back.String(), " m=") {
			t.Errorf("%v has no reading of the monotonic clock", back)
		}
	}
	if b.nano(b.begin) <= 0 || b.nano(b.begin.Add(-time.Second)) <= 0 {
		t.Error("a time that means never")
	}
	if !b.when(0).IsZero() {
		t.Error("never became a time")
	}
	// A Bind that is as young as the times that count is nobody's acquaintance yet.
	if within(b.nano(b.begin), p.asked.Load(), crossFor) || b.Met(n[1].id, b.begin, time.Hour) {
		t.Error("met before the beginning")
	}
}

// TestVoidSession: one end has lost the keys that the other one seals with. It
// notices by what comes, even from another address than it knows.
func TestVoidSession(t *testing.T) {
	for _, name := range []string{"known address", "unknown address"} {
		t.Run(name, func(t *testing.T) {
			n := nodes(t, 3)
			a, b, hub := n[0], n[1], n[2]
			a.direct(b)
			b.direct(a)
			if !a.send(t, b, 2*time.Second) || !b.send(t, a, 2*time.Second) {
				t.Fatal("no session")
			}
			if name == "unknown address" {
				b.via(hub, a)
			}
			if err := b.dev.Restart(a.key.Public(), false); err != nil {
				t.Fatal(err)
			}
			begin, sent := time.Now(), time.Time{}
			stream := func() {
				if time.Since(sent) > 20*time.Millisecond {
					a.tun.Outbound <- tuntest.Ping(b.ip, a.ip)
					sent = time.Now()
				}
			}
			waitFor(t, "b to see that the session is void", func() bool {
				stream()
				return b.bind.Handshake(a.id, time.Now()) == Void
			})
			if took := time.Since(begin); took > 3*time.Second { // a busy machine; WireGuard itself takes 15
				t.Errorf("noticed after %v", took)
			}
			b.bind.Voided(a.id, time.Now())
			b.direct(a)
			if err := b.dev.Greet(a.key.Public()); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "data to arrive again", func() bool {
				stream()
				select {
				case <-b.tun.Inbound:
					return true
				default:
					return false
				}
			})
			waitFor(t, "the session to be settled", func() bool {
				stream()
				return b.bind.Handshake(a.id, time.Now()) == Settled
			})
		})
	}
}
