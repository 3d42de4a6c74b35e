package node

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/ledger"
	"github.com/moggyfleet/moggy/internal/deploy/node/store"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// maxShown bounds, in bytes, the content of one file that an answer carries.
const maxShown = 1 << 20

// drift compares what a generation has outside our directory with what the
// machine shows there, sorted by path: the managed files, and the links that
// enable units.
func (n *Node) drift(v *store.Cache, m fleet.Manifest) []fleet.Drift {
	placed, err := n.placements(m)
	if err != nil {
		placed = make(map[string]ledger.Placement) // a unit file is gone: every file is looked at by itself
		for _, f := range m.Files {
			placed[f.Path] = ledger.Placement{Link: n.disk.Real(currentLink + "/root" + f.Path)}
		}
	}
	var out []fleet.Drift
	for _, path := range slices.Sorted(maps.Keys(placed)) {
		f, managed := m.File(path)
		kind := n.driftOf(v, m.Generation, f, path, placed[path])
		if kind == "" {
			continue
		}
		d := fleet.Drift{Path: path, Kind: kind}
		if kind == fleet.DriftChanged && managed && !f.Secret {
			d.Content, _ = n.shown(path)
		}
		out = append(out, d)
	}
	return out
}

// driftOf says how one path differs, "" if it does not. Of a link that enables
// a unit, f is zero.
func (n *Node) driftOf(v *store.Cache, generation int, f fleet.ManifestFile, at string, p ledger.Placement) fleet.DriftKind {
	switch n.look(at, p) {
	case absent:
		return fleet.DriftMissing
	case otherOurs:
		if p.Copy != "" {
			return fleet.DriftMode
		}
		return fleet.DriftChanged
	case foreign, obstacle:
		return fleet.DriftChanged
	case asPlaced:
	}
	if p.Copy != "" || f.Path == "" {
		return "" // what the machine shows is right; the tree is our own affair
	}
	path := treePath(generation, f.Path)
	got, err := v.Digest(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fleet.DriftMissing
	case err != nil || got != f.Digest:
		return fleet.DriftChanged
	}
	if !n.disk.RightMode(path, f.Mode) {
		return fleet.DriftMode
	}
	return ""
}

// shown is what a path shows now, where it is text and not too long. A link
// that is not ours is not followed: where it leads may be a secret.
func (n *Node) shown(path string) (content string, ok bool) {
	target, err := os.Readlink(n.disk.Real(path))
	if err == nil && !strings.HasPrefix(target, n.disk.Real(currentLink)+"/") {
		return "-> " + target + "\n", utf8.ValidString(target)
	}
	// A pipe put there by hand must not make us wait for a writer.
	f, err := os.OpenFile(n.disk.Real(path), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxShown {
		return "", false
	}
	b, err := io.ReadAll(io.LimitReader(f, maxShown))
	if err != nil || !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return "", false
	}
	return string(b), true
}
