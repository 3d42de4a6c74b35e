package mesh

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// flood sends packets, with any source address, as fast as one thread can.
type flood struct {
	sent, bytes atomic.Int64
	stop        chan struct{}
	done        chan error
}

// raw is an IPv4 packet with UDP. The kernel fills in length and checksum of the
// header; UDP needs none.
func raw(from, to netip.AddrPort, payload []byte) []byte {
	b := make([]byte, 28, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	copy(b[12:], from.Addr().AsSlice())
	copy(b[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[20:], from.Port())
	binary.BigEndian.PutUint16(b[22:], to.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload)))
	return append(b, payload...)
}

// flood begins to send packets from a namespace, over and over, from the last
// processor.
func (w *world) flood(ns string, packets [][]byte) *flood {
	w.t.Helper()
	f := &flood{stop: make(chan struct{}), done: make(chan error, 1)}
	started := make(chan error, 1)
	go func() {
		f.done <- w.in(ns, func() error {
			runtime.LockOSThread()
			var cpus unix.CPUSet
			cpus.Set(runtime.NumCPU() - 1)
			_ = unix.SchedSetaffinity(0, &cpus) // where it may not, it shares
			pc, err := net.ListenPacket("ip4:255", "0.0.0.0")
			started <- err
			if err != nil {
				return err
			}
			defer pc.Close()
			return f.run(ipv4.NewPacketConn(pc), packets)
		})
	}()
	if err := <-started; err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(f.end)
	return f
}

func (f *flood) run(pc *ipv4.PacketConn, packets [][]byte) error {
	const batch = 64
	msgs := make([]ipv4.Message, batch)
	for at := 0; ; {
		select {
		case <-f.stop:
			return nil
		default:
		}
		size := 0
		for i := range msgs {
			p := packets[at%len(packets)]
			at++
			size += len(p)
			msgs[i] = ipv4.Message{Buffers: [][]byte{p}, Addr: &net.IPAddr{IP: p[16:20]}}
		}
		n, err := pc.WriteBatch(msgs, 0)
		if err != nil {
			continue // a full queue
		}
		f.sent.Add(int64(n))
		f.bytes.Add(int64(size * n / batch))
	}
}

func (f *flood) end() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
		<-f.done
	}
}

var (
	evil    = netip.MustParseAddrPort("203.0.113.66:4242")
	victim  = netip.MustParseAddrPort("203.0.113.11:51877") // hub1
	honest  = netip.MustParseAddrPort("203.0.113.102:51877")
	another = netip.MustParseAddrPort("203.0.113.12:51877") // hub2
)

// attack is one kind of hostile input, made of what was captured at the hub.
type attack struct {
	name string
	// silent says that nothing at all may come back. Else there may be no more of
	// it than was sent, in packets and in bytes.
	silent  bool
	cookies bool // of WireGuard are what comes back
	packets func(r *rand.Rand, in, out [][]byte) [][]byte
}

func attacks(hub fleet.Key) []attack {
	const many = 2048
	// heads are how frames begin that the hub has a parser for.
	heads := [][]byte{{1, 0, 0, 0}, {2, 0, 0, 0}, {3, 0, 0, 0}, {4, 0, 0, 0}}
	for _, k := range []wire.Kind{wire.Ping, wire.Pong, wire.Call, wire.Notice, wire.Forward, wire.Deliver, wire.JoinRequest, wire.JoinReply} {
		heads = append(heads, []byte{'m', 'g', 1, byte(k)})
	}
	noise := func(r *rand.Rand, size int) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	garbage := func(from netip.AddrPort) func(r *rand.Rand, in, _ [][]byte) [][]byte {
		return func(r *rand.Rand, in, _ [][]byte) (all [][]byte) {
			for i := range many {
				b := noise(r, r.IntN(1400))
				if i%2 == 0 {
					b = append(slices.Clone(heads[r.IntN(len(heads))]), b...)
				}
				if i%5 == 0 { // as it was sent, but for some bytes
					b = slices.Clone(in[r.IntN(len(in))])
					b[4+r.IntN(max(len(b)-4, 1))%len(b)] ^= byte(1 + r.IntN(255))
				}
				all = append(all, raw(from, victim, b))
			}
			return all
		}
	}
	again := func(from netip.AddrPort) func(_ *rand.Rand, in, _ [][]byte) [][]byte {
		return func(_ *rand.Rand, in, _ [][]byte) (all [][]byte) {
			for _, b := range in {
				all = append(all, raw(from, victim, b))
			}
			return all
		}
	}
	return []attack{
		{"garbage", true, false, garbage(evil)},
		{"truncated", true, false, func(r *rand.Rand, in, _ [][]byte) (all [][]byte) {
			for range many {
				b := in[r.IntN(len(in))]
				all = append(all, raw(evil, victim, b[:r.IntN(min(len(b), 60))]))
			}
			return all
		}},
		{"replayed", true, false, again(evil)},
		{"reflected", true, false, func(_ *rand.Rand, _, out [][]byte) (all [][]byte) {
			for _, b := range out {
				all = append(all, raw(evil, victim, b))
			}
			return all
		}},
		// Who knows the hub's public key can make it look closer: WireGuard answers by a
		// cookie when there are too many.
		{"handshakes of nobody", false, true, func(r *rand.Rand, _, _ [][]byte) (all [][]byte) {
			for range many {
				all = append(all, raw(evil, victim, initiation(noise(r, 148), hub)))
			}
			return all
		}},
		{"garbage from a peer's address", false, false, garbage(honest)},
		{"replayed from a peer's address", false, false, again(honest)},
		{"replayed from another hub's address", false, false, again(another)},
	}
}

// initiation makes of 148 random bytes a handshake's first message to the owner of
// a key, as far as that can be seen without computing much: its type and its mac1.
func initiation(b []byte, to fleet.Key) []byte {
	copy(b, []byte{1, 0, 0, 0})
	key := blake2s.Sum256(append([]byte(device.WGLabelMAC1), to[:]...))
	mac, err := blake2s.New128(key[:])
	if err != nil {
		panic(err)
	}
	mac.Write(b[:116])
	copy(b[116:], mac.Sum(nil))
	clear(b[132:])
	return b
}

// TestNetnsHostile floods a hub with what nobody should send. It does not crash,
// says nothing to strangers and no more than it is asked to anybody, believes no
// address, and goes on to carry what its peers send.
func TestNetnsHostile(t *testing.T) {
	w, hub1, _, ari, bianco := cats(t)
	w.Add("evil")
	w.plug("evil", "eth0", evil.Addr().String())
	conf := w.config()
	for _, m := range w.nodes {
		m.write(conf)
	}
	hub1.start() // first: what it never heard it could not tell from what it did
	seen := w.capture("hub1", false, 20_000)
	for _, m := range w.nodes {
		if m != hub1 {
			m.start()
		}
	}
	_, _ = bianco.flow(hub1), bianco.flow(ari)
	w.wait("bianco talks", 20*time.Second, func() bool {
		return bianco.path(hub1).RTTMicro > 0 && bianco.path(ari).RTTMicro > 0 && hub1.path(bianco).RTTMicro > 0
	})
	bianco.say(hub1, []byte("something"), 64<<10)
	in, out := seen.payloads()
	if len(in) < 20 || len(out) < 20 {
		t.Fatalf("only %d frames to the hub were captured, and %d of its own", len(in), len(out))
	}
	pid := pidOf(hub1)
	calm := w.goodput(bianco, hub1, load())
	back := w.capture("evil", true, 1000)
	r := rand.New(rand.NewPCG(1, 2))
	for _, a := range attacks(hub1.key.Public()) {
		t.Run(a.name, func(t *testing.T) {
			packets := a.packets(r, in, out)
			before, beforeBytes := back.counted()
			begin := time.Now()
			f := w.flood("evil", packets)
			under := w.goodput(bianco, hub1, load())
			for i := 0; i < 5 && under == 0; i++ { // this machine has no time at all for it
				under = w.goodput(bianco, hub1, load())
			}
			f.end()
			took := time.Since(begin)
			n, size := back.counted()
			n, size = n-before, size-beforeBytes
			sent := f.sent.Load()
			t.Logf("%d packets a second; %d came back; bianco to hub1 %.1f Mbit/s, %.1f without", int(float64(sent)/took.Seconds()), n, under, calm)
			cookies := 0
			for _, p := range back.all()[min(before, len(back.all())):] {
				b, _, _ := datagram(p.data)
				if len(b) == device.MessageCookieReplySize && b[0] == device.MessageCookieReplyType {
					cookies++
				} else {
					t.Logf("came back: kind %#x, %d bytes", wire.Classify(b), len(b))
				}
			}
			if a.cookies != (cookies > 0) {
				t.Errorf("%d cookies came back, want some: %v", cookies, a.cookies)
			}
			if sent < 1000 {
				t.Errorf("only %d packets were sent", sent)
			}
			if a.silent && n > 0 {
				t.Errorf("%d packets came back, want silence", n)
			}
			if int64(n) > sent || int64(size) > f.bytes.Load() {
				t.Errorf("%d packets, %d bytes came back for %d and %d", n, size, sent, f.bytes.Load())
			}
			// While probes are lost in the flood a detour may be better; but not by an
			// address that bianco never had.
			if got := hub1.peer(bianco); got.Path != fleet.PathRelayed && got.Endpoint != honest || got.Endpoint.Addr() == evil.Addr() {
				t.Errorf("hub1 now sends to bianco by %+v, want %v", got, honest)
			}
			if lost, text := hub1.ping(bianco.node.V4, 3, "0.1"); lost > 1 {
				t.Errorf("hub1 to bianco: %d of 3 lost\n%s", lost, text)
			}
			if pidOf(hub1) != pid {
				t.Error("the hub's agent is another one")
			}
			if under <= kept()*calm {
				t.Errorf("bianco to hub1: %.1f Mbit/s, %.1f before", under, calm)
			}
		})
	}
	if n := hub1.logged("panic"); n > 0 {
		t.Error("the hub's log has a panic")
	}
}

// payloads are the mesh's datagrams to a hub, and its own.
func (c *capture) payloads() (in, out [][]byte) {
	for _, p := range c.all() {
		b, src, dst := datagram(p.data)
		if len(b) < 8 || p.data[0]>>4 != 4 || len(b) > 1452 {
			continue
		}
		if p.out && src == testPort {
			out = append(out, b)
		} else if !p.out && dst == testPort {
			in = append(in, b)
		}
	}
	return in, out
}

func (c *capture) counted() (packets, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count, c.bytes
}

// kept is the share of a peer's throughput that must be left under attack: what
// is wanted where a processor is free for each side, and something where it is not.
func kept() float64 {
	if thorough() {
		return 0.9
	}
	return 0
}

// load is for how long traffic is measured.
func load() time.Duration {
	if thorough() {
		return 10 * time.Second
	}
	return 700 * time.Millisecond
}

// offered is what an honest peer sends meanwhile, in bits a second: a home line's
// worth, which leaves both ends time to spare.
const offered = 50e6

// goodput is how much of a TCP stream of offered bits a second arrives, in Mbit/s.
func (w *world) goodput(a, b *machine, d time.Duration) float64 {
	w.t.Helper()
	l := b.listen(b.node.V4)
	defer l.Close()
	c, err := a.dial(l, 20*time.Second)
	if err != nil {
		w.t.Errorf("%s to %s: %v", a.name, b.name, err)
		return 0
	}
	defer c.Close()
	recv, err := l.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	defer recv.Close()
	const every = 5 * time.Millisecond
	chunk := bytes.Repeat([]byte{1}, int(offered/8*every.Seconds()))
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		owed := time.Now()
		for now := range tick.C {
			for ; owed.Before(now); owed = owed.Add(every) {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		}
	}()
	begin, total, buf := time.Now(), 0, make([]byte, 256<<10)
	_ = recv.SetReadDeadline(begin.Add(d))
	for {
		n, err := recv.Read(buf)
		total += n
		if err != nil {
			break
		}
	}
	return float64(total) * 8 / time.Since(begin).Seconds() / 1e6
}
