// Package key makes and reads a node's mesh key, which never leaves the
// machine. The file holds one key, or while that is rotated two, a line each; what
// mesh.json has the node go by is the first once a generation is confirmed.
package key

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
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
	secret, err := generate()
	if err != nil {
		return key, err
	}
	if err := f.write(secret); err != nil {
		return key, err
	}
	return f.Public()
}

// generate makes a private key, as wg(8) writes it: X25519's with some bits fixed
// (RFC 7748, section 5); both give the same public key.
func generate() (string, error) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("mesh key: %w", err)
	}
	secret := private.Bytes()
	secret[0] &= 248
	secret[31] = secret[31]&127 | 64
	return base64.StdEncoding.EncodeToString(secret), nil
}

func (f File) write(secrets ...string) error {
	if err := f.Disk.Write(f.Path, []byte(strings.Join(secrets, "\n")+"\n")); err != nil {
		return fmt.Errorf("mesh key: %w", err)
	}
	return nil
}

// Public is the public half of the node's mesh key. It is fs.ErrNotExist
// before Make.
func (f File) Public() (fleet.Key, error) {
	keys, err := f.Keys()
	if err != nil {
		return fleet.Key{}, err
	}
	return keys[0], nil
}

// Keys are the public halves of the keys that the file holds, one or two. It is
// fs.ErrNotExist before Make.
func (f File) Keys() ([]fleet.Key, error) {
	pairs, err := f.read()
	if err != nil {
		return nil, err
	}
	var keys []fleet.Key
	for _, p := range pairs {
		keys = append(keys, p.public)
	}
	return keys, nil
}

type pair struct {
	secret string
	public fleet.Key
}

func (f File) read() ([]pair, error) {
	b, err := os.ReadFile(f.Disk.Real(f.Path))
	if err != nil {
		return nil, fmt.Errorf("mesh key: %w", err)
	}
	var pairs []pair
	for text := range strings.Lines(strings.TrimSpace(string(b))) {
		p := pair{secret: strings.TrimSpace(text)}
		secret, err := base64.StdEncoding.Strict().DecodeString(p.secret)
		if err != nil {
			return nil, f.unreadable()
		}
		private, err := ecdh.X25519().NewPrivateKey(secret)
		if err != nil {
			return nil, f.unreadable()
		}
		p.public = fleet.Key(private.PublicKey().Bytes())
		pairs = append(pairs, p)
	}
	if len(pairs) == 0 || len(pairs) > 2 {
		return nil, f.unreadable()
	}
	return pairs, nil
}

// unreadable is the error of a file that holds something else. The cause may quote
// what it could not read: it stays here.
func (f File) unreadable() error {
	return hint.New("mesh key: "+f.Path+" holds no WireGuard key",
		"restore it from a backup; or move it away, and this node gets a new key at the next apply")
}

// Next makes a second key beside current, which the file must hold, and returns it:
// the public half, and the private one for the agent. Where the file holds the key
// wanted already, it is that one; any other second key is forgotten.
func (f File) Next(current, wanted fleet.Key) (next fleet.Key, secret []byte, err error) {
	pairs, err := f.read()
	if err != nil {
		return next, nil, err
	}
	i := slices.IndexFunc(pairs, func(p pair) bool { return p.public == current })
	if i < 0 {
		return next, nil, hint.New("mesh key: this node's is not the one in fleet.lock.hcl", "moggy doctor says whose it is")
	}
	for _, p := range pairs {
		if p.public == wanted && p.public != current {
			return wanted, []byte(p.secret + "\n"), nil
		}
	}
	text, err := generate()
	if err != nil {
		return next, nil, err
	}
	if err := f.write(pairs[i].secret, text); err != nil {
		return next, nil, err
	}
	keys, err := f.Keys()
	if err != nil {
		return next, nil, err
	}
	return keys[1], []byte(text + "\n"), nil
}

// Follow makes the file hold what the mesh in force, as the file of that path has
// it, has this node be: the key that it goes by first, the other one of a rotation
// second, and no more. Where there is no such file, or it does not know this node,
// nothing changes.
func (f File) Follow(path string) error {
	var c fleet.AgentConfig
	text, err := os.ReadFile(f.Disk.Real(path))
	if err != nil || json.Unmarshal(text, &c) != nil {
		return nil
	}
	pairs, err := f.read()
	if err != nil {
		return err
	}
	for _, p := range pairs {
		self, ok := c.Self(p.public)
		if !ok {
			continue
		}
		keep := []string{p.secret}
		for _, other := range pairs {
			if other.public == self.Other() {
				keep = append(keep, other.secret)
			}
		}
		if len(keep) == len(pairs) && p == pairs[0] {
			return nil
		}
		return f.write(keep...)
	}
	return nil
}
