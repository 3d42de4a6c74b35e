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

func readKey(path string) (wire.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return wire.PrivateKey{}, fmt.Errorf("mesh key: %w", err)
	}
	key, err := wire.ParsePrivateKey(text)
	if err != nil {
		return wire.PrivateKey{}, fmt.Errorf("mesh key %s: %w", path, err)
	}
	return key, nil
}

// readConfig reads mesh.json for the node whose key is own.
func readConfig(path string, own fleet.Key) (fleet.AgentConfig, fleet.Digest, error) {
	var c fleet.AgentConfig
	text, err := os.ReadFile(path)
	if err != nil {
		return c, "", fmt.Errorf("mesh configuration: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, "", fmt.Errorf("%s: %w", path, err)
	}
	if err := validate(c, own); err != nil {
		return c, "", fmt.Errorf("%s: %w", path, err)
	}
	return c, fleet.DigestOf(text), nil
}

// validate refuses what would cut the node off, before anything is changed.
func validate(c fleet.AgentConfig, own fleet.Key) error {
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
		case keys[n.Key] != "":
			return fmt.Errorf("node %s: key of %s", n.Name, keys[n.Key])
		case !c.V4.Contains(n.V4) || !c.V6.Contains(n.V6):
			return fmt.Errorf("node %s: address outside of the mesh", n.Name)
		case addrs[n.V4] != "" || addrs[n.V6] != "":
			return fmt.Errorf("node %s: address of %s", n.Name, addrs[n.V4]+addrs[n.V6])
		}
		keys[n.Key], addrs[n.V4], addrs[n.V6] = n.Name, n.Name, n.Name
	}
	if keys[own] == "" {
		return fmt.Errorf("no node has this machine's key, which is %s", own)
	}
	return nil
}
