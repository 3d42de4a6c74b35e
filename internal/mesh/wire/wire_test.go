package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// counting is a source of bytes that are not random: the frames in tests are
// the same in every run.
type counting byte

func (c *counting) Read(b []byte) (int, error) {
	for i := range b {
		*c = *c*5 + 17
		b[i] = byte(*c)
	}
	return len(b), nil
}

func testKey(t testing.TB, seed byte) PrivateKey {
	t.Helper()
	c := counting(seed)
	k, err := NewPrivateKey(&c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// pairs are the two ends of one pair of nodes.
func pairs(t testing.TB) (a, b *Pair) {
	t.Helper()
	ka, kb := testKey(t, 1), testKey(t, 2)
	a, err := NewPair(ka, kb.Public())
	if err != nil {
		t.Fatal(err)
	}
	b, err = NewPair(kb, ka.Public())
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func ringOf(t testing.TB, key PrivateKey, peers ...fleet.Key) *Keyring {
	t.Helper()
	r, bad := NewKeyring(key).With(peers)
	if len(bad) > 0 {
		t.Fatalf("unusable keys %v", bad)
	}
	return r
}

var asTheyAre = cmpopts.EquateComparable(netip.AddrPort{})

func samples() []Message {
	v4, v6 := netip.MustParseAddrPort("203.0.113.7:51877"), netip.MustParseAddrPort("[2001:db8::7]:1")
	return []Message{
		Probe{Kind: Ping, Stamp: Stamp{7, 1}, Nonce: 9, Size: ProbeSize, Flags: Primary},
		Probe{Kind: Ping, Stamp: Stamp{7, CounterLimit - 1}, Nonce: 9, Echo: 3, Size: MaxProbeSize},
		Probe{Kind: Pong, Stamp: Stamp{1, 2}, Nonce: 1, Echo: 9, Seen: v4, Size: 1312},
		Probe{Kind: Pong, Stamp: Stamp{1, 2}, Nonce: 1, Echo: 9, Seen: v6, Size: 80, Flags: Challenge},
		Note{Stamp: Stamp{4, 5}, Code: Unreachable, About: ID{1, 2, 3}},
		Note{Stamp: Stamp{4, 6}, Code: Draining},
		Note{Stamp: Stamp{4, 7}, Code: Serving, About: ID{9}},
		CallMe{Stamp: Stamp{4, 7}},
		CallMe{Stamp: Stamp{4, 8}, Answer: true, Endpoints: []netip.AddrPort{v4, v6}, Hubs: []ID{{1}, {2}}},
	}
}

func seal(t testing.TB, p *Pair, m Message) []byte {
	t.Helper()
	switch m := m.(type) {
	case Probe:
		return p.SealProbe(nil, m)
	case Note:
		return p.SealNote(nil, m)
	case CallMe:
		c := counting(9)
		b, err := p.SealCall(nil, m, &c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Fatalf("no such message %T", m)
	return nil
}

func from(m Message, id ID) Message {
	switch m := m.(type) {
	case Probe:
		m.Src = id
		return m
	case Note:
		m.Src = id
		return m
	case CallMe:
		m.Src = id
		return m
	}
	return m
}

func TestMessagesRoundTrip(t *testing.T) {
	a, _ := pairs(t)
	ka, kb := testKey(t, 1), testKey(t, 2)
	ring := ringOf(t, kb, ka.Public())
	for i, m := range samples() {
		b := seal(t, a, m)
		got, err := ring.Open(b)
		if err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		if diff := cmp.Diff(from(m, IDOf(ka.Public())), got, asTheyAre); diff != "" {
			t.Errorf("%d: (-want +got):\n%s", i, diff)
		}
	}
}

// TestOnlyTheReceiverOpens: not the sender, not a third node, and not when one
// bit is another.
func TestOnlyTheReceiverOpens(t *testing.T) {
	a, _ := pairs(t)
	ka, kb, kc := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	right := ringOf(t, kb, ka.Public())
	for i, m := range samples() {
		b := seal(t, a, m)
		if _, err := ringOf(t, ka, kb.Public()).Open(b); !errors.Is(err, ErrSender) {
			t.Errorf("%d: reflected to its sender: %v, want %v", i, err, ErrSender)
		}
		if _, err := ringOf(t, kc, ka.Public()).Open(b); !errors.Is(err, ErrMAC) {
			t.Errorf("%d: opened by a third node: %v, want %v", i, err, ErrMAC)
		}
		if _, err := ringOf(t, kb, kc.Public()).Open(b); !errors.Is(err, ErrSender) {
			t.Errorf("%d: sender not on the ring: %v, want %v", i, err, ErrSender)
		}
		covered := len(b)
		if p, ok := m.(Probe); ok && p.Kind == Ping {
			covered = ProbeSize // padding is not authenticated, and not read
		}
		for bit := range covered * 8 {
			bad := slices.Clone(b)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, err := right.Open(bad); err == nil {
				t.Errorf("%d: opened with bit %d flipped", i, bit)
			}
		}
		for _, n := range []int{0, 1, 31, 47, 79, len(b) - 1} {
			if n >= len(b) {
				continue
			}
			if _, err := right.Open(b[:n]); err == nil {
				t.Errorf("%d: opened when cut to %d bytes", i, n)
			}
		}
		if _, err := right.Open(append(slices.Clone(b), 0)); err == nil {
			t.Errorf("%d: opened with a byte appended", i)
		}
	}
}

func TestNeverTakenForWireGuard(t *testing.T) {
	a, b := pairs(t)
	var frames [][]byte
	for _, m := range samples() {
		frames = append(frames, seal(t, a, m))
	}
	payload := make([]byte, wireGuardMin)
	payload[0] = wgTransport
	f := append(make([]byte, RelaySize), payload...)
	a.PutForward(f, payload, ID{5}, Stamp{1, 1}, 1)
	frames = append(frames, slices.Clone(f))
	b.PutDeliver(f, ID{5}, Stamp{1, 1})
	frames = append(frames, f)
	for i, f := range frames {
		if k := Classify(f); k == WireGuard || k == Foreign {
			t.Errorf("frame %d is taken for %d", i, k)
		}
	}
	for kind := byte(1); kind <= 4; kind++ {
		wg := make([]byte, 148)
		wg[0] = kind
		if Classify(wg) != WireGuard {
			t.Errorf("WireGuard's type %d is not", kind)
		}
		wg[2] = 1
		if Classify(wg) != Foreign {
			t.Errorf("type %d with another byte set is not foreign", kind)
		}
	}
	for name, b := range map[string][]byte{
		"empty":          {},
		"short":          {'m', 'g', Version, byte(Ping)},
		"other version":  append([]byte{'m', 'g', Version + 1, byte(Ping)}, make([]byte, 100)...),
		"unknown kind":   append([]byte{'m', 'g', Version, 0x7f}, make([]byte, 100)...),
		"STUN":           append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 100)...),
		"kind WireGuard": append([]byte{'m', 'g', Version, byte(WireGuard)}, make([]byte, 100)...),
	} {
		if k := Classify(b); k != Foreign {
			t.Errorf("%s is taken for %d", name, k)
		}
	}
}

// TestAnswersAreNotLarger: nothing of ours is an amplifier.
func TestAnswersAreNotLarger(t *testing.T) {
	a, _ := pairs(t)
	ping := seal(t, a, Probe{Kind: Ping, Stamp: Stamp{1, 1}, Nonce: 1, Size: ProbeSize})
	pong := seal(t, a, Probe{Kind: Pong, Stamp: Stamp{1, 1}, Nonce: 1, Size: MaxProbeSize})
	if len(pong) > len(ping) {
		t.Errorf("a Pong has %d bytes, the smallest Ping %d", len(pong), len(ping))
	}
	if note := seal(t, a, Note{Stamp: Stamp{1, 1}, Code: Draining}); len(note) > RelaySize+wireGuardMin {
		t.Errorf("a Notice has %d bytes, the smallest Forward %d", len(note), RelaySize+wireGuardMin)
	}
	if JoinReplySize > JoinRequestSize {
		t.Errorf("a JoinReply has %d bytes, a JoinRequest %d", JoinReplySize, JoinRequestSize)
	}
}

func TestRelay(t *testing.T) {
	kh, ka, kb := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	hub := ringOf(t, kh, ka.Public(), kb.Public())
	a := ringOf(t, ka, kh.Public(), kb.Public())
	b := ringOf(t, kb, kh.Public(), ka.Public())
	idA, idB, idH := IDOf(ka.Public()), IDOf(kb.Public()), IDOf(kh.Public())

	payload := []byte(strings.Repeat("0123456789abcdef", 3))
	toHub, _ := a.Pair(idH)
	f := append(make([]byte, RelaySize), payload...)
	toHub.PutForward(f, payload, idB, Stamp{5, 77}, 1)

	sender, err := RelaySender(f)
	if err != nil || sender != idA {
		t.Fatalf("sender %v, %v; want %v", sender, err, idA)
	}
	fromA, _ := hub.Pair(idA)
	got, err := fromA.OpenRelay(f)
	if err != nil || got != (Frame{From: idA, To: idB, Stamp: Stamp{5, 77}, Hops: 1}) {
		t.Fatalf("forward %+v, %v", got, err)
	}
	for bit := 3 * 8; bit < (RelaySize+relayBound)*8; bit++ {
		bad := slices.Clone(f)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := fromA.OpenRelay(bad); err == nil {
			t.Errorf("opened with bit %d flipped", bit)
		}
	}
	toB, _ := hub.Pair(idB)
	toB.PutDeliver(f, idA, Stamp{6, 1})
	frame, inner, err := b.OpenDeliver(f)
	if err != nil || frame != (Frame{From: idA, Hub: idH, Stamp: Stamp{6, 1}}) || string(inner) != string(payload) {
		t.Fatalf("deliver %+v %q, %v", frame, inner, err)
	}
	if _, err := fromA.OpenRelay(f); err == nil {
		t.Error("a Deliver was taken for a Forward: it could be relayed again")
	}
	if _, _, err := a.OpenDeliver(f); err == nil {
		t.Error("a Deliver for b was opened by a")
	}
}

func TestKeyringKeepsPairs(t *testing.T) {
	ka, kb, kc := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	r := ringOf(t, ka, kb.Public(), kc.Public())
	before, _ := r.Pair(IDOf(kb.Public()))
	next, bad := r.With([]fleet.Key{kb.Public(), ka.Public(), {1}})
	if len(bad) != 2 {
		t.Errorf("unusable are %v, want our own key and the one of low order", bad)
	}
	after, _ := next.Pair(IDOf(kb.Public()))
	if before != after {
		t.Error("the pair of a peer that stays was made anew")
	}
	if _, ok := next.Pair(IDOf(kc.Public())); ok {
		t.Error("a peer that left is still there")
	}
}

func TestPrivateKey(t *testing.T) {
	k := testKey(t, 1)
	again, err := ParsePrivateKey(append([]byte("  "), k.Encode()...))
	if err != nil || again != k {
		t.Errorf("a key does not survive its text: %v", err)
	}
	for _, bad := range []string{"", "abc", string(k.Encode()[:40]), string(k.Encode()) + "A"} {
		if _, err := ParsePrivateKey([]byte(bad)); err == nil {
			t.Errorf("%d characters are taken for a key", len(bad))
		} else if bad != "" && strings.Contains(err.Error(), bad) {
			t.Error("the error repeats the key")
		}
	}
	for _, verb := range []string{"%v", "%s", "%#v", "%+v"} {
		if out := fmt.Sprintf(verb, k); out != "(private key)" {
			t.Errorf("%s prints %q", verb, out)
		}
	}
}

func TestJoin(t *testing.T) {
	hub, invitation, other := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	atHub, err := InvitationKeys(hub, invitation.Public())
	if err != nil {
		t.Fatal(err)
	}
	atMachine, err := TokenKeys(invitation, hub.Public())
	if err != nil {
		t.Fatal(err)
	}
	c := counting(1)
	want := Join{Key: other.Public(), HostKey: [HostKeySize]byte{1, 2, 3}}
	request, err := atMachine.SealRequest(want, &c)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := InvitationOf(request); err != nil || key != invitation.Public() {
		t.Errorf("request of invitation %v, %v", key, err)
	}
	if got, err := atHub.OpenRequest(request); err != nil || got != want {
		t.Errorf("request %+v, %v", got, err)
	}
	reply, err := atHub.SealReply(Answer{Status: JoinExpired, At: 1_800_000_000}, request, &c)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := atMachine.OpenReply(reply, request); err != nil || got != (Answer{JoinExpired, 1_800_000_000}) {
		t.Errorf("reply %+v, %v", got, err)
	}
	second, err := atMachine.SealRequest(want, &c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := atMachine.OpenReply(reply, second); err == nil {
		t.Error("the answer to another request was taken")
	}
	for bit := range len(request) * 8 {
		bad := slices.Clone(request)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := atHub.OpenRequest(bad); err == nil {
			t.Errorf("request opened with bit %d flipped", bit)
		}
	}
	stranger, err := InvitationKeys(other, invitation.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.OpenRequest(request); err == nil {
		t.Error("another hub opened the request")
	}
}

func TestWireGuardFields(t *testing.T) {
	tests := map[string]struct {
		first                           byte
		initiation, response, transport bool
		receiver                        uint32
	}{
		"initiation":   {1, true, false, false, 0},
		"response":     {2, false, true, false, 0x0c0b0a09},
		"cookie reply": {3, false, false, false, 0},
		"transport":    {4, false, false, true, 0x08070605},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := make([]byte, 32)
			for i := range b {
				b[i] = byte(i + 1)
			}
			copy(b, []byte{tt.first, 0, 0, 0})
			if Classify(b) != WireGuard {
				t.Fatal("not WireGuard's")
			}
			if i, r, tr := Initiation(b), Response(b), Transport(b); i != tt.initiation || r != tt.response || tr != tt.transport {
				t.Errorf("initiation %v, response %v, transport %v", i, r, tr)
			}
			if got, ok := ReceiverIndex(b); got != tt.receiver || ok != (tt.receiver != 0) {
				t.Errorf("receiver %#x, %v, want %#x", got, ok, tt.receiver)
			}
			if got := SenderIndex(b); got != 0x08070605 {
				t.Errorf("sender %#x", got)
			}
		})
	}
}
