package fleet

import (
	"encoding/base64"
	"errors"
	"fmt"
)

// Key is a Curve25519 public key, as WireGuard uses it. The zero Key means
// that none is known.
type Key [32]byte

var errKey = errors.New("not a WireGuard key (32 bytes in base64)")

// ParseKey reads the base64 form that wg(8) prints.
func ParseKey(s string) (Key, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(Key{}) {
		return Key{}, fmt.Errorf("%q: %w", s, errKey)
	}
	return Key(b), nil
}

// String is the base64 form, or "" for the zero Key.
func (k Key) String() string {
	if k.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k[:])
}

// IsZero says whether no key is known.
func (k Key) IsZero() bool { return k == Key{} }

// MarshalText is String, for JSON.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is ParseKey; "" gives the zero Key.
func (k *Key) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*k = Key{}
		return nil
	}
	*k, err = ParseKey(string(b))
	return err
}
