package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// The MTU of the mesh, and what plain WireGuard takes where nobody says it.
const (
	meshMTU  = 1280
	plainMTU = 1420
)

const meshPort = 51877

// node is one machine with an agent, in the fleet or in the large one.
type node struct {
	name string
	addr string // underlay
	hub  bool
	key  wire.PrivateKey
	mesh netip.Addr
	pid  int
}

// machines are the six of the fleet.
func machines() []*node {
	return []*node{
		{name: "hub1", addr: "203.0.113.1", hub: true},
		{name: "hub2", addr: "203.0.113.2", hub: true},
		{name: "a", addr: "203.0.113.11"},
		{name: "b", addr: "203.0.113.12"},
		{name: "c", addr: "203.0.113.13"},
		{name: "d", addr: "203.0.113.14"},
	}
}

// member gives n a key and mesh addresses: the i-th of the fleet.
func (n *node) member(i int) (fleet.MeshNode, error) {
	key, err := wire.NewPrivateKey(rand.Reader)
	if err != nil {
		return fleet.MeshNode{}, err
	}
	n.key = key
	n.mesh = netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)})
	m := fleet.MeshNode{Name: fleet.NodeName(n.name), Key: key.Public(), V4: n.mesh, V6: netip.MustParseAddr(fmt.Sprintf("fd77::%x", i)), Hub: n.hub}
	if n.hub {
		m.Public = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(n.addr), meshPort)}
	}
	return m, nil
}

// configuration is mesh.json of all of them.
func configuration(all []*node) (fleet.AgentConfig, error) {
	c := fleet.AgentConfig{
		Version: 1, Fleet: "bench", Port: meshPort, MTU: meshMTU,
		V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd77::/48"),
	}
	for i, n := range all {
		m, err := n.member(i + 1)
		if err != nil {
			return c, err
		}
		c.Nodes = append(c.Nodes, m)
	}
	return c, nil
}

// agent starts n's moggy agent.
func (w *world) agent(ctx context.Context, moggy string, n *node, c fleet.AgentConfig) error {
	dir := filepath.Join(w.dir, n.name)
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "mesh.json"), text, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "mesh.key"), n.key.Encode(), 0o600); err != nil {
		return err
	}
	socket := filepath.Join(dir, "agent.sock")
	// An interface name of its own: wg(8)'s sockets are the whole machine's.
	err = asUnit(func() (err error) {
		n.pid, err = w.start(ctx, n.name, moggy, "agent", "--config", filepath.Join(dir, "mesh.json"), "--key", filepath.Join(dir, "mesh.key"),
			"--socket", socket, "--state", dir, "--interface", w.tag+n.name)
		return err
	})
	if err != nil {
		return err
	}
	return await(ctx, "the agent of "+n.name, func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
}

// fleet starts the six, and waits until everybody reaches everybody.
func (w *world) fleet(ctx context.Context, moggy string) (map[string]*node, error) {
	all := machines()
	c, err := configuration(all)
	if err != nil {
		return nil, err
	}
	by := make(map[string]*node)
	for _, n := range all {
		by[n.name] = n
		if err := w.plug(n.name, n.addr); err != nil {
			return nil, err
		}
	}
	for _, wall := range []struct{ at, from *node }{{by["c"], by["d"]}, {by["d"], by["c"]}} {
		err := w.sh(wall.at.name, fmt.Sprintf("nft 'table ip wall { chain in { type filter hook prerouting priority raw; ip saddr %s drop; }; }'", wall.from.addr))
		if err != nil {
			return nil, err
		}
	}
	for _, n := range all {
		if err := w.agent(ctx, moggy, n, c); err != nil {
			return nil, err
		}
	}
	for _, pair := range [][2]*node{{by["a"], by["b"]}, {by["c"], by["d"]}} {
		err := await(ctx, pair[0].name+" to reach "+pair[1].name, func() bool {
			return w.command(ctx, pair[0].name, "ping", "-n", "-c", "1", "-W", "1", pair[1].mesh.String()).Run() == nil
		})
		if err != nil {
			return nil, err
		}
	}
	return by, pause(ctx, 2*time.Second) // for the better path
}

// tunnel is a pair of plain wireguard-go between a and b.
type tunnel struct {
	mtu  int
	to   string // b's address in it
	pids [2]int
}

// plain starts wireguard-go in a and b, beside their agents.
func (w *world) plain(ctx context.Context, program string, mtu int) (*tunnel, error) {
	t := &tunnel{mtu: mtu, to: fmt.Sprintf("10.88.%d.2", mtu&255)}
	var keys [2]wire.PrivateKey
	var err error
	for i := range keys {
		if keys[i], err = wire.NewPrivateKey(rand.Reader); err != nil {
			return nil, err
		}
	}
	port := 40000 + mtu
	for i, at := range []string{"a", "b"} {
		dev := fmt.Sprintf("%s%s%d", w.tag, at, mtu)
		if t.pids[i], err = w.start(ctx, at, program, "--foreground", dev); err != nil {
			return nil, err
		}
		socket := filepath.Join("/var/run/wireguard", dev+".sock")
		if err := await(ctx, socket, func() bool { _, err := os.Stat(socket); return err == nil }); err != nil {
			return nil, err
		}
		file := filepath.Join(w.dir, dev+".key")
		if err := os.WriteFile(file, keys[i].Encode(), 0o600); err != nil {
			return nil, err
		}
		key := keys[1-i].Public()
		script := fmt.Sprintf("wg set %s private-key %s listen-port %d peer %s allowed-ips 10.88.%d.0/24 endpoint 203.0.113.%d:%d", dev, file, port, key, mtu&255, 12-i, port)
		script += fmt.Sprintf("; ip link set %s mtu %d up; ip addr add 10.88.%d.%d/24 dev %s", dev, mtu, mtu&255, i+1, dev)
		if err := w.sh(at, script); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// large starts a node of a fleet with that many peers, and the three of them that
// are hubs; of the others there is nothing but the configuration.
func (w *world) large(ctx context.Context, moggy string, peers int) (map[string]*node, error) {
	all := []*node{{name: "large", addr: "203.0.113.100"}}
	for i := range peers {
		n := &node{name: fmt.Sprint("n", i), addr: fmt.Sprintf("203.0.113.%d", 101+i%100), hub: i < 3}
		all = append(all, n)
	}
	c, err := configuration(all)
	if err != nil {
		return nil, err
	}
	by := make(map[string]*node)
	for _, n := range all[:min(4, len(all))] {
		by[n.name] = n
		if err := w.plug(n.name, n.addr); err != nil {
			return nil, err
		}
		if err := w.agent(ctx, moggy, n, c); err != nil {
			return nil, err
		}
	}
	return by, nil
}
