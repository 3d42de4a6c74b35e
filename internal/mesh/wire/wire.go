package wire

import (
	"encoding/binary"
	"errors"
)

// Version is the protocol's version, in every frame and in every derived key.
const Version = 1

// Two bytes that start every frame of ours. WireGuard's messages start with a
// type of 1 to 4 and three zero bytes, so neither can be taken for the other.
const magic0, magic1 = 'm', 'g'

// Kind says what a datagram is.
type Kind uint8

// The kinds of datagram. The value is the frame's fourth byte, but for Foreign
// and WireGuard, which are never sent as such.
const (
	Foreign     Kind = 0 // neither ours nor WireGuard's, or of another version
	WireGuard   Kind = 1
	Ping        Kind = 0x10
	Pong        Kind = 0x11
	Call        Kind = 0x12
	Notice      Kind = 0x13
	Forward     Kind = 0x20
	Deliver     Kind = 0x21
	JoinRequest Kind = 0x30
	JoinReply   Kind = 0x31
)

const (
	headSize  = 4
	stampSize = 12
	macSize   = 16

	// wireGuardMin is the size of WireGuard's smallest message, the keepalive.
	wireGuardMin = 32
)

// Errors of a frame that is refused. They are sentinels, so that refusing
// costs no allocation.
var (
	ErrLength = errors.New("wire: wrong length")
	ErrKind   = errors.New("wire: unknown kind or version")
	ErrSender = errors.New("wire: unknown sender")
	ErrMAC    = errors.New("wire: not authentic")
	ErrField  = errors.New("wire: field out of range")
)

// Classify says what b is, by its length and first four bytes alone.
func Classify(b []byte) Kind {
	if len(b) < wireGuardMin {
		return Foreign
	}
	if b[0] >= 1 && b[0] <= 4 {
		if b[1]|b[2]|b[3] == 0 {
			return WireGuard
		}
		return Foreign
	}
	if b[0] != magic0 || b[1] != magic1 || b[2] != Version {
		return Foreign
	}
	switch k := Kind(b[3]); k {
	case Ping, Pong, Call, Notice, Forward, Deliver, JoinRequest, JoinReply:
		return k
	default:
		return Foreign
	}
}

// WireGuard's message types, as the first byte of a datagram.
const (
	wgInitiation = 1
	wgResponse   = 2
	wgTransport  = 4
)

// Initiation says whether b, a WireGuard datagram, opens a handshake.
func Initiation(b []byte) bool { return b[0] == wgInitiation }

// Response says whether b, a WireGuard datagram, answers a handshake.
func Response(b []byte) bool { return b[0] == wgResponse }

// SenderIndex is the sender's name for the keys that b, an Initiation or a
// Response, is about.
func SenderIndex(b []byte) uint32 { return binary.LittleEndian.Uint32(b[4:]) }

// ReceiverIndex is the receiver's name for the keys that b, a Response or a
// Transport datagram, is for. Other datagrams have none.
func ReceiverIndex(b []byte) (uint32, bool) {
	switch b[0] {
	case wgResponse:
		return binary.LittleEndian.Uint32(b[8:]), true
	case wgTransport:
		return binary.LittleEndian.Uint32(b[4:]), true
	}
	return 0, false
}

// Transport says whether b, a WireGuard datagram, carries data (or is the
// empty keepalive). Only these may be sent twice: WireGuard's replay window
// drops the second one.
func Transport(b []byte) bool { return b[0] == wgTransport }

// Payload says whether b, a WireGuard datagram, carries data and is no
// keepalive.
func Payload(b []byte) bool { return b[0] == wgTransport && len(b) > wireGuardMin }

func appendHead(b []byte, k Kind) []byte {
	return append(b, magic0, magic1, Version, byte(k))
}

// Stamp orders one sender's frames. The epoch is drawn at random when an agent
// starts; the counter grows with every frame it sends to that receiver.
type Stamp struct {
	Epoch   uint32 // never 0
	Counter uint64 // 48 bits, from 1
}

// CounterLimit is the first counter that no frame can carry.
const CounterLimit = 1 << 48

func (s Stamp) put(b []byte) {
	binary.BigEndian.PutUint32(b, s.Epoch)
	binary.BigEndian.PutUint16(b[4:], uint16(s.Counter>>32))
	binary.BigEndian.PutUint32(b[6:], uint32(s.Counter))
}

func stampAt(b []byte) Stamp {
	return Stamp{
		Epoch:   binary.BigEndian.Uint32(b),
		Counter: uint64(binary.BigEndian.Uint16(b[4:]))<<32 | uint64(binary.BigEndian.Uint32(b[6:])),
	}
}
