package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/chacha20poly1305"
)

// FuzzOpen gives the decoders bytes that nobody authenticated, and such that
// the right sender did.
func FuzzOpen(f *testing.F) {
	ka, kb := testKey(f, 1), testKey(f, 2)
	a, _ := pairs(f)
	ring := ringOf(f, kb, ka.Public())
	for _, m := range samples() {
		f.Add(seal(f, a, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ring.Open(b)
		if err != nil {
			return
		}
		if id, _ := SenderOf(m); id != a.Self {
			t.Errorf("from %v, but only %v has the key", id, a.Self)
		}
		// Whatever was opened can be sent again and says the same.
		again, err := ring.Open(seal(t, a, m))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again, asTheyAre); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	})
}

// FuzzFields makes frames authentic before they are decoded, so that the fields
// behind the MAC are reached.
func FuzzFields(f *testing.F) {
	a, b := pairs(f)
	for _, m := range samples() {
		f.Add(seal(f, a, m))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		switch Classify(frame) {
		case Ping, Pong:
			if len(frame) < ProbeSize {
				return
			}
			tag := mac(&a.out.probe, frame[:64])
			copy(frame[64:], tag[:])
			if p, err := b.openProbe(frame); err == nil && (p.Nonce == 0 || p.Stamp.Epoch == 0 || p.Size < ProbeSize) {
				t.Errorf("let through: %+v", p)
			}
		case Notice:
			if len(frame) != NoticeSize {
				return
			}
			tag := mac(&a.out.probe, frame[:32])
			copy(frame[32:], tag[:])
			_, _ = b.openNote(frame) // must not panic
		default:
		}
	})
}

// FuzzCall seals what it is given as the right sender would, so that the fields of
// a Call are reached.
func FuzzCall(f *testing.F) {
	a, b := pairs(f)
	for _, m := range samples() {
		c, ok := m.(CallMe)
		if !ok {
			continue
		}
		frame := seal(f, a, c)
		aead, err := chacha20poly1305.NewX(b.in.seal[:])
		if err != nil {
			f.Fatal(err)
		}
		plain, err := aead.Open(nil, frame[12:callHead], frame[callHead:], frame[:12])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		frame := append(appendHead(nil, Call), a.Self[:]...)
		frame = append(frame, make([]byte, chacha20poly1305.NonceSizeX)...)
		aead, err := chacha20poly1305.NewX(a.out.seal[:])
		if err != nil {
			t.Fatal(err)
		}
		frame = aead.Seal(frame, frame[12:callHead], plain, frame[:12])
		c, err := b.openCall(frame)
		if err == nil && (len(c.Endpoints) > MaxEndpoints || len(c.Hubs) > MaxHubs || c.Stamp.Epoch == 0 || c.Src != a.Self) {
			t.Errorf("let through: %+v", c)
		}
	})
}

// FuzzRelay feeds headers of Forwards and Delivers.
func FuzzRelay(f *testing.F) {
	a, b := pairs(f)
	ring := ringOf(f, testKey(f, 2), testKey(f, 1).Public())
	payload := make([]byte, 64)
	frame := append(make([]byte, RelaySize), payload...)
	a.PutForward(frame, payload, ID{1}, Stamp{1, 1}, 1)
	f.Add(frame)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if _, _, err := ring.OpenDeliver(frame); err == nil && Classify(frame) != Deliver {
			t.Error("opened what is no Deliver")
		}
		if _, err := RelaySender(frame); err != nil {
			return
		}
		if got, err := b.OpenRelay(frame); err == nil && got.Hops > MaxHops {
			t.Errorf("let through: %+v", got)
		}
	})
}

// FuzzJoin feeds both ends of a join.
func FuzzJoin(f *testing.F) {
	hub, invitation := testKey(f, 1), testKey(f, 2)
	atHub, err := InvitationKeys(hub, invitation.Public())
	if err != nil {
		f.Fatal(err)
	}
	atMachine, err := TokenKeys(invitation, hub.Public())
	if err != nil {
		f.Fatal(err)
	}
	c := counting(1)
	request, err := atMachine.SealRequest(Join{Key: hub.Public()}, &c)
	if err != nil {
		f.Fatal(err)
	}
	reply, err := atHub.SealReply(Answer{Status: JoinOK}, request, &c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Add(reply)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := InvitationOf(b); err != nil {
			return
		}
		if j, err := atHub.OpenRequest(b); err == nil && j.Key.IsZero() {
			t.Error("a machine without a key")
		}
		if a, err := atMachine.OpenReply(b, request); err == nil && (a.Status < JoinOK || a.Status > JoinTaken) {
			t.Errorf("status %d", a.Status)
		}
	})
}
