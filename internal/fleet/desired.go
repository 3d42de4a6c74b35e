package fleet

import (
	"crypto/sha256"
	"encoding/hex"
)

// Digest is a SHA-256 in lower-case hexadecimal.
type Digest string

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest {
	s := sha256.Sum256(b)
	return Digest(hex.EncodeToString(s[:]))
}

// File is one managed file of a node.
type File struct {
	Path   string // absolute
	Mode   uint32 // permission bits; the owner is root
	Digest Digest
	// Content is nil where the bytes are large and kept elsewhere under their
	// digest (our own binary).
	Content []byte
	Secret  bool // its content is never shown
}

// NewFile is a file with its content at hand.
func NewFile(path string, mode uint32, content []byte) File {
	return File{Path: path, Mode: mode, Digest: DigestOf(content), Content: content}
}

// Unit is one systemd unit we own. Its unit file is among the node's files.
type Unit struct {
	Name string `json:"name"`
	// RestartOn are the managed files whose change restarts the unit (its own
	// unit file always does).
	RestartOn []string `json:"restart_on,omitempty"`
	// ReloadOn are the managed files whose change reloads it instead.
	ReloadOn []string `json:"reload_on,omitempty"`
	// Foreign units belong to the distribution (sshd): reloaded when a file in
	// ReloadOn changes, never enabled, stopped or restarted by us.
	Foreign bool `json:"foreign,omitempty"`
}

// Part is what one engine wants of one node. A node's desired state is the sum
// of its parts; no two parts name the same path or unit.
type Part struct {
	Engine   string
	Files    []File
	Units    []Unit
	Packages []string // by their name in Debian; other distributions map them
	Images   []string // of containers, by their full names
	Checks   []Check
}
