package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// Interface is the mesh's network interface.
type Interface struct {
	Name   string
	MTU    int
	Addrs  []netip.Addr   // our own
	Routes []netip.Prefix // the mesh's ranges
}

// OpenTUN creates the interface, without addresses. It vanishes with the
// process.
func OpenTUN(name string, mtu int) (tun.Device, error) {
	t, err := tun.CreateTUN(name, mtu)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("interface %s: in use by another process", name)
	case err != nil:
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return t, nil
}

// ErrNoIPv6 says that this machine has IPv6 switched off. The mesh works
// without, over its IPv4 addresses.
var ErrNoIPv6 = errors.New("IPv6 is switched off on this machine")

// Apply gives the interface exactly these addresses and routes, and brings it
// up. What is already as wanted stays untouched. When it returns ErrNoIPv6 all
// else is done.
func (i Interface) Apply() error {
	link, err := netlink.LinkByName(i.Name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", i.Name, err)
	}
	if link.Attrs().MTU != i.MTU {
		if err := netlink.LinkSetMTU(link, i.MTU); err != nil {
			return fmt.Errorf("interface %s: mtu %d: %w", i.Name, i.MTU, err)
		}
	}
	no6 := i.setAddrs(link)
	if no6 != nil && !errors.Is(no6, ErrNoIPv6) {
		return no6
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("interface %s: up: %w", i.Name, err)
	}
	for _, r := range i.Routes {
		if r.Addr().Is6() && no6 != nil {
			continue
		}
		route := netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r), Scope: netlink.SCOPE_LINK}
		if src, ok := i.addrIn(r); ok {
			route.Src = src.AsSlice()
		}
		if err := netlink.RouteReplace(&route); err != nil {
			return fmt.Errorf("route %s by %s: %w", r, i.Name, err)
		}
	}
	return no6
}

func (i Interface) addrIn(p netip.Prefix) (netip.Addr, bool) {
	for _, a := range i.Addrs {
		if p.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// setAddrs returns ErrNoIPv6 when all but the IPv6 addresses are set.
func (i Interface) setAddrs(link netlink.Link) error {
	var no6 error
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", i.Name, err)
	}
	for _, h := range have {
		a, _ := netip.AddrFromSlice(h.IP)
		if a = a.Unmap(); a.IsLinkLocalUnicast() || slices.Contains(i.Addrs, a) {
			continue
		}
		if err := netlink.AddrDel(link, &h); err != nil {
			return fmt.Errorf("address %s of %s: %w", a, i.Name, err)
		}
	}
	for _, a := range i.Addrs {
		// NODAD: nobody else can have it, and until duplicate address detection
		// is over nothing could be bound to it.
		addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		err := netlink.AddrReplace(link, addr)
		if a.Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)) {
			no6 = fmt.Errorf("address %s of %s: %w (%w)", a, i.Name, ErrNoIPv6, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("address %s of %s: %w", a, i.Name, err)
		}
	}
	return no6
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// LocalAddrs returns the addresses of this machine that peers in its own
// networks may reach it by: global and private ones of interfaces that are up,
// but not those of the interface skip, of containers, or about to vanish.
func LocalAddrs(skip string) ([]netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	var out []netip.Addr
	for _, l := range links {
		at := l.Attrs()
		if at.Name == skip || at.Flags&net.FlagUp == 0 || at.Flags&net.FlagLoopback != 0 || virtualLink(l) {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", at.Name, err)
		}
		for _, h := range addrs {
			a, ok := netip.AddrFromSlice(h.IP)
			a = a.Unmap()
			if ok && a.IsGlobalUnicast() && h.Flags&(unix.IFA_F_DEPRECATED|unix.IFA_F_TENTATIVE|unix.IFA_F_TEMPORARY) == 0 {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

// DefaultRoutes describes where this machine sends what is for the internet: a
// text that changes when that does.
func DefaultRoutes() (string, error) {
	var out []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_DST)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return "", fmt.Errorf("default route: %w", err)
		}
		for _, r := range routes {
			out = append(out, fmt.Sprintf("%d via %s dev %d metric %d", family, r.Gw, r.LinkIndex, r.Priority))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; "), nil
}

// WatchAddrs reports changes of the machine's addresses and routes until ctx is
// done: one signal for any number of changes not yet looked at. Refreshed
// lifetimes, as by IPv6 router advertisements, look the same to the receiver as
// a change: compare.
func WatchAddrs(ctx context.Context) (<-chan struct{}, error) {
	addrs := make(chan netlink.AddrUpdate, 16)
	routes := make(chan netlink.RouteUpdate, 16)
	if err := netlink.AddrSubscribe(addrs, ctx.Done()); err != nil {
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	if err := netlink.RouteSubscribe(routes, ctx.Done()); err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	out := make(chan struct{}, 1)
	go func() {
		for addrs != nil || routes != nil {
			select {
			case _, ok := <-addrs:
				if !ok {
					addrs = nil
				}
			case _, ok := <-routes:
				if !ok {
					routes = nil
				}
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, nil
}

// virtualLink says whether l leads only to containers of this machine, or into
// another tunnel. A bridge may well be how the machine is connected, and in a
// container a veth is: of these only Docker's own bridges are left out.
func virtualLink(l netlink.Link) bool {
	switch l.Type() {
	case "tuntap", "tun", "wireguard", "dummy", "ipip", "sit", "vxlan":
		return true
	case "bridge":
		name := l.Attrs().Name
		return name == "docker0" || len(name) == len("br-0123456789ab") && name[:3] == "br-"
	}
	return false
}
