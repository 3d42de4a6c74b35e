package wire

import "github.com/moggyfleet/moggy/internal/fleet"

// NewKeyring returns a ring without peers.
func NewKeyring(priv PrivateKey) *Keyring { return &Keyring{self: newIdentity(priv)} }

// Self is our own public key.
func (k *Keyring) Self() fleet.Key { return k.self.public }

// With returns a ring for exactly those peers. Pairs that k has are kept; a key
// that is unusable, or our own, is left out and returned.
func (k *Keyring) With(peers []fleet.Key) (next *Keyring, bad []fleet.Key) {
	next = &Keyring{self: k.self, pairs: make(map[ID]*Pair, len(peers))}
	for _, key := range peers {
		id := IDOf(key)
		if old, ok := k.pairs[id]; ok && old.PeerKey == key {
			next.pairs[id] = old
			continue
		}
		pair, err := k.self.pair(key)
		if err != nil || key == k.self.public {
			bad = append(bad, key)
			continue
		}
		next.pairs[id] = pair
	}
	return next, bad
}

// Pair returns the keys shared with that node.
func (k *Keyring) Pair(id ID) (*Pair, bool) {
	p, ok := k.pairs[id]
	return p, ok
}
