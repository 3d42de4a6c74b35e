package wire

import (
	"encoding/binary"
	"net/netip"
)

// ProbeSize is the size of every Pong and of the smallest Ping, in bytes.
const ProbeSize = 80

// Flags of a probe.
type Flags uint8

const (
	// Primary marks the path its sender uses: traffic for it shall be relayed
	// to where this probe came from.
	Primary Flags = 1 << iota
	// Challenge asks for another Ping that echoes this Pong's nonce: the
	// answering node does not know the other's epoch yet.
	Challenge

	allFlags = Primary | Challenge
)

// Probe is a Ping or a Pong.
type Probe struct {
	Kind  Kind // Ping or Pong
	Src   ID
	Stamp Stamp
	Flags Flags
	// Nonce is drawn by the sender. The answer to a Ping echoes it.
	Nonce uint64
	// Echo is the nonce of the Ping that a Pong answers; in a Ping, the nonce
	// of the Challenge it answers, or 0.
	Echo uint64
	// Seen is, in a Pong, where the Ping came from; invalid when it was
	// relayed. In a Ping it is invalid.
	Seen netip.AddrPort
	// Size is the length of the Ping, in bytes, padding included; a Pong
	// repeats it. From ProbeSize to MaxProbeSize.
	Size uint16
}

// MaxProbeSize is the size of the largest Ping, in bytes: what an Ethernet
// frame of 1500 holds below IPv6 and UDP.
const MaxProbeSize = 1452

// SealProbe appends p as sent to the pair's peer. A Ping is padded to p.Size.
func (pair *Pair) SealProbe(b []byte, p Probe) []byte {
	start := len(b)
	b = appendHead(b, p.Kind)
	b = append(b, pair.Self[:]...)
	b = append(b, make([]byte, stampSize)...)
	p.Stamp.put(b[start+12:])
	b[start+22] = byte(p.Flags)
	b = binary.BigEndian.AppendUint64(b, p.Nonce)
	b = binary.BigEndian.AppendUint64(b, p.Echo)
	b = appendAddrPort(b, p.Seen)
	b = binary.BigEndian.AppendUint16(b, p.Size)
	b = append(b, 0, 0, 0, 0)
	tag := mac(&pair.out.probe, b[start:])
	b = append(b, tag[:]...)
	if pad := int(p.Size) - ProbeSize; p.Kind == Ping && pad > 0 {
		b = append(b, make([]byte, pad)...)
	}
	return b
}

func (pair *Pair) openProbe(b []byte) (Probe, error) {
	if !macValid(&pair.in.probe, b[:64], b[64:ProbeSize]) {
		return Probe{}, ErrMAC
	}
	p := Probe{
		Kind:  Kind(b[3]),
		Src:   pair.Peer,
		Stamp: stampAt(b[12:]),
		Flags: Flags(b[22]) & allFlags,
		Nonce: binary.BigEndian.Uint64(b[24:]),
		Echo:  binary.BigEndian.Uint64(b[32:]),
		Seen:  addrPortAt(b[40:]),
		Size:  binary.BigEndian.Uint16(b[58:]),
	}
	if p.Stamp.Epoch == 0 || p.Nonce == 0 || p.Size < ProbeSize || p.Size > MaxProbeSize {
		return Probe{}, ErrField
	}
	if want := int(p.Size); p.Kind == Ping && len(b) != want || p.Kind == Pong && len(b) != ProbeSize {
		return Probe{}, ErrLength
	}
	return p, nil
}

const addrPortSize = 18

// appendAddrPort writes 16 bytes of address, IPv4 mapped into IPv6, and two of
// port; zeros for an invalid one.
func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, make([]byte, addrPortSize)...)
	}
	ip := a.Addr().As16()
	b = append(b, ip[:]...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

func addrPortAt(b []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(b[16:])
	addr := netip.AddrFrom16([16]byte(b)).Unmap()
	if port == 0 || addr.IsUnspecified() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, port)
}

// NoticeCode says what a notice is about.
type NoticeCode uint8

// The notices.
const (
	// Unreachable: the hub has no address for the node About, and dropped a
	// frame for it.
	Unreachable NoticeCode = 1
	// Draining: the sender is about to stop; use others.
	Draining NoticeCode = 2
	// Serving: the device About, which is no node, talks to the sender now.
	Serving NoticeCode = 3
)

// NoticeSize is the size of a notice, in bytes: less than the smallest frame
// that is answered by one.
const NoticeSize = 48

// Note is a Notice.
type Note struct {
	Src   ID
	Stamp Stamp
	Code  NoticeCode
	About ID
}

// SealNote appends n as sent to the pair's peer.
func (pair *Pair) SealNote(b []byte, n Note) []byte {
	start := len(b)
	b = appendHead(b, Notice)
	b = append(b, pair.Self[:]...)
	b = append(b, make([]byte, stampSize)...)
	n.Stamp.put(b[start+12:])
	b[start+22] = byte(n.Code)
	b = append(b, n.About[:]...)
	tag := mac(&pair.out.probe, b[start:])
	return append(b, tag[:]...)
}

func (pair *Pair) openNote(b []byte) (Note, error) {
	if len(b) != NoticeSize {
		return Note{}, ErrLength
	}
	if !macValid(&pair.in.probe, b[:32], b[32:]) {
		return Note{}, ErrMAC
	}
	n := Note{Src: pair.Peer, Stamp: stampAt(b[12:]), Code: NoticeCode(b[22]), About: ID(b[24:32])}
	if n.Stamp.Epoch == 0 || n.Code != Unreachable && n.Code != Draining && n.Code != Serving {
		return Note{}, ErrField
	}
	return n, nil
}
