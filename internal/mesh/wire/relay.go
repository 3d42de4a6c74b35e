package wire

import (
	"crypto/subtle"
	"encoding/binary"

	"github.com/aead/siphash"
)

// RelaySize is what relaying adds in front of a payload, in bytes.
const RelaySize = 40

const (
	relayMAC  = 4
	relayFrom = 12
	relayTo   = 20
	relayAt   = 28 // the stamp
	relayHops = 38
	relayKind = 39 // again, where the MAC covers it

	// relayBound is how much of the payload the MAC covers: WireGuard's type,
	// receiver and counter, so that a captured header fits no other payload.
	relayBound = 16

	// MaxHops is the largest hop budget.
	MaxHops = 2
)

// Frame is the header of a Forward or a Deliver.
type Frame struct {
	From  ID // the node whose payload it is
	Hub   ID // of a Deliver: who relayed it
	To    ID // of a Forward: whose it shall be
	Stamp Stamp
	Hops  uint8 // hubs that may still forward it, 1 or 2; 0 in a Deliver
}

// sum is the MAC over a header and the start of its payload.
func (k sipKey) sum(header, payload []byte) uint64 {
	var b [RelaySize - relayFrom + relayBound]byte
	copy(b[:], header[relayFrom:RelaySize])
	copy(b[RelaySize-relayFrom:], payload[:relayBound])
	return siphash.Sum64(b[:], (*[siphash.KeySize]byte)(&k))
}

func putRelay(key sipKey, b, payload []byte, kind Kind, from, other ID, s Stamp, hops uint8) {
	b[0], b[1], b[2], b[3] = magic0, magic1, Version, byte(kind)
	copy(b[relayFrom:], from[:])
	copy(b[relayTo:], other[:])
	s.put(b[relayAt:])
	b[relayHops], b[relayKind] = hops, byte(kind)
	binary.BigEndian.PutUint64(b[relayMAC:], key.sum(b, payload))
}

func relayValid(key sipKey, b []byte) bool {
	var want [8]byte
	binary.BigEndian.PutUint64(want[:], key.sum(b, b[RelaySize:]))
	return subtle.ConstantTimeCompare(want[:], b[relayMAC:relayFrom]) == 1
}

// PutForward writes into header, RelaySize bytes, what makes payload, of at
// least 32 bytes, a Forward. The pair is the one with the hub.
func (pair *Pair) PutForward(header, payload []byte, to ID, s Stamp, hops uint8) {
	putRelay(pair.out.relay, header, payload, Forward, pair.Self, to, s, hops)
}

// PutDeliver turns the Forward in b, in place, into the Deliver that a hub
// sends on. The pair is the one with the receiver.
func (pair *Pair) PutDeliver(b []byte, from ID, s Stamp) {
	putRelay(pair.out.relay, b, b[RelaySize:], Deliver, from, pair.Self, s, 0)
}

// RelaySender returns who must have made the MAC of b, a Forward or Deliver,
// for b to be authentic: the node that sends, or the hub.
func RelaySender(b []byte) (ID, error) {
	if len(b) < RelaySize+wireGuardMin {
		return ID{}, ErrLength
	}
	switch Kind(b[3]) {
	case Forward:
		return ID(b[relayFrom:]), nil
	case Deliver:
		return ID(b[relayTo:]), nil
	default:
		return ID{}, ErrKind
	}
}

// OpenRelay checks b, a Forward or Deliver that RelaySender accepted, and
// decodes its header. The pair is the one with RelaySender. The payload is
// b[RelaySize:].
func (pair *Pair) OpenRelay(b []byte) (Frame, error) {
	if !relayValid(pair.in.relay, b) {
		return Frame{}, ErrMAC
	}
	if b[relayKind] != b[3] {
		return Frame{}, ErrKind
	}
	f := Frame{From: ID(b[relayFrom:]), Stamp: stampAt(b[relayAt:]), Hops: b[relayHops]}
	if Kind(b[3]) == Deliver {
		f.Hub = pair.Peer
		return f, nil
	}
	f.To = ID(b[relayTo:])
	if f.Hops == 0 || f.Hops > MaxHops {
		return Frame{}, ErrField
	}
	return f, nil
}

// OpenDeliver checks a Deliver and returns its header and payload. Both the
// hub and the node behind it must be on the ring.
func (k *Keyring) OpenDeliver(b []byte) (Frame, []byte, error) {
	hub, err := RelaySender(b)
	if err != nil {
		return Frame{}, nil, err
	}
	if Classify(b) != Deliver {
		return Frame{}, nil, ErrKind
	}
	pair, ok := k.pairs[hub]
	if !ok {
		return Frame{}, nil, ErrSender
	}
	f, err := pair.OpenRelay(b)
	if err != nil {
		return Frame{}, nil, err
	}
	if _, known := k.pairs[f.From]; !known {
		return Frame{}, nil, ErrSender
	}
	return f, b[RelaySize:], nil
}
