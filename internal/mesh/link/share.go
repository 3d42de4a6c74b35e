package link

import (
	"net/netip"
	"sync/atomic"

	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// share is what one hub relayed between us and a peer, in bytes of WireGuard's
// messages.
type share struct {
	hub    wire.ID
	rx, tx atomic.Uint64
}

// by is the share of a hub. It nearly always is the one of last time.
func (p *peer) by(hub wire.ID) *share {
	if s := p.lastShare.Load(); s != nil && s.hub == hub {
		return s
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.shares {
		if s.hub == hub {
			p.lastShare.Store(s)
			return s
		}
	}
	s := &share{hub: hub}
	p.shares = append(p.shares, s)
	p.lastShare.Store(s)
	return s
}

// carry sends WireGuard's messages to a peer by a route, and books what a hub is
// given to relay.
func (b *Bind) carry(p *peer, r path.Route, local netip.Addr, bufs [][]byte, size int) error {
	err := b.transmit(p, r, local, bufs)
	if err == nil && !r.IsZero() && !r.Direct() {
		p.by(r.Hub).tx.Add(uint64(size))
	}
	return err
}

// RelayedBy is what a hub relayed of the traffic with a peer since the agent
// started, in bytes of WireGuard's messages: what came by it, and what it was
// given. A message that is sent both ways at once is counted for each.
func (b *Bind) RelayedBy(id, hub wire.ID) (rx, tx uint64) {
	p := b.peer(id)
	if p == nil {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.shares {
		if s.hub == hub {
			return s.rx.Load(), s.tx.Load()
		}
	}
	return 0, 0
}
