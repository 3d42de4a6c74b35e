package mesh

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"hash"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// TestNetnsClock: WireGuard takes no handshake that says it is older than the last
// one (TAI64N). So whose clock was a year ahead once, and is not now, would be locked
// out for a year. Here that last one is made by hand, with hub2's key: hub1 then
// knows of hub2 what it would if hub2's clock had been put back by a year since.
func TestNetnsClock(t *testing.T) {
	w := newWorld(t)
	hub1, hub2 := w.public("hub1", true, "203.0.113.11"), w.public("hub2", true, "203.0.113.12")
	w.startAll()
	if lost, out := hub2.ping(hub1.node.V4, 5, "0.2"); lost > 2 {
		t.Fatalf("hub2 to hub1: %d of 5 lost\n%s", lost, out)
	}
	const year = 365 * 24 * time.Hour

	// It boots in the past.
	hub2.stop(syscall.SIGKILL)
	c := hub2.socket("203.0.113.12:51877")
	if !answers(t, c, hub2.key, hub1.key.Public(), time.Now().Add(year)) {
		t.Fatal("hub1 does not take a handshake from the future: what follows proves nothing")
	}
	if answers(t, c, hub2.key, hub1.key.Public(), time.Now()) {
		t.Fatal("hub1 takes an older handshake: what follows proves nothing")
	}
	c.Close()
	hub2.start()
	took := w.wait("hub2 talks to hub1 though its clock is a year behind", restartWithin, func() bool {
		lost, _ := hub2.ping(hub1.node.V4, 1, "0.2")
		return lost == 0
	})
	t.Logf("booted a year in the past: talks after %v", took)

	// It is put back while it runs.
	c = hub2.socket("203.0.113.12:4000")
	defer c.Close()
	send(t, c, hub2.key, hub1.key.Public(), time.Now().Add(2*year))
	if err := os.WriteFile(filepath.Join(hub2.dir, "clock"), []byte("-17520h"), 0o644); err != nil {
		t.Fatal(err)
	}
	took = w.wait("hub1 forgets the handshakes of hub2", 5*time.Second, func() bool {
		b, _ := os.ReadFile(hub1.log.Name())
		return strings.Count(string(b), "peer restarted") >= 2
	})
	t.Logf("put back while it runs: noticed after %v", took)
	w.wait("hub2 talks to hub1", restartWithin, func() bool {
		lost, _ := hub2.ping(hub1.node.V4, 1, "0.2")
		return lost == 0
	})
	// hub1 takes hub2's handshakes, as they are dated now.
	before := w.handshake(hub1, hub2)
	second := time.Now()
	w.wait("another second", 3*time.Second, func() bool { return time.Since(second) > 1100*time.Millisecond })
	hub2.stop(syscall.SIGKILL)
	c2 := hub2.socket("203.0.113.12:51877")
	defer c2.Close()
	if !answers(t, c2, hub2.key, hub1.key.Public(), time.Now()) {
		t.Errorf("hub1 refuses the handshakes of hub2 still; the last one was at %s", before)
	}
}

// socket is one in the machine's namespace.
func (m *machine) socket(addr string) *net.UDPConn {
	m.w.t.Helper()
	type result struct {
		c   *net.UDPConn
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine: it is of no use any more
		f, err := os.Open("/run/netns/" + m.ns)
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		var c *net.UDPConn
		if err == nil {
			var at *net.UDPAddr
			if at, err = net.ResolveUDPAddr("udp", addr); err == nil {
				c, err = net.ListenUDP("udp", at)
			}
		}
		done <- result{c, err}
	}()
	r := <-done
	if r.err != nil {
		m.w.t.Fatal(r.err)
	}
	return r.c
}

// answers says whether hub1 answers a handshake.
func answers(t *testing.T, c *net.UDPConn, own wire.PrivateKey, peer fleet.Key, at time.Time) bool {
	t.Helper()
	b := make([]byte, 2048)
	for range 5 { // WireGuard looks at few of one peer at a time
		send(t, c, own, peer, at)
		at = at.Add(17 * time.Millisecond) // its timestamps are no finer than that
		if err := c.SetReadDeadline(time.Now().Add(200 * slack * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := c.Read(b)
			if err != nil {
				break
			}
			if n == 92 && b[0] == 2 { // a response
				return true
			}
		}
	}
	return false
}

func send(t *testing.T, c *net.UDPConn, own wire.PrivateKey, peer fleet.Key, at time.Time) {
	t.Helper()
	to := &net.UDPAddr{IP: net.IPv4(203, 0, 113, 11), Port: testPort}
	if _, err := c.WriteTo(datedInitiation(t, own, peer, at), to); err != nil {
		t.Fatal(err)
	}
}

// datedInitiation is WireGuard's first message, dated as it is told (the protocol's paper,
// section 5.4.2).
func datedInitiation(t *testing.T, own wire.PrivateKey, peer fleet.Key, at time.Time) []byte {
	t.Helper()
	dh := func(k *ecdh.PrivateKey) []byte {
		pub, err := ecdh.X25519().NewPublicKey(peer[:])
		if err != nil {
			t.Fatal(err)
		}
		s, err := k.ECDH(pub)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	sum := func(parts ...[]byte) []byte {
		h := new256()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	kdf := func(key, input []byte) (a, b []byte) {
		prk := mac(key, input)
		a = mac(prk, []byte{1})
		return a, mac(prk, append(append([]byte{}, a...), 2))
	}
	seal := func(key, text, h []byte) []byte {
		a, err := chacha20poly1305.New(key)
		if err != nil {
			t.Fatal(err)
		}
		return a.Seal(nil, make([]byte, 12), text, h)
	}
	static, err := ecdh.X25519().NewPrivateKey(own[:])
	if err != nil {
		t.Fatal(err)
	}
	ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stamp := binary.BigEndian.AppendUint64(nil, 0x400000000000000a+uint64(at.Unix()))
	stamp = binary.BigEndian.AppendUint32(stamp, uint32(at.Nanosecond())&^(1<<24-1))

	chain := sum([]byte("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"))
	h := sum(sum(chain, []byte("WireGuard v1 zx2c4 Jason@zx2c4.com")), peer[:])
	msg := append([]byte{1, 0, 0, 0, 9, 9, 9, 9}, ephemeral.PublicKey().Bytes()...)
	chain, _ = kdf(chain, ephemeral.PublicKey().Bytes())
	h = sum(h, ephemeral.PublicKey().Bytes())
	chain, key := kdf(chain, dh(ephemeral))
	sealed := seal(key, static.PublicKey().Bytes(), h)
	msg, h = append(msg, sealed...), sum(h, sealed)
	_, key = kdf(chain, dh(static))
	msg = append(msg, seal(key, stamp, h)...)
	mac1, err := blake2s.New128(sum([]byte("mac1----"), peer[:]))
	if err != nil {
		t.Fatal(err)
	}
	mac1.Write(msg)
	return append(mac1.Sum(msg), make([]byte, 16)...)
}

// new256 is BLAKE2s without a key, which has no error.
func new256() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic(err)
	}
	return h
}

func mac(key, input []byte) []byte {
	h := hmac.New(new256, key)
	h.Write(input)
	return h.Sum(nil)
}
