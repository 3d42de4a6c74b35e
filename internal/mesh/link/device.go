package link

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Member is one peer as the device knows it.
type Member struct {
	Key     fleet.Key
	Allowed []netip.Prefix // the source addresses it may use: its own
}

// Device is a WireGuard device on a Bind and a TUN interface.
type Device struct {
	bind *Bind
	dev  *device.Device
	name string
	uapi net.Listener
	tun  *opener

	mu      sync.Mutex // of members and of changes to the device
	members map[fleet.Key]Member
}

// NewDevice makes the device and brings it up. It takes over t, and closes it
// when it fails or is closed itself.
func NewDevice(t tun.Device, b *Bind, key wire.PrivateKey, log *slog.Logger) (*Device, error) {
	name, err := t.Name()
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	o := &opener{Device: t, bind: b}
	d := &Device{
		bind:    b,
		name:    name,
		tun:     o,
		dev:     device.NewDevice(o, b, wgLogger(log)),
		members: make(map[fleet.Key]Member),
	}
	d.dev.DisableSomeRoamingForBrokenMobileSemantics()
	err = d.dev.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\n", hex.EncodeToString(key[:]), b.port))
	if err == nil {
		err = d.dev.Up()
	}
	if err != nil {
		d.dev.Close()
		return nil, fmt.Errorf("udp port %d: %w", b.port, err)
	}
	return d, nil
}

// wgLogger passes on wireguard-go's complaints. Its verbose messages are one
// for every keepalive, and not wanted at any level.
func wgLogger(log *slog.Logger) *device.Logger {
	return &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf: func(format string, args ...any) {
			log.Warn("wireguard", "message", fmt.Sprintf(format, args...))
		},
	}
}

// SetMembers makes members all the peers there are. Peers that do not change
// keep their session. The Bind must know them already.
func (d *Device) SetMembers(members []Member) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := make(map[fleet.Key]Member, len(members))
	var conf strings.Builder
	for _, m := range members {
		next[m.Key] = m
	}
	for key := range d.members {
		if _, stays := next[key]; !stays {
			fmt.Fprintf(&conf, "public_key=%s\nremove=true\n", hex.EncodeToString(key[:]))
		}
	}
	for _, m := range members {
		if old, ok := d.members[m.Key]; !ok || !slices.Equal(old.Allowed, m.Allowed) {
			addPeer(&conf, m)
		}
	}
	if err := d.dev.IpcSet(conf.String()); err != nil {
		return fmt.Errorf("peers of %s: %w", d.name, err)
	}
	d.members = next
	d.tun.know(d.bind, members)
	return nil
}

func addPeer(conf *strings.Builder, m Member) {
	fmt.Fprintf(conf, "public_key=%s\nendpoint=%s\nreplace_allowed_ips=true\n",
		hex.EncodeToString(m.Key[:]), endpointOf(wire.IDOf(m.Key)))
	for _, a := range m.Allowed {
		fmt.Fprintf(conf, "allowed_ip=%s\n", a)
	}
}

// Restart begins a new session with a peer that lost its own: without it,
// WireGuard finds out after 15 s. The peer is made anew, because it would
// refuse handshakes from a machine whose clock went back when it restarted
// (it remembers the latest timestamp). Where greet is false the handshake waits
// for data.
func (d *Device) Restart(key fleet.Key, greet bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.members[key]
	if !ok {
		return nil
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "public_key=%s\nremove=true\n", hex.EncodeToString(key[:]))
	addPeer(&conf, m)
	if err := d.dev.IpcSet(conf.String()); err != nil {
		return fmt.Errorf("peer %s: %w", key, err)
	}
	if p := d.dev.LookupPeer(device.NoisePublicKey(key)); p != nil && greet {
		return p.SendHandshakeInitiation(false)
	}
	return nil
}

// Greet begins a handshake at once. WireGuard itself tries again only 5 s after
// the last one, which may have gone where nobody was yet. Until it is answered
// nothing is sealed: there is no session, or one of which the peer has other
// keys.
func (d *Device) Greet(key fleet.Key) error {
	p := d.dev.LookupPeer(device.NoisePublicKey(key))
	if p == nil {
		return nil
	}
	p.ExpireCurrentKeypairs() // forgets when it last tried
	return p.SendHandshakeInitiation(false)
}

// ServeUAPI answers wg(8) on /var/run/wireguard/NAME.sock until the device is
// closed.
func (d *Device) ServeUAPI() error {
	file, err := ipc.UAPIOpen(d.name)
	if err != nil {
		return fmt.Errorf("socket for wg(8): %w", err)
	}
	defer file.Close() // the listener has a copy
	l, err := ipc.UAPIListen(d.name, file)
	if err != nil {
		return fmt.Errorf("socket for wg(8): %w", err)
	}
	d.mu.Lock()
	d.uapi = l
	d.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go d.dev.IpcHandle(c)
		}
	}()
	return nil
}

// Done is closed when the device closed, by Close or because its interface was
// deleted.
func (d *Device) Done() <-chan struct{} { return d.dev.Wait() }

// Close takes the device and its interface down.
func (d *Device) Close() error {
	d.mu.Lock()
	l := d.uapi
	d.uapi = nil
	d.mu.Unlock()
	var err error
	if l != nil {
		err = l.Close()
	}
	d.dev.Close()
	return err
}
