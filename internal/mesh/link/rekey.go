package link

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// A node whose key is rotated is two peers for the others, one for each key. It
// uses one of them, and the other is silent: WireGuard knows it, but lets it have
// no addresses. The node shows that it changed to the silent one by shaking hands
// with it, which nobody else can:
//
//	the node                        we
//	   | data, old session -------> |  addresses are the old key's
//	   | initiation, new key -----> |
//	   |                            |  Spoke: the answer waits
//	   |                            |  Give:  the addresses are the new key's
//	   | <---------------- response |  Speak: it leaves
//	   | data, new session -------> |
//
// so that no data comes by a session that may not carry it, and none is lost.
// Where we began the handshake, what waits is the packet that ends it.

// speaks says whether b, which WireGuard sends to the peer, must wait because the
// peer was silent until now: it is about a handshake that the peer took part in.
func (p *peer) speaks(b []byte, now time.Time) bool {
	if !p.silent.Load() || wire.Initiation(b) {
		return false
	}
	p.keep(b, now)
	p.spoke.Store(true)
	p.bind.control.Look(p.id)
	p.bind.sendUnsent(p, now) // if it speaks just now
	return true
}

// Spoke says whether a silent peer took part in a handshake.
func (b *Bind) Spoke(id wire.ID) bool {
	p := b.peer(id)
	return p != nil && p.silent.Load() && p.spoke.Load()
}

// SetSilent makes these peers, and no others, the silent ones.
func (b *Bind) SetSilent(silent map[wire.ID]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, p := range *b.peers.Load() {
		p.silent.Store(silent[id])
		p.spoke.Store(false)
	}
	b.indexLocked()
}

// Speak says that of a node's two keys it uses this one; what waited for that is
// sent.
func (b *Bind) Speak(id, silent wire.ID, now time.Time) {
	b.mu.Lock()
	if p := b.peer(silent); p != nil {
		p.silent.Store(true)
		p.spoke.Store(false)
	}
	p := b.peer(id)
	if p != nil {
		p.silent.Store(false)
	}
	b.indexLocked()
	b.mu.Unlock()
	if p != nil && !p.use.Load().Route.IsZero() {
		b.sendUnsent(p, now)
	}
}

// SetFormer makes what comes for our other key be taken; nil for none.
func (b *Bind) SetFormer(ring *wire.Keyring) {
	if ring == nil {
		ring = &wire.Keyring{}
	}
	b.former.Store(ring)
}

// Rekey makes what we send from now on that of the ring's key, and sessions those
// of another: all that was agreed on with the key before.
func (b *Bind) Rekey() {
	ring := b.ring.Load()
	for id, p := range *b.peers.Load() {
		if pair, ok := ring.Pair(id); ok && p.pair.Swap(pair) != pair {
			p.expire()
		}
	}
}

// SetKey makes key the device's own. Data that comes by sessions of the key
// before is still taken; to send more, a new handshake is needed.
func (d *Device) SetKey(key wire.PrivateKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.dev.IpcSet(fmt.Sprintf("private_key=%s\n", hex.EncodeToString(key[:]))); err != nil {
		return fmt.Errorf("key of %s: %w", d.name, err)
	}
	return nil
}

// Begin begins a handshake, unless one was begun within the last 5 s.
func (d *Device) Begin(key fleet.Key) error {
	if p := d.dev.LookupPeer(device.NoisePublicKey(key)); p != nil {
		return p.SendHandshakeInitiation(false)
	}
	return nil
}

// Lead lets a peer have further addresses, which whoever had them loses: those of a
// device that it serves.
func (d *Device) Lead(key fleet.Key, to []netip.Prefix) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.members[key]
	if !ok {
		return nil
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "public_key=%s\nupdate_only=true\n", hex.EncodeToString(key[:]))
	for _, a := range to {
		fmt.Fprintf(&conf, "allowed_ip=%s\n", a)
	}
	if err := d.dev.IpcSet(conf.String()); err != nil {
		return fmt.Errorf("peers of %s: %w", d.name, err)
	}
	for other, o := range d.members {
		o.Allowed = slices.DeleteFunc(slices.Clone(o.Allowed), func(a netip.Prefix) bool { return slices.Contains(to, a) })
		d.members[other] = o
	}
	m.Allowed = append(d.members[key].Allowed, to...)
	d.members[key] = m
	d.knowLocked()
	return nil
}

// knowLocked tells the interface whose data comes from which address.
func (d *Device) knowLocked() {
	members := make([]Member, 0, len(d.members))
	for _, m := range d.members {
		members = append(members, m)
	}
	d.tun.know(d.bind, members)
}

// Give lets the peer to have the addresses that the peer from had.
func (d *Device) Give(to, from fleet.Key) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	heir, ok := d.members[to]
	old := d.members[from]
	if !ok || len(old.Allowed) == 0 {
		return nil
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "public_key=%s\nupdate_only=true\n", hex.EncodeToString(to[:]))
	for _, a := range old.Allowed {
		fmt.Fprintf(&conf, "allowed_ip=%s\n", a) // which takes it from whoever has it
	}
	if err := d.dev.IpcSet(conf.String()); err != nil {
		return fmt.Errorf("peers of %s: %w", d.name, err)
	}
	heir.Allowed, old.Allowed = old.Allowed, nil
	d.members[to], d.members[from] = heir, old
	d.knowLocked()
	return nil
}
