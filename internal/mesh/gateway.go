package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/link"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// A device speaks to one hub at a time and changes hubs as it likes. The hub that
// hears it tells the others, at once and again after serveSoon, twice as long each
// time until it is serveAgain: what it says may be lost. Whoever comes to the hub
// later is told then (path.Engine.Serve). They send what is for the device to the
// hub that told last. Nothing of that is kept.
const (
	serveSoon  = 250 * time.Millisecond
	serveAgain = 15 * time.Second // less than path.ServedFor
)

// telling is when a hub says again that it has a device.
type telling struct {
	next time.Time
	wait time.Duration
}

// served is a device, and where it is.
type served struct {
	fleet.Device
	at wire.ID // the hub that has it; zero: nobody said. Our own ID: here.
}

func (d served) prefixes() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(d.V4, d.V4.BitLen()), netip.PrefixFrom(d.V6, d.V6.BitLen())}
}

// applyGateway puts devices in force: on a hub that has the gateway's key, what
// serves them.
func (a *Agent) applyGateway(conf fleet.AgentConfig, hub bool) error {
	var gone []fleet.Device
	self := wire.IDOf(a.key.Public())
	a.mu.Lock()
	old := a.devices
	a.devices = make(map[wire.ID]*served, len(conf.Devices))
	for _, d := range conf.Devices {
		id := wire.IDOf(d.Key)
		next := &served{Device: d}
		if was := old[id]; was != nil && was.Device == d {
			next = was
		}
		a.devices[id] = next
	}
	for id, d := range old {
		if a.devices[id] != d && d.at == self {
			gone = append(gone, d.Device)
		}
	}
	a.mu.Unlock()
	for _, d := range gone {
		a.routeDevice(d, false)
	}
	var want fleet.Gateway
	if conf.Gateway != nil && hub {
		want = *conf.Gateway
	}
	if a.gateway != nil && want != a.serves {
		a.gateway.Close()
		a.gateway = nil
	}
	a.serves = want
	if want == (fleet.Gateway{}) {
		return nil
	}
	if a.gateway == nil {
		key, err := gatewayKey(a.opt.GatewayKeyPath, want.Key)
		if err != nil {
			return err
		}
		if a.gateway, err = link.NewGateway(a.opt.Interface+"-gw", conf.MTU, key, want.Port, a.hearDevice, a.log); err != nil {
			a.gateway = nil
			return err
		}
	}
	return a.gateway.SetDevices(conf.Devices)
}

func gatewayKey(path string, want fleet.Key) (wire.PrivateKey, error) {
	if path == "" {
		return wire.PrivateKey{}, errors.New("gateway: this hub has no key for it")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return wire.PrivateKey{}, fmt.Errorf("gateway key: %w", err)
	}
	key, err := wire.ParsePrivateKey(text)
	if err == nil && key.Public() != want {
		err = errors.New("not the one of the mesh's configuration")
	}
	if err != nil {
		return key, fmt.Errorf("gateway key %s: %w", path, err)
	}
	return key, nil
}

// hearDevice is on the way of packets: a device talks to us.
func (a *Agent) hearDevice(from netip.Addr) {
	now := time.Now()
	a.lookMu.Lock()
	told := a.here[from]
	news := now.After(told.next)
	if news {
		told.wait = min(max(2*told.wait, serveSoon), serveAgain)
		a.here[from] = telling{now.Add(told.wait), told.wait}
		a.heard[from] = true
	}
	a.lookMu.Unlock()
	if news {
		a.poke()
	}
}

// serve looks after devices that talk to us, and those of which a hub told.
func (a *Agent) serve(now time.Time) {
	a.lookMu.Lock()
	heard := a.heard
	if len(heard) > 0 {
		a.heard = make(map[netip.Addr]bool)
	}
	a.lookMu.Unlock()
	self := wire.IDOf(a.key.Public())
	a.mu.Lock()
	var come, gone []fleet.Device
	for id, d := range a.devices {
		if !heard[d.V4] && !heard[d.V6] {
			continue
		}
		if d.at != self {
			come = append(come, d.Device)
			a.log.Info("device came", fieldPeer, d.Name)
		}
		d.at = self
		a.engine.Serve(now, id)
	}
	for _, s := range a.serving {
		d := a.devices[s.Device]
		if d == nil || d.at == s.Hub {
			continue
		}
		if d.at == self {
			gone = append(gone, d.Device)
			a.log.Info("device went", fieldPeer, d.Name, fieldVia, a.nodes[s.Hub].Name)
		}
		d.at = s.Hub
	}
	told, nodes := a.serving, a.nodes
	a.serving = nil
	a.carryOutLocked(now)
	a.mu.Unlock()
	for _, d := range come {
		a.routeDevice(d, true)
	}
	a.lookMu.Lock()
	for _, d := range gone {
		delete(a.here, d.V4)
		delete(a.here, d.V6)
	}
	a.lookMu.Unlock()
	for _, d := range gone {
		a.routeDevice(d, false)
	}
	for _, s := range told {
		a.lead(nodes[s.Hub], s.Device)
	}
}

func (a *Agent) routeDevice(d fleet.Device, here bool) {
	if a.gateway == nil {
		return
	}
	a.mu.Lock()
	self, _ := a.split(a.conf)
	a.mu.Unlock()
	if err := a.gateway.Route(d, here, self.V4, self.V6); err != nil {
		a.log.Warn("no route to a device", fieldPeer, d.Name, fieldError, err)
	}
}

// lead sends what is for a device to the hub that has it.
func (a *Agent) lead(hub fleet.MeshNode, id wire.ID) {
	a.mu.Lock()
	d := a.devices[id]
	a.mu.Unlock()
	if d == nil || d.at != wire.IDOf(hub.Key) {
		return
	}
	if err := a.dev.Lead(hub.Key, d.prefixes()); err != nil {
		a.log.Warn("no way to a device", fieldPeer, d.Name, fieldError, err)
	}
}

// servedBy are the addresses of the devices that a hub has, as far as we know.
func (a *Agent) servedBy(hub wire.ID) []netip.Prefix {
	var out []netip.Prefix
	for _, d := range a.devices {
		if d.at == hub {
			out = append(out, d.prefixes()...)
		}
	}
	return out
}
