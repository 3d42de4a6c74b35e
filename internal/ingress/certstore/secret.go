package certstore

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Derive is what the holder of a mesh key shares with the holder of another, for
// this one purpose: HKDF-SHA-256 (RFC 5869) of X25519 of the two, with both public
// keys, the smaller first. It says nothing about either key.
func Derive(own wire.PrivateKey, other fleet.Key) (Secret, error) {
	private, err := ecdh.X25519().NewPrivateKey(own[:])
	if err != nil {
		return Secret{}, err
	}
	public, err := ecdh.X25519().NewPublicKey(other[:])
	if err != nil {
		return Secret{}, err
	}
	shared, err := private.ECDH(public)
	if err != nil {
		return Secret{}, fmt.Errorf("key %s: %w", other, err)
	}
	mine := own.Public()
	a, b := mine[:], other[:]
	if bytes.Compare(a, b) > 0 {
		a, b = b, a
	}
	key, err := hkdf.Key(sha256.New, shared, []byte("moggy certificates v1"), string(a)+string(b), len(Secret{}))
	if err != nil {
		return Secret{}, err
	}
	return Secret(key), nil
}

// Secrets are who this node is, and what it shares with each other, as `moggy
// ingress keys` hands them to the ingress.
type Secrets struct {
	Self  fleet.NodeName              `json:"self"`
	Peers map[fleet.NodeName][][]byte `json:"peers"` // the one both go by first
}

// DeriveAll makes the secrets of the node that has the private keys, one or while
// they are rotated two. False means that it is no ingress node of cfg.
func DeriveAll(own []wire.PrivateKey, cfg fleet.IngressConfig) (Secrets, bool, error) {
	out := Secrets{Peers: make(map[fleet.NodeName][][]byte)}
	for _, n := range cfg.Nodes {
		for i, k := range own {
			if n.Keys[0] == k.Public() {
				out.Self = n.Name
				own[0], own[i] = own[i], own[0]
			}
		}
	}
	for _, n := range cfg.Nodes {
		if n.Name == out.Self {
			continue
		}
		for _, k := range own {
			for _, other := range n.Keys {
				s, err := Derive(k, other)
				if err != nil {
					return Secrets{}, false, fmt.Errorf("node %s: %w", n.Name, err)
				}
				out.Peers[n.Name] = append(out.Peers[n.Name], s[:])
			}
		}
	}
	return out, out.Self != "", nil
}

// ParseSecrets reads secrets from JSON.
func ParseSecrets(text []byte) (Secrets, error) {
	var s Secrets
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("secrets: %w", err)
	}
	for n, secrets := range s.Peers {
		for _, one := range secrets {
			if len(one) != len(Secret{}) {
				return s, fmt.Errorf("secrets: of %s: %d bytes", n, len(one))
			}
		}
	}
	return s, nil
}

// Of are those shared with a node.
func (s Secrets) Of(n fleet.NodeName) (out []Secret) {
	for _, one := range s.Peers[n] {
		out = append(out, Secret(one))
	}
	return out
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, network, address)
}
