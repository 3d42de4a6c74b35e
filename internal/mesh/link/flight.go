package link

import (
	"sync"
	"time"
	"unsafe"
)

// flight is the packets that WireGuard is at work on, of one direction: from the
// network to the interface, or the other way.
//
//	receive ──▶ opened ──▶ written      added when filled,
//	read ─────▶ sealed ──▶ sent         gone when it leaves, or is to be filled again
//
// WireGuard holds each in a buffer of 64 KiB, and makes another one whenever all
// are in use. Where packets come faster than they are opened or sealed, for a
// moment, that would be hundreds of megabytes, and a flood would take all memory
// there is; it cannot be told a limit. So no more are given to it while there are
// flightMost: the kernel's queues keep what comes meanwhile, and senders notice
// when these are full. A packet that WireGuard drops does not come out; it counts
// no more once its buffer is filled again, or nothing at all came out for a while.
// What it surely keeps or drops is not counted: what is for a peer without a
// session, and what is no data.
type flight struct {
	mu   sync.Mutex
	in   map[uintptr]struct{} // the addresses of their buffers
	left chan struct{}        // some left

	stall time.Duration
}

const (
	// flightMost is some 4 ms at 1 Gbit/s, and 25 MB of buffers.
	flightMost = 384
	// Nothing comes out for so long only where what was given is dropped: a flood of
	// replayed packets, or data for a session that just ended. A busy machine's
	// scheduler takes some 20 ms.
	stallOpening = 30 * time.Millisecond
	stallSealing = 200 * time.Millisecond
	// sealsFor is how long after data was sealed for a peer more is thought to be.
	sealsFor = time.Second
)

func newFlight(stall time.Duration) *flight {
	return &flight{stall: stall, in: make(map[uintptr]struct{}), left: make(chan struct{}, 1)}
}

func bufferOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// await waits until there may be more.
func (f *flight) await() {
	if !f.full() {
		return
	}
	stall := time.NewTimer(f.stall)
	defer stall.Stop()
	for f.full() {
		select {
		case <-f.left:
			stall.Reset(f.stall)
		case <-stall.C:
			f.mu.Lock()
			clear(f.in)
			f.mu.Unlock()
		}
	}
}

func (f *flight) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.in) >= flightMost
}

// add says that the packets in these buffers are given to WireGuard, those that
// count.
func (f *flight) add(bufs [][]byte, counts func(i int) bool) {
	f.mu.Lock()
	for i, b := range bufs {
		if counts(i) {
			f.in[bufferOf(b)] = struct{}{}
		}
	}
	f.mu.Unlock()
}

// remove says that these buffers hold no packet of its any more.
func (f *flight) remove(bufs [][]byte) {
	f.mu.Lock()
	was := len(f.in)
	for _, b := range bufs {
		delete(f.in, bufferOf(b))
	}
	now := len(f.in)
	f.mu.Unlock()
	if was >= flightMost && now < was {
		select {
		case f.left <- struct{}{}:
		default:
		}
	}
}
