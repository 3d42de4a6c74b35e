package node

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Init makes what a node must have before anything can be staged, its mesh key
// above all, and returns the public half. A key that is there is never replaced.
func (h *Held) Init() (fleet.Key, error) {
	key, err := h.MeshKey()
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return key, fmt.Errorf("mesh key: %w", err)
	}
	// wg(8)'s form, which is X25519's with some bits fixed (RFC 7748, section 5);
	// both give the same public key.
	secret := private.Bytes()
	secret[0] &= 248
	secret[31] = secret[31]&127 | 64
	text := base64.StdEncoding.EncodeToString(secret) + "\n"
	if err := h.disk.Write(MeshKeyPath, []byte(text)); err != nil {
		return key, readOnlyHint(fmt.Errorf("mesh key: %w", err))
	}
	return h.MeshKey()
}

// MeshKey is the public half of the node's mesh key. It is fs.ErrNotExist
// before Init.
func (n *Node) MeshKey() (fleet.Key, error) {
	b, err := os.ReadFile(n.disk.Real(MeshKeyPath))
	if err != nil {
		return fleet.Key{}, fmt.Errorf("mesh key: %w", err)
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(b)))
	if err == nil {
		var private *ecdh.PrivateKey
		if private, err = ecdh.X25519().NewPrivateKey(secret); err == nil {
			return fleet.Key(private.PublicKey().Bytes()), nil
		}
	}
	// The cause may quote what it could not read: it stays here.
	return fleet.Key{}, hint.New("mesh key: "+MeshKeyPath+" holds no WireGuard key",
		"restore it from a backup; or move it away, and this node gets a new key at the next apply")
}
