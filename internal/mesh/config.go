package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// configVersion is the format of mesh.json that we read.
const configVersion = 1

// Bounds of the interface's MTU: IPv6 needs 1280 (RFC 8200), and WireGuard over
// a relay over IPv6 leaves 1380 of an Ethernet frame.
const (
	mtuMin = 1280
	mtuMax = 1500 - 40 - 8 - 32 - wire.RelaySize
)

// readKeys reads the node's private keys: one, or two while it is rotated.
func readKeys(path string) ([]wire.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("mesh key: %w", err)
	}
	keys, err := wire.ParsePrivateKeys(text)
	if err != nil {
		return nil, fmt.Errorf("mesh key %s: %w", path, err)
	}
	return keys, nil
}

// ownKeys are the private keys of this node: the one that it goes by, and while
// that is rotated the other one.
type ownKeys struct {
	key   wire.PrivateKey
	other wire.PrivateKey
	two   bool // there is another one
}

// pick finds this node in c by its private keys.
func pick(c fleet.AgentConfig, keys []wire.PrivateKey) (ownKeys, error) {
	var own ownKeys
	for _, key := range keys {
		self, ok := c.Self(key.Public())
		if !ok {
			continue
		}
		own.key = key
		for _, other := range keys {
			if other.Public() == self.Other() {
				own.other, own.two = other, true
			}
		}
		return own, nil
	}
	return own, fmt.Errorf("no node has this machine's key, which is %s", keys[0].Public())
}

// readConfig reads mesh.json.
func readConfig(path string) (fleet.AgentConfig, fleet.Digest, error) {
	var c fleet.AgentConfig
	text, err := os.ReadFile(path)
	if err != nil {
		return c, "", fmt.Errorf("mesh configuration: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, "", fmt.Errorf("%s: %w", path, err)
	}
	if err := validate(c); err != nil {
		return c, "", fmt.Errorf("%s: %w", path, err)
	}
	return c, fleet.DigestOf(text), nil
}

// validate refuses what would cut the node off, before anything is changed.
func validate(c fleet.AgentConfig) error {
	switch {
	case c.Version != configVersion:
		return fmt.Errorf("version %d, this agent reads %d", c.Version, configVersion)
	case c.Port == 0:
		return errors.New("no port")
	case c.MTU < mtuMin || c.MTU > mtuMax:
		return fmt.Errorf("mtu %d is not from %d to %d", c.MTU, mtuMin, mtuMax)
	case !c.V4.IsValid() || !c.V4.Addr().Is4():
		return fmt.Errorf("range %q is not IPv4", c.V4)
	case !c.V6.IsValid() || !c.V6.Addr().Is6():
		return fmt.Errorf("range %q is not IPv6", c.V6)
	}
	addrs := make(map[netip.Addr]fleet.NodeName)
	keys := make(map[fleet.Key]fleet.NodeName)
	for _, n := range c.Nodes {
		switch {
		case n.Key.IsZero():
			return fmt.Errorf("node %s: no key", n.Name)
		case !n.Next.IsZero() && !n.Old.IsZero():
			return fmt.Errorf("node %s: three keys", n.Name)
		case !c.V4.Contains(n.V4) || !c.V6.Contains(n.V6):
			return fmt.Errorf("node %s: address outside of the mesh", n.Name)
		case addrs[n.V4] != "" || addrs[n.V6] != "":
			return fmt.Errorf("node %s: address of %s", n.Name, addrs[n.V4]+addrs[n.V6])
		}
		for _, k := range n.Keys() {
			if keys[k] != "" {
				return fmt.Errorf("node %s: key of %s", n.Name, keys[k])
			}
			keys[k] = n.Name
		}
		addrs[n.V4], addrs[n.V6] = n.Name, n.Name
	}
	for _, d := range c.Devices {
		name := fleet.NodeName(d.Name)
		switch {
		case d.Key.IsZero() || keys[d.Key] != "":
			return fmt.Errorf("device %s: no key of its own", name)
		case !c.V4.Contains(d.V4) || !c.V6.Contains(d.V6) || addrs[d.V4] != "" || addrs[d.V6] != "":
			return fmt.Errorf("device %s: no addresses of its own in the mesh", name)
		}
		keys[d.Key], addrs[d.V4], addrs[d.V6] = name, name, name
	}
	return nil
}
