package space

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// mtu is that of every line in the lab: Ethernet's.
const mtu = 1500

// Wire makes the network's namespaces and everything in them, without rules.
// full names a namespace of the host after a space of the network. Namespaces
// that links of n lead to but n has not must be there; all but links may be
// there already.
func Wire(ctx context.Context, n *topology.Network, full func(string) string) error {
	w := &wirer{full: full, handles: map[string]*handle{}}
	defer w.close()
	for _, s := range n.Spaces {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.space(s); err != nil {
			return fmt.Errorf("namespace %s: %w", full(s.Name), err)
		}
	}
	for _, l := range n.Links {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.link(l); err != nil {
			return fmt.Errorf("link %s -- %s: %w", l.A, l.B, err)
		}
	}
	for _, s := range n.Spaces {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.fill(s); err != nil {
			return fmt.Errorf("namespace %s: %w", full(s.Name), err)
		}
	}
	return nil
}

// handle is a way to speak to the kernel about one namespace.
type handle struct {
	*netlink.Handle
	ns netns.NsHandle
}

type wirer struct {
	full    func(string) string
	handles map[string]*handle
}

func (w *wirer) close() {
	for _, h := range w.handles {
		h.Handle.Close()
		h.ns.Close()
	}
}

func (w *wirer) handle(space string) (*handle, error) {
	if h := w.handles[space]; h != nil {
		return h, nil
	}
	ns, err := netns.GetFromPath(Path(w.full(space)))
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, err
	}
	w.handles[space] = &handle{h, ns}
	return w.handles[space], nil
}

func (w *wirer) space(s topology.Space) error {
	if err := Make(w.full(s.Name)); err != nil {
		return err
	}
	h, err := w.handle(s.Name)
	if err != nil {
		return err
	}
	if err := h.up("lo"); err != nil {
		return err
	}
	if s.Bridge == "" {
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = s.Bridge, mtu, mac(s.Name, s.Bridge)
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("bridge %s: %w", s.Bridge, err)
	}
	return h.up(s.Bridge)
}

func (h *handle) up(dev string) error {
	l, err := h.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("device %s: %w", dev, err)
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("device %s: %w", dev, err)
	}
	return nil
}

func (w *wirer) link(l topology.Link) error {
	a, err := w.handle(l.A.Space)
	if err != nil {
		return err
	}
	b, err := w.handle(l.B.Space)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = l.A.Dev, mtu, mac(l.A.Space, l.A.Dev)
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: l.B.Dev, PeerNamespace: netlink.NsFd(int(b.ns)),
		PeerHardwareAddr: mac(l.B.Space, l.B.Dev),
	}
	if err := a.LinkAdd(veth); err != nil {
		return err
	}
	if err := a.plug(l.A); err != nil {
		return err
	}
	return b.plug(l.B)
}

func mac(space, dev string) net.HardwareAddr {
	m := topology.MAC(space, dev)
	return m[:]
}

// plug makes an end a port of its bridge and switches it on.
func (h *handle) plug(e topology.End) error {
	if e.Bridge != "" {
		port, err := h.LinkByName(e.Dev)
		if err != nil {
			return err
		}
		bridge, err := h.LinkByName(e.Bridge)
		if err != nil {
			return err
		}
		if err := h.LinkSetMaster(port, bridge); err != nil {
			return err
		}
	}
	return h.up(e.Dev)
}

// fill gives a space its settings, addresses and routes, once all of its
// devices are there.
func (w *wirer) fill(s topology.Space) error {
	if err := settings(w.full(s.Name), s.Sysctl); err != nil {
		return err
	}
	h, err := w.handle(s.Name)
	if err != nil {
		return err
	}
	for _, a := range s.Addrs {
		if err := h.addr(a); err != nil {
			return fmt.Errorf("address %s on %s: %w", a.Prefix, a.Dev, err)
		}
	}
	for _, r := range s.Routes {
		if err := h.route(r); err != nil {
			return fmt.Errorf("route %s: %w", r, err)
		}
	}
	return nil
}

func (h *handle) addr(a topology.Addr) error {
	l, err := h.LinkByName(a.Dev)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(a.Prefix)}
	if a.Prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // nobody else has it, and asking takes a second
	}
	return h.AddrReplace(l, addr)
}

func (h *handle) route(r topology.Route) error {
	l, err := h.LinkByName(r.Dev)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.Dst), Protocol: unix.RTPROT_STATIC}
	if r.Via.IsValid() {
		route.Gw = r.Via.AsSlice()
		route.Flags = int(netlink.FLAG_ONLINK)
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if r.Src.IsValid() {
		route.Src = r.Src.AsSlice()
	}
	return h.RouteReplace(route)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// settings writes sysctls. One that the kernel does not have is left out: a
// kernel without IPv6 has nothing to switch off.
func settings(name string, list []topology.Setting) error {
	// A host with br_netfilter, as Docker loads it, would send what a bridge
	// passes on through the router's rules as well.
	list = append([]topology.Setting{
		{Key: "bridge/bridge-nf-call-iptables", Value: "0"},
		{Key: "bridge/bridge-nf-call-ip6tables", Value: "0"},
	}, list...)
	return Do(name, func() error {
		for _, s := range list {
			path := filepath.Join("/proc/sys/net", s.Key)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if err := os.WriteFile(path, []byte(s.Value), 0); err != nil {
				return fmt.Errorf("sysctl %s: %w", s.Key, err)
			}
		}
		return nil
	})
}

// Unplug takes a device away, and with it the other end of its link. That
// there is none is no error.
func Unplug(name, dev string) error {
	ns, err := netns.GetFromPath(Path(name))
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(dev)
	if _, none := err.(netlink.LinkNotFoundError); none { //nolint:errorlint // netlink returns it bare
		return nil
	}
	if err != nil {
		return err
	}
	return h.LinkDel(l)
}
