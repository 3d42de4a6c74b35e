// Package ledger is the book of what a node has outside its own directory, and
// of what its units were last started with. It reads and writes no file.
package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Ledger is ledger.json: what of ours is outside our directory, and what the
// units were last started with. It is written before the machine is changed as
// it says, so that nothing of ours is ever forgotten.
type Ledger struct {
	Version int `json:"version"`
	// Placed has for each path what we put there, or are about to.
	Placed map[string]Placement `json:"placed"`
	// Dirs are directories we made, outermost first.
	Dirs []string `json:"dirs,omitempty"`
	// Loaded is the print of the unit files that systemd has read.
	Loaded fleet.Digest `json:"loaded,omitempty"`
	// Units has the prints of what each unit runs with.
	Units map[string]Print `json:"units,omitempty"`
}

// Print stands for the files a unit runs with: two equal prints mean that
// there is nothing to restart, or reload, it for.
type Print struct {
	Restart fleet.Digest `json:"restart"`
	Reload  fleet.Digest `json:"reload"`
	Foreign bool         `json:"foreign,omitempty"`
}

// Placement is what we put at a path outside our directory.
type Placement struct {
	Link string       `json:"link,omitempty"` // the target, as readlink(2) gives it
	Copy fleet.Digest `json:"copy,omitempty"` // or the content
	Mode uint32       `json:"mode,omitempty"` // of a copy
}

// Spoil makes the ledger forget what the units that depend on a path run with,
// because the path held something else: they must be restarted or reloaded
// once it is right again.
func (l *Ledger) Spoil(m fleet.Manifest, path string) bool {
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

// Doubt makes the ledger forget every print that is not the manifest's, and
// says whether there was one.
func (l *Ledger) Doubt(m fleet.Manifest) bool {
	changed := false
	if l.Loaded != "" && l.Loaded != LoadedPrint(m) {
		l.Loaded, changed = "", true
	}
	for name, had := range l.Units {
		now, want := had, Print{}
		if i := slices.IndexFunc(m.Units, func(u fleet.Unit) bool { return u.Name == name }); i >= 0 {
			want = PrintOf(m, m.Units[i])
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

// KeepUnits drops the prints of units that are not in the manifest.
func (l *Ledger) KeepUnits(m fleet.Manifest) {
	maps.DeleteFunc(l.Units, func(name string, _ Print) bool {
		return !slices.ContainsFunc(m.Units, func(u fleet.Unit) bool { return u.Name == name })
	})
}

// startsWith says whether the unit must be restarted when the path changes:
// its unit file, a drop-in of it, and what RestartOn names.
func startsWith(u fleet.Unit, path string) bool {
	if slices.Contains(u.RestartOn, path) {
		return true
	}
	file := protocol.UnitFile(u.Name)
	return !u.Foreign && (path == file || strings.HasPrefix(path, file+".d/") ||
		strings.HasPrefix(path, protocol.SystemdDir+"/"+u.Name+".d/"))
}

// printOf stands for the manifest's files that fit.
func printOf(m fleet.Manifest, fits func(path string) bool) fleet.Digest {
	h := sha256.New()
	for _, f := range m.Files {
		if fits(f.Path) {
			fmt.Fprintf(h, "%s %o %s\n", f.Path, f.Mode, f.Digest)
		}
	}
	return fleet.Digest(hex.EncodeToString(h.Sum(nil)))
}

// PrintOf is the print of a unit with that manifest's files.
func PrintOf(m fleet.Manifest, u fleet.Unit) Print {
	return Print{
		Restart: printOf(m, func(path string) bool { return startsWith(u, path) }),
		Reload:  printOf(m, func(path string) bool { return slices.Contains(u.ReloadOn, path) }),
		Foreign: u.Foreign,
	}
}

// LoadedPrint stands for the unit files that systemd reads.
func LoadedPrint(m fleet.Manifest) fleet.Digest {
	return printOf(m, func(path string) bool { return strings.HasPrefix(path, protocol.SystemdDir+"/") })
}

// Differs says whether a change from one generation to another is to a unit that
// the other has.
func Differs(from, to fleet.Manifest, unit string) bool {
	is := func(u fleet.Unit) bool { return u.Name == unit }
	i, j := slices.IndexFunc(from.Units, is), slices.IndexFunc(to.Units, is)
	return j >= 0 && (i < 0 || PrintOf(from, from.Units[i]) != PrintOf(to, to.Units[j]))
}
