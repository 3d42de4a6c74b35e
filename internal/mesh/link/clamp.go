package link

import (
	"encoding/binary"
	"net/netip"

	"github.com/moggyfleet/moggy/internal/mesh/path"
)

// tight is the size, in bytes, of the largest packet of the mesh that every line
// of 1280 bytes (the least that IPv6 asks of one, RFC 8200, 5) takes whole:
// relayed over IPv6 it is 1152 + 32 (WireGuard) + 40 (relay) + 8 (UDP) + 40 = 1272.
// A multiple of 16, to which WireGuard pads.
const tight = 1152

const (
	protoICMP  = 1
	protoTCP   = 6
	protoICMP6 = 58

	minMTU6 = 1280

	tcpFin  = 0x01
	tcpSyn  = 0x02
	tcpPush = 0x08
)

// room is what is known of the packets that the route to a peer takes.
type room uint8

const (
	roomUnknown room = iota // no full packet was seen to pass yet
	roomFull
	roomTight // full packets are lost
)

func roomOf(u *path.Use) room {
	switch {
	case u.Narrow:
		return roomTight
	case u.Wide:
		return roomFull
	}
	return roomUnknown
}

// Read implements tun.Device. Where full packets are lost on the way to a peer
// TCP is told to make smaller ones: a new connection by its first packets (RFC
// 4459, 3.2: the maximum segment size they name is lowered), a running one by an
// ICMP message and, because IPv6 cannot ask for less than 1280 bytes, by cutting
// its segments in two.
func (o *opener) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	o.bind.sealing.remove(bufs[:o.given])
	o.bind.sealing.await()
	n, err := o.Device.Read(bufs, sizes, offset)
	for i := 0; i < n; i++ {
		b := bufs[i][offset : offset+sizes[i]]
		if syn(b) {
			o.clamp(b, destination(b))
			continue
		}
		if len(b) <= tight || o.bind.tight.Load() == 0 || o.room(destination(b)) != roomTight {
			continue
		}
		o.tooBig(b)
		if n == len(bufs) {
			continue // no buffer is left to cut it into
		}
		if size := cut(b, bufs[n][offset:]); size > 0 {
			sizes[n] = size
			sizes[i] = tight
			n++
		}
	}
	o.give(bufs[:n], offset)
	return n, err
}

// clamp lowers the segment size that a TCP SYN to or from a peer names, unless
// the way to it takes full packets.
func (o *opener) clamp(b []byte, peer netip.Addr) {
	if o.room(peer) != roomFull {
		lowerMSS(b)
	}
}

func (o *opener) room(a netip.Addr) room {
	if owners := o.owners.Load(); owners != nil {
		if p := (*owners)[a]; p != nil {
			return roomOf(p.use.Load())
		}
	}
	return roomFull
}

// tooBig tells this machine that b is too large, as a router on the way would.
func (o *opener) tooBig(b []byte) {
	const offset = 16 // room for the header that the kernel wants before a packet
	if msg := tooBig(make([]byte, offset, offset+1280), b); msg != nil {
		_, _ = o.Device.Write([][]byte{msg}, offset) // lost, it is sent again for the next one
	}
}

// segment finds TCP in an IP packet that is no fragment: the length of the
// headers before it, and of its own.
func segment(b []byte) (ip, tcp int, ok bool) {
	switch {
	case len(b) >= 40 && b[0]>>4 == 4 && b[9] == protoTCP:
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			return 0, 0, false
		}
		ip = int(b[0]&15) * 4
	case len(b) >= 60 && b[0]>>4 == 6 && b[6] == protoTCP:
		if int(binary.BigEndian.Uint16(b[4:]))+40 != len(b) {
			return 0, 0, false
		}
		ip = 40
	default:
		return 0, 0, false
	}
	if len(b) < ip+20 {
		return 0, 0, false
	}
	tcp = int(b[ip+12]>>4) * 4
	return ip, tcp, ip >= 20 && tcp >= 20 && len(b) >= ip+tcp
}

func syn(b []byte) bool {
	ip, _, ok := segment(b)
	return ok && b[ip+13]&tcpSyn != 0
}

// Kinds of TCP options (RFC 9293, 3.2; RFC 2385; RFC 5925).
const (
	optionEnd  = 0
	optionPad  = 1
	optionMSS  = 2
	optionMD5  = 19
	optionAuth = 29
)

// option finds a TCP option: its place in b, 0 for none. signed says that the
// segment must stay as it is.
func option(b []byte, ip, tcp int, kind byte) (at int, signed bool) {
	for i := ip + 20; i < ip+tcp; {
		switch b[i] {
		case optionEnd:
			return at, signed
		case optionPad:
			i++
			continue
		case optionMD5, optionAuth:
			signed = true
		case kind:
			at = i
		}
		if i+1 >= ip+tcp || b[i+1] < 2 || i+int(b[i+1]) > ip+tcp {
			return 0, signed // they make no sense
		}
		i += int(b[i+1])
	}
	return at, signed
}

// lowerMSS makes the segment size that a SYN names fit into tight.
func lowerMSS(b []byte) {
	ip, tcp, ok := segment(b)
	if !ok {
		return
	}
	at, signed := option(b, ip, tcp, optionMSS)
	if at == 0 || signed || b[at+1] != 4 {
		return
	}
	limit := uint16(tight - 20 - 20)
	if b[0]>>4 == 6 {
		limit = tight - 40 - 20
	}
	if binary.BigEndian.Uint16(b[at+2:]) <= limit {
		return
	}
	binary.BigEndian.PutUint16(b[at+2:], limit)
	sumTCP(b, ip)
}

// cut cuts a TCP segment in two: the first tight bytes stay in b, the rest becomes
// a packet in next, whose length is returned; 0 for a packet that cannot be cut.
func cut(b, next []byte) int {
	ip, tcp, ok := segment(b)
	if !ok || len(b) <= tight || b[ip+13]&^(tcpFin|tcpPush) != 0x10 { // 0x10: ACK; others have a meaning for the whole
		return 0
	}
	if _, signed := option(b, ip, tcp, optionMSS); signed {
		return 0
	}
	head := ip + tcp
	size := head + len(b) - tight
	if head >= tight || len(next) < size || size > tight {
		return 0
	}
	copy(next, b[:head])
	copy(next[head:], b[tight:])
	next = next[:size]
	b[ip+13] &^= tcpFin | tcpPush
	seq := binary.BigEndian.Uint32(b[ip+4:])
	binary.BigEndian.PutUint32(next[ip+4:], seq+uint32(tight-head))
	setLength(b[:tight], ip)
	setLength(next, ip)
	return size
}

// setLength makes the headers fit the length of b.
func setLength(b []byte, ip int) {
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^fold(add(0, b[:ip])))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	}
	sumTCP(b, ip)
}

func sumTCP(b []byte, ip int) {
	b[ip+16], b[ip+17] = 0, 0
	binary.BigEndian.PutUint16(b[ip+16:], ^fold(add(pseudo(b, protoTCP, len(b)-ip), b[ip:])))
}

// pseudo is the sum of a pseudo header (RFC 9293, 3.1; RFC 8200, 8.1).
func pseudo(b []byte, proto byte, size int) uint64 {
	addrs := b[12:20]
	if b[0]>>4 == 6 {
		addrs = b[8:40]
	}
	return add(uint64(proto)+uint64(size), addrs)
}

// add is the sum of the Internet checksum (RFC 1071), not folded yet.
func add(sum uint64, b []byte) uint64 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// tooBig appends to dst the ICMP message that says that b, which this machine
// sends, is too large: "fragmentation needed" (RFC 1191) or "packet too big" (RFC
// 4443, 3.2). nil where there is none to send: about ICMP itself, and IPv6 that is
// of the least size already.
func tooBig(dst, b []byte) []byte {
	start := len(dst)
	switch {
	case len(b) >= 28 && b[0]>>4 == 4 && b[9] != protoICMP && binary.BigEndian.Uint16(b[6:])&0x1fff == 0:
		quote := b[:min(len(b), int(b[0]&15)*4+8)]
		dst = append(dst, 0x45, 0, 0, byte(28+len(quote)), 0, 0, 0, 0, 64, protoICMP, 0, 0)
		dst = append(dst, b[16:20]...)
		dst = append(dst, b[12:16]...)
		head := dst[start:]
		binary.BigEndian.PutUint16(head[10:], ^fold(add(0, head)))
		dst = append(dst, 3, 4, 0, 0, 0, 0, tight>>8, tight&0xff)
		dst = append(dst, quote...)
		icmp := dst[start+20:]
		binary.BigEndian.PutUint16(icmp[2:], ^fold(add(0, icmp)))
		return dst
	case len(b) > minMTU6 && b[0]>>4 == 6 && b[6] != protoICMP6:
		quote := b[:minMTU6-48]
		dst = append(dst, 0x60, 0, 0, 0, byte((8+len(quote))>>8), byte(8+len(quote)), protoICMP6, 64)
		dst = append(dst, b[24:40]...)
		dst = append(dst, b[8:24]...)
		dst = append(dst, 2, 0, 0, 0, 0, 0, minMTU6>>8, minMTU6&0xff)
		dst = append(dst, quote...)
		msg := dst[start:]
		binary.BigEndian.PutUint16(msg[42:], ^fold(add(pseudo(msg, protoICMP6, len(msg)-40), msg[40:])))
		return dst
	}
	return nil
}

// destination is where an IP packet goes; invalid if it is none.
func destination(b []byte) netip.Addr {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[16:20]))
	case len(b) >= 40 && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[24:40]))
	}
	return netip.Addr{}
}
