package wire

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aead/siphash"
	"golang.org/x/crypto/blake2s"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// ID names a node in frames: the first 8 bytes of a hash of its public key.
type ID [8]byte

// IDOf returns the ID of the node with that public key.
func IDOf(k fleet.Key) ID {
	h := blake2s.Sum256(append([]byte("moggy mesh v1 id"), k[:]...))
	return ID(h[:8])
}

// IsZero says whether id names nobody.
func (id ID) IsZero() bool { return id == ID{} }

func (id ID) String() string { return fmt.Sprintf("%x", id[:]) }

// PrivateKey is a Curve25519 private key. It does not print itself.
type PrivateKey [32]byte

var errPrivateKey = errors.New("not a WireGuard private key (32 bytes in base64)")

// NewPrivateKey makes a key from 32 bytes of random.
func NewPrivateKey(random io.Reader) (PrivateKey, error) {
	var k PrivateKey
	if _, err := io.ReadFull(random, k[:]); err != nil {
		return PrivateKey{}, fmt.Errorf("new private key: %w", err)
	}
	// Clamped as WireGuard's own tools do, so that `wg pubkey` agrees whatever
	// reads the file (RFC 7748, section 5).
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k, nil
}

// ParsePrivateKey reads the base64 form that `wg genkey` prints; white space
// around it is ignored. The error never repeats the text.
func ParsePrivateKey(text []byte) (PrivateKey, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != len(PrivateKey{}) {
		return PrivateKey{}, errPrivateKey
	}
	return PrivateKey(b), nil
}

// ParsePrivateKeys reads a node's key file: a key on each line, one or two.
func ParsePrivateKeys(text []byte) ([]PrivateKey, error) {
	var keys []PrivateKey
	for line := range strings.Lines(strings.TrimSpace(string(text))) {
		k, err := ParsePrivateKey([]byte(line))
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 || len(keys) > 2 || len(keys) == 2 && keys[0] == keys[1] {
		return nil, errPrivateKey
	}
	return keys, nil
}

// Encode returns the base64 form, with a newline: the content of a key file.
func (k PrivateKey) Encode() []byte {
	return append(base64.StdEncoding.AppendEncode(nil, k[:]), '\n')
}

// String hides the key from logs.
func (k PrivateKey) String() string { return "(private key)" }

// GoString hides the key from logs.
func (k PrivateKey) GoString() string { return "(private key)" }

// Public returns the public half.
func (k PrivateKey) Public() fleet.Key { return newIdentity(k).public }

// identity is a private key made ready for use: most of what a pair costs is to
// work out the public half.
type identity struct {
	key    *ecdh.PrivateKey
	public fleet.Key
	id     ID
}

func newIdentity(k PrivateKey) identity {
	key, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		panic(err) // every 32 bytes are a private key of X25519
	}
	public := fleet.Key(key.PublicKey().Bytes())
	return identity{key, public, IDOf(public)}
}

// shared is X25519. It refuses keys of low order.
func (n identity) shared(peer fleet.Key) ([]byte, error) {
	pub, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return nil, err
	}
	return n.key.ECDH(pub)
}

// pair derives the keys between n and peer.
func (n identity) pair(peer fleet.Key) (*Pair, error) {
	secret, err := n.shared(peer)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", peer, err)
	}
	return &Pair{
		Self: n.id, Peer: IDOf(peer), PeerKey: peer,
		in:  directedKeys(secret, peer, n.public),
		out: directedKeys(secret, n.public, peer),
	}, nil
}

// derive gives the key for what label says, from one sender to one receiver.
// The direction is part of it, so a reflected frame is never authentic.
func derive(secret []byte, label string, sender, receiver fleet.Key, size int) []byte {
	info := label + "\x00" + string(sender[:]) + string(receiver[:])
	// Fails only for sizes beyond 255 hashes.
	key, err := hkdf.Key(sha256.New, secret, []byte("moggy mesh v1"), info, size)
	if err != nil {
		panic(err)
	}
	return key
}

// sipKey is a key of SipHash-2-4.
type sipKey [siphash.KeySize]byte

// directed are the keys of one direction between two nodes.
type directed struct {
	probe [32]byte // BLAKE2s-128, of Ping, Pong and Notice
	seal  [32]byte // XChaCha20-Poly1305, of Call
	relay sipKey   // SipHash-2-4, of Forward and Deliver
}

func directedKeys(secret []byte, sender, receiver fleet.Key) directed {
	return directed{
		probe: [32]byte(derive(secret, "probe", sender, receiver, 32)),
		seal:  [32]byte(derive(secret, "seal", sender, receiver, 32)),
		relay: sipKey(derive(secret, "relay", sender, receiver, siphash.KeySize)),
	}
}

// Pair are the keys between this node and one other. Both derive them from
// their static keys alone, so there is nothing to negotiate and nothing that
// expires.
type Pair struct {
	Self, Peer ID
	PeerKey    fleet.Key
	in, out    directed
}

// NewPair derives the keys between the owner of priv and peer. The error says
// that peer is no usable public key.
func NewPair(priv PrivateKey, peer fleet.Key) (*Pair, error) {
	return newIdentity(priv).pair(peer)
}

func mac(key *[32]byte, b []byte) [macSize]byte {
	// Fails only for keys longer than 32 bytes.
	h, err := blake2s.New128(key[:])
	if err != nil {
		panic(err)
	}
	h.Write(b)
	var sum [macSize]byte
	h.Sum(sum[:0])
	return sum
}

func macValid(key *[32]byte, b, tag []byte) bool {
	want := mac(key, b)
	return subtle.ConstantTimeCompare(want[:], tag) == 1
}
