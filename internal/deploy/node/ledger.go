package node

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// ledger is ledger.json: what of ours is outside our directory, and what the
// units were last started with. It is written before the machine is changed as
// it says, so that nothing of ours is ever forgotten.
type ledger struct {
	Version int `json:"version"`
	// Placed has for each path what we put there, or are about to.
	Placed map[string]placement `json:"placed"`
	// Dirs are directories we made, outermost first.
	Dirs []string `json:"dirs,omitempty"`
	// Loaded is the print of the unit files that systemd has read.
	Loaded fleet.Digest `json:"loaded,omitempty"`
	// Units has the prints of what each unit runs with.
	Units map[string]unitPrint `json:"units,omitempty"`
}

// unitPrint stands for the files a unit runs with: two equal prints mean that
// there is nothing to restart, or reload, it for.
type unitPrint struct {
	Restart fleet.Digest `json:"restart"`
	Reload  fleet.Digest `json:"reload"`
	Foreign bool         `json:"foreign,omitempty"`
}

// ledger reads ledger.json. When it is lost or damaged, what is placed is found
// again from the generations on disk, and every unit counts as started with
// something unknown.
func (n *Node) ledger() *ledger {
	l := &ledger{}
	if err := n.readJSON(ledgerFile, l); err == nil && l.Placed != nil {
		if l.Units == nil {
			l.Units = make(map[string]unitPrint)
		}
		return l
	}
	l = &ledger{Version: formatVersion, Placed: make(map[string]placement), Units: make(map[string]unitPrint)}
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

func (h *Held) saveLedger(l *ledger) error { return h.writeJSON(ledgerFile, l) }

// expect adds to the ledger all that the placements will put on the machine,
// and says whether that is anything new.
func (n *Node) expect(l *ledger, placed map[string]placement) bool {
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

// spoil makes the ledger forget what the units that depend on a path run with,
// because the path held something else: they must be restarted or reloaded
// once it is right again.
func (l *ledger) spoil(m fleet.Manifest, path string) bool {
	spoilt := false
	if strings.HasPrefix(path, protocol.SystemdDir+"/") && l.Loaded != "" {
		l.Loaded, spoilt = "", true
	}
	for _, u := range m.Units {
		had, ok := l.Units[u.Name]
		if !ok {
			continue
		}
		now := had
		if startsWith(u, path) {
			now.Restart = ""
		}
		if slices.Contains(u.ReloadOn, path) {
			now.Reload = ""
		}
		if now != had {
			l.Units[u.Name], spoilt = now, true
		}
	}
	return spoilt
}

// doubt makes the ledger forget every print that is not the manifest's, and
// says whether there was one.
func (l *ledger) doubt(m fleet.Manifest) bool {
	changed := false
	if l.Loaded != "" && l.Loaded != loadedPrint(m) {
		l.Loaded, changed = "", true
	}
	for name, had := range l.Units {
		now, want := had, unitPrint{}
		if i := slices.IndexFunc(m.Units, func(u fleet.Unit) bool { return u.Name == name }); i >= 0 {
			want = unitPrintOf(m, m.Units[i])
		}
		if had.Restart != want.Restart {
			now.Restart = ""
		}
		if had.Reload != want.Reload {
			now.Reload = ""
		}
		if now != had {
			l.Units[name], changed = now, true
		}
	}
	return changed
}

// keepUnits drops the prints of units that are not in the manifest.
func (l *ledger) keepUnits(m fleet.Manifest) {
	maps.DeleteFunc(l.Units, func(name string, _ unitPrint) bool {
		return !slices.ContainsFunc(m.Units, func(u fleet.Unit) bool { return u.Name == name })
	})
}

// dropDirs removes directories of ours that are empty now, innermost first.
func (h *Held) dropDirs(l *ledger) error {
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
