package link

import (
	"net/netip"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// opener is the interface as WireGuard reads from it and writes to it. It tells
// whose data could be opened, which WireGuard says in no other way, and keeps
// packets as small as the way to a peer needs them (clamp.go).
type opener struct {
	tun.Device
	bind   *Bind
	given  int                                  // packets that were read last
	owners atomic.Pointer[map[netip.Addr]*peer] // by source address
}

// know makes members those whose data is looked for.
func (o *opener) know(b *Bind, members []Member) {
	owners := make(map[netip.Addr]*peer)
	for _, m := range members {
		for _, a := range m.Allowed {
			if p := b.peer(wire.IDOf(m.Key)); p != nil && a.IsSingleIP() {
				owners[a.Addr()] = p
			}
		}
	}
	o.owners.Store(&owners)
}

// give counts what was read as under way, if it is for somebody that data is
// sealed for.
func (o *opener) give(bufs [][]byte, offset int) {
	o.given = len(bufs)
	owners := o.owners.Load()
	if owners == nil {
		return
	}
	now := o.bind.nano(o.bind.now())
	var last netip.Addr
	seals := false
	o.bind.sealing.add(bufs, func(i int) bool {
		if to := destination(bufs[i][offset:]); to != last {
			p := (*owners)[to]
			last, seals = to, p != nil && within(now, p.session.Load(), sealsFor)
		}
		return seals
	})
}

// Write implements tun.Device. All packets of one call are of one peer: WireGuard
// has a queue for each.
func (o *opener) Write(bufs [][]byte, offset int) (int, error) {
	if owners := o.owners.Load(); owners != nil && len(bufs) > 0 {
		if p := (*owners)[source(bufs[0][offset:])]; p != nil {
			p.reads()
		}
	}
	o.bind.opening.remove(bufs)
	for _, b := range bufs {
		if b = b[offset:]; syn(b) {
			o.clamp(b, source(b))
		}
	}
	return o.Device.Write(bufs, offset)
}

// source is where an IP packet comes from; invalid if it is none.
func source(b []byte) netip.Addr {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[12:16]))
	case len(b) >= 40 && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[8:24]))
	}
	return netip.Addr{}
}
