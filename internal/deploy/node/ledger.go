package node

import (
	"os"
	"slices"

	"github.com/moggyfleet/moggy/internal/deploy/node/ledger"
)

// book reads ledger.json. When it is lost or damaged, what is placed is found
// again from the generations on disk, and every unit counts as started with
// something unknown.
func (n *Node) book() *ledger.Ledger {
	l := &ledger.Ledger{}
	if err := n.readJSON(ledgerFile, l); err == nil && l.Placed != nil {
		if l.Units == nil {
			l.Units = make(map[string]ledger.Print)
		}
		return l
	}
	l = &ledger.Ledger{Version: formatVersion, Placed: make(map[string]ledger.Placement), Units: make(map[string]ledger.Print)}
	for _, g := range n.generations() {
		m, err := n.manifest(g)
		if err != nil {
			continue
		}
		placed, err := n.placements(m)
		if err != nil {
			continue
		}
		for path, p := range placed {
			if n.look(path, p) == asPlaced {
				l.Placed[path] = p
			}
		}
	}
	return l
}

func (h *Held) saveLedger(l *ledger.Ledger) error { return h.writeJSON(ledgerFile, l) }

// expect adds to the ledger all that the placements will put on the machine,
// and says whether that is anything new.
func (n *Node) expect(l *ledger.Ledger, placed map[string]ledger.Placement) bool {
	grown := false
	for path, p := range placed {
		if had, ok := l.Placed[path]; !ok || had != p {
			l.Placed[path], grown = p, true
		}
		for _, dir := range n.disk.MissingDirs(path) {
			if !slices.Contains(l.Dirs, dir) {
				l.Dirs, grown = append(l.Dirs, dir), true
			}
		}
	}
	slices.Sort(l.Dirs)
	return grown
}

// dropDirs removes directories of ours that are empty now, innermost first.
func (h *Held) dropDirs(l *ledger.Ledger) error {
	var left []string
	for _, dir := range slices.Backward(l.Dirs) {
		entries, err := os.ReadDir(h.disk.Real(dir))
		switch {
		case err == nil && len(entries) == 0:
			if err := h.disk.Remove(dir); err != nil {
				return err
			}
		case err == nil:
			left = append(left, dir)
		}
	}
	slices.Reverse(left)
	l.Dirs = left
	return nil
}
