package fleet

import (
	"net/netip"
	"slices"
	"strings"
)

// Lock is what was derived once and must stay: fleet.lock.hcl. It holds no
// secret; it is committed beside the file.
type Lock struct {
	Version    int  // of the format; 1
	Fleet      Name // whose lock it is; "" in a fresh one
	Generation int  // the highest number ever given to a generation
	Mesh       Ranges
	Nodes      []NodeLock // sorted by name
}

// NodeLock is what is fixed about one node.
type NodeLock struct {
	Name    NodeName
	V4, V6  netip.Addr // mesh addresses
	MeshKey Key        // public key; the private one is made on the node and stays there
	// While the key is rotated there is one more: the one that MeshKey shall be next;
	// or was before, and is good still; or was before, and which somebody may still
	// take for good who has not been told.
	NextKey, OldKey, GoneKey Key
	HostKeys                 []string // SSH host keys, "ssh-ed25519 AAAA..." without a comment
	Arch                     string   // as Go names it: "amd64", "arm64"; "" before first contact
	Generation               int      // the last one it confirmed; 0 before the first
	// CA is the certificate, DER, of the authority that the node has for what it
	// may vouch for; nil where nothing of the fleet needs one. Its key is made on the
	// node and stays there.
	CA []byte
}

// Rotating says whether the node's mesh key is being changed.
func (n NodeLock) Rotating() bool {
	return !n.NextKey.IsZero() || !n.OldKey.IsZero() || !n.GoneKey.IsZero()
}

// Node returns the entry of that name, or a zero entry with the name.
func (l *Lock) Node(name NodeName) NodeLock {
	if i, ok := l.find(name); ok {
		return l.Nodes[i]
	}
	return NodeLock{Name: name}
}

// Put stores the entry, replacing the one of the same name.
func (l *Lock) Put(n NodeLock) {
	i, ok := l.find(n.Name)
	if ok {
		l.Nodes[i] = n
		return
	}
	l.Nodes = slices.Insert(l.Nodes, i, n)
}

// Remove drops the entry of that name.
func (l *Lock) Remove(name NodeName) {
	if i, ok := l.find(name); ok {
		l.Nodes = slices.Delete(l.Nodes, i, i+1)
	}
}

// Clone returns a copy that shares nothing with l.
func (l *Lock) Clone() *Lock {
	c := *l
	c.Nodes = slices.Clone(l.Nodes)
	for i := range c.Nodes {
		c.Nodes[i].HostKeys = slices.Clone(c.Nodes[i].HostKeys)
		c.Nodes[i].CA = slices.Clone(c.Nodes[i].CA)
	}
	return &c
}

func (l *Lock) find(name NodeName) (int, bool) {
	return slices.BinarySearchFunc(l.Nodes, name, func(n NodeLock, want NodeName) int {
		return strings.Compare(string(n.Name), string(want))
	})
}
