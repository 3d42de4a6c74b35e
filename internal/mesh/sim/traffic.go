package sim

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Sizes of data packets, in bytes, as WireGuard sends them: a ping, and what
// fills an MTU of 1280.
const (
	smallData = 96
	fullData  = padTo
)

// What a data packet is, in its byte 20.
const (
	question = iota
	answer
	oneWay // wants no answer
)

// packet is data that looks like WireGuard's transport: type, an ID of the
// stream, a number, what it is, and from whom.
func packet(stream uint64, number uint32, what byte, src wire.ID, size int) []byte {
	b := make([]byte, size)
	b[0] = 4
	binary.BigEndian.PutUint64(b[8:], stream)
	binary.BigEndian.PutUint32(b[16:], number)
	b[20] = what
	copy(b[24:], src[:])
	return b
}

func (n *Node) sendData(id wire.ID, b []byte) {
	t := n.with(id)
	now := n.now()
	t.Tx = now
	if len(b) > smallData {
		t.Bulk = now
	}
	if t.quiet {
		t.quiet = false
		n.engine.Traffic(now, id, t.Traffic)
		n.work()
	}
	ok := n.sendFrame(id, t.use.Route, t.use.Local, b)
	if !t.use.Spare.IsZero() && (!ok || t.use.Hedge) {
		n.sendFrame(id, t.use.Spare, netip.Addr{}, b)
	}
}

func (n *Node) data(b []byte, r path.Route) {
	from := n.with(wire.ID(b[24:]))
	now := n.now()
	if from.use.Route == r {
		from.Rx = now
	} else {
		first := from.Rx.After(from.OtherRx)
		from.Other, from.OtherRx = r, now
		if first {
			n.engine.Traffic(now, from.node.id, from.Traffic)
			n.work()
		}
	}
	stream, number := binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])
	switch b[20] {
	case question:
		n.sendData(from.node.id, packet(stream, number, answer, n.id, smallData))
	case answer:
		if s := n.streams[stream]; s != nil {
			s.answered(n.w.now, number)
		}
	}
}

// listener hears the answers to what it sent.
type listener interface {
	answered(now time.Time, number uint32)
}

// Stream is a ping, as a user would run it: one packet every so often, each
// answered.
type Stream struct {
	Sent, Answered int
	sentAt         map[uint32]time.Time
	times          []time.Time // when those that were answered had been sent
	begin          time.Time
	first          time.Time // when the first answer came
	stopped        bool
}

// Ping sends a packet to another machine at every interval, until it is
// stopped.
func (n *Node) Ping(to *Node, every time.Duration) *Stream {
	s := &Stream{sentAt: make(map[uint32]time.Time), begin: n.w.now}
	id := n.w.random.Uint64()
	n.streams[id] = s
	var tick func()
	tick = func() {
		if s.stopped {
			return
		}
		s.Sent++
		s.sentAt[uint32(s.Sent)] = n.w.now
		if n.up && !n.asleep {
			n.sendData(to.id, packet(id, uint32(s.Sent), question, n.id, smallData))
		}
		n.w.After(every, tick)
	}
	tick()
	return s
}

func (s *Stream) answered(now time.Time, number uint32) {
	if s.first.IsZero() {
		s.first = now
	}
	if at, ok := s.sentAt[number]; ok { // a second copy counts once
		delete(s.sentAt, number)
		s.Answered++
		s.times = append(s.times, at)
	}
}

// Stop ends the stream.
func (s *Stream) Stop() { s.stopped = true }

// Gap is the longest time, up to end, in which nothing that was sent was
// answered.
func (s *Stream) Gap(end time.Time) time.Duration {
	return longest(append([]time.Time{s.begin, end}, s.times...))
}

// GapSince is the same, from a time on.
func (s *Stream) GapSince(from, end time.Time) time.Duration {
	times := []time.Time{from, end}
	for _, t := range s.times {
		if t.After(from) {
			times = append(times, t)
		}
	}
	return longest(times)
}

// First is how long it took until the first answer came; an hour if none did.
func (s *Stream) First() time.Duration {
	if s.first.IsZero() {
		return time.Hour
	}
	return s.first.Sub(s.begin)
}

func longest(times []time.Time) (gap time.Duration) {
	slices.SortFunc(times, time.Time.Compare)
	for i := 1; i < len(times); i++ {
		gap = max(gap, times[i].Sub(times[i-1]))
	}
	return gap
}

// Transfer is a TCP stream of full packets: each is acknowledged, and sent again
// when nothing was for a while that doubles (RFC 6298).
type Transfer struct {
	begin   time.Time
	last    uint32        // the newest segment
	missing []uint32      // sent, not acknowledged
	acks    []time.Time   // of segments that were missing
	rto     time.Duration // from rtoMin
	waited  time.Time     // since when nothing was acknowledged, or sent again
	stopped bool
}

// rtoMin is Linux' TCP_RTO_MIN.
const rtoMin = 200 * time.Millisecond

// transferWindow is how many segments may be on their way.
const transferWindow = 16

// Transfer sends full packets to another machine, one at every interval.
func (n *Node) Transfer(to *Node, every time.Duration) *Transfer {
	s := &Transfer{begin: n.w.now, rto: rtoMin}
	id := n.w.random.Uint64()
	n.streams[id] = s
	send := func(number uint32) {
		if n.up && !n.asleep {
			n.sendData(to.id, packet(id, number, question, n.id, fullData))
		}
	}
	var tick func()
	tick = func() {
		if s.stopped {
			return
		}
		if len(s.missing) > 0 && n.w.now.Sub(s.waited) >= s.rto {
			s.rto, s.waited = 2*s.rto, n.w.now
			for _, number := range s.missing {
				send(number)
			}
		}
		if len(s.missing) < transferWindow {
			if len(s.missing) == 0 {
				s.waited = n.w.now
			}
			s.last++
			s.missing = append(s.missing, s.last)
			send(s.last)
		}
		n.w.After(every, tick)
	}
	tick()
	return s
}

func (s *Transfer) answered(now time.Time, number uint32) {
	if i := slices.Index(s.missing, number); i >= 0 {
		s.missing = slices.Delete(s.missing, i, i+1)
		s.acks = append(s.acks, now)
		s.rto, s.waited = rtoMin, now
	}
}

// Stop ends the stream.
func (s *Transfer) Stop() { s.stopped = true }

// Gap is the longest time, up to end, without progress.
func (s *Transfer) Gap(end time.Time) time.Duration {
	return longest(append([]time.Time{s.begin, end}, s.acks...))
}
