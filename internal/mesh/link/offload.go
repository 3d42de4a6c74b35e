package link

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel takes and gives several packets of one size as one message (UDP
// GSO and GRO, since Linux 4.18 and 5.0): one way through its stack, and one
// copy, for up to 64 of them.

// offload makes the socket give packets in one piece, and says whether it takes
// them so.
func (s *socket) offload() bool {
	takes := false
	err := s.conn.Control(func(fd uintptr) {
		// Older kernels refuse, and give each packet by itself.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		takes = err == nil
	})
	return takes && err == nil
}

// avoidFor is how long packets to an address are cut up by us after the kernel
// refused to. The reason is a device on the way there, which may change.
const avoidFor = time.Minute

func (s *socket) avoid(a netip.Addr, now time.Time) {
	s.whole.Store(a, now.Add(avoidFor))
}

func (s *socket) maySegment(a netip.Addr) bool {
	if !s.segments {
		return false
	}
	until, ok := s.whole.Load(a)
	if !ok {
		return true
	}
	if time.Now().Before(until.(time.Time)) {
		return false
	}
	s.whole.Delete(a)
	return true
}

// cannotSegment says whether err means that the kernel would send the packets
// one by one: EIO where a device computes no checksums (udp(7)) or IPsec is on
// the way, EINVAL or, since Linux 6.14, EMSGSIZE where a packet is larger than
// the MTU and would have to be fragmented.
func cannotSegment(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)
}

// segmentSpace is what the control message of a segment size takes.
const segmentSpace = 2

// appendSegmentSize appends the control message that makes the kernel cut a
// message up.
func appendSegmentSize(oob []byte, size int) []byte {
	at := len(oob)
	oob = oob[:at+unix.CmsgSpace(segmentSpace)]
	clear(oob[at:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[at]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(segmentSpace))
	binary.NativeEndian.PutUint16(oob[at+unix.CmsgLen(0):], uint16(size))
	return oob
}

// withoutSegmentSize takes that off again.
func withoutSegmentSize(oob []byte) []byte {
	return oob[:len(oob)-unix.CmsgSpace(segmentSpace)]
}

// segmentSize is how large the packets of a received message are but the last;
// 0 if it is one packet.
func segmentSize(oob []byte) int {
	for len(oob) > unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 2 {
			return int(binary.NativeEndian.Uint16(data))
		}
		oob = rest
	}
	return 0
}
