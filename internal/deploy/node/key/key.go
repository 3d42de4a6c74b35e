// Package key makes and reads a node's mesh key, which never leaves the
// machine.
package key

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// File is where a node has its key.
type File struct {
	Disk *disk.Disk
	Path string
}

// Make makes the key, and returns its public half. One that is there is never
// replaced.
func (f File) Make() (fleet.Key, error) {
	key, err := f.Public()
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
	if err := f.Disk.Write(f.Path, []byte(text)); err != nil {
		return key, fmt.Errorf("mesh key: %w", err)
	}
	return f.Public()
}

// Public is the public half of the node's mesh key. It is fs.ErrNotExist
// before Make.
func (f File) Public() (fleet.Key, error) {
	b, err := os.ReadFile(f.Disk.Real(f.Path))
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
	return fleet.Key{}, hint.New("mesh key: "+f.Path+" holds no WireGuard key",
		"restore it from a backup; or move it away, and this node gets a new key at the next apply")
}
