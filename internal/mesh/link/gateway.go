package link

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Gateway is a hub's side of devices that speak plain WireGuard: a device of its
// own, with a key that all hubs share, on a port and an interface of its own.
// Nothing of it is ours: it roams as WireGuard does.
//
//	phone ──WireGuard──▶ moggy1 ──the kernel forwards──▶ moggy0 ──▶ any node
//
// Where the kernel sends a device's packets is the hub's to say, by Route.
type Gateway struct {
	dev   *device.Device
	name  string
	known map[fleet.Key]bool
}

// NewGateway brings the interface up; heard is called with the source address of
// what devices send, by the way of packets: it must not wait.
func NewGateway(name string, mtu int, key wire.PrivateKey, port uint16, heard func(netip.Addr), log *slog.Logger) (*Gateway, error) {
	t, err := OpenTUN(name, mtu)
	if err != nil {
		return nil, err
	}
	g := &Gateway{name: name, known: make(map[fleet.Key]bool)}
	g.dev = device.NewDevice(&listener{Device: t, heard: heard}, conn.NewDefaultBind(), wgLogger(log))
	err = g.dev.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\n", hex.EncodeToString(key[:]), port))
	if err == nil {
		err = g.dev.Up()
	}
	if err == nil {
		err = Interface{Name: name, MTU: mtu}.Apply()
	}
	if err != nil {
		g.dev.Close()
		return nil, fmt.Errorf("gateway at udp port %d: %w", port, err)
	}
	return g, nil
}

// listener is the interface as WireGuard writes to it.
type listener struct {
	tun.Device
	heard func(netip.Addr)
}

// Write implements tun.Device. All packets of one call are of one peer.
func (l *listener) Write(bufs [][]byte, offset int) (int, error) {
	if len(bufs) > 0 {
		l.heard(source(bufs[0][offset:]))
	}
	return l.Device.Write(bufs, offset)
}

// SetDevices makes devices all there are. Those that stay keep their session.
func (g *Gateway) SetDevices(devices []fleet.Device) error {
	next := make(map[fleet.Key]bool, len(devices))
	var conf strings.Builder
	for _, d := range devices {
		next[d.Key] = true
	}
	for key := range g.known {
		if !next[key] {
			fmt.Fprintf(&conf, "public_key=%s\nremove=true\n", hex.EncodeToString(key[:]))
		}
	}
	for _, d := range devices {
		fmt.Fprintf(&conf, "public_key=%s\nreplace_allowed_ips=true\nallowed_ip=%s/32\nallowed_ip=%s/128\n", hex.EncodeToString(d.Key[:]), d.V4, d.V6)
	}
	if err := g.dev.IpcSet(conf.String()); err != nil {
		return fmt.Errorf("devices of %s: %w", g.name, err)
	}
	g.known = next
	return nil
}

// Route makes the kernel send what is for a device to it, from own, this node's
// mesh addresses, where the node itself sends; or, where here is false, into the
// mesh as for any other address of it.
func (g *Gateway) Route(d fleet.Device, here bool, own ...netip.Addr) error {
	link, err := netlink.LinkByName(g.name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", g.name, err)
	}
	var errs []error
	for _, a := range []netip.Addr{d.V4, d.V6} {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Scope: netlink.SCOPE_LINK}
		for _, o := range own {
			if o.Is4() == a.Is4() {
				route.Src = o.AsSlice()
			}
		}
		if here {
			err = netlink.RouteReplace(route)
		} else if err = netlink.RouteDel(route); errors.Is(err, unix.ESRCH) {
			err = nil // it was not there
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("route to %s by %s: %w", a, g.name, err))
		}
	}
	return errors.Join(errs...)
}

// Close takes the interface down.
func (g *Gateway) Close() { g.dev.Close() }
