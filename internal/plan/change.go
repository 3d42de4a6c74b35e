package plan

import (
	"bytes"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Op says what happens to a file.
type Op string

// The operations on files.
const (
	OpAdd    Op = "add"
	OpChange Op = "change"
	OpRemove Op = "remove"
)

// FileChange is one managed file that will be other than it is.
type FileChange struct {
	Path  string `json:"path"`
	Op    Op     `json:"op"`
	Drift bool   `json:"drift,omitempty"` // changed by hand since moggy wrote it
	// Before is the digest that the generation in force has; "" for a new file.
	Before fleet.Digest `json:"-"`
	// Diff is unified and without its two header lines: "" where Note says why.
	Diff string `json:"diff,omitempty"`
	Note string `json:"note,omitempty"`
}

// Why a change shows no diff.
const (
	noteSecret = "secret"
	noteBinary = "binary"
	noteUnseen = "its content was not fetched"
)

// diffCache holds the diffs made so far: the same change on a thousand nodes
// is computed once.
type diffCache struct {
	contents map[fleet.Digest]string
	made     map[[2]fleet.Digest]string
}

// between is the difference that leads from old to f; false where nobody knows
// old's content.
func (c diffCache) between(old fleet.Digest, f fleet.File) (string, bool) {
	key := [2]fleet.Digest{old, f.Digest}
	if d, ok := c.made[key]; ok {
		return d, true
	}
	before, ok := c.contents[old]
	if !ok {
		return "", false
	}
	c.made[key] = unified(before, string(f.Content))
	return c.made[key], true
}

// unified is the difference without the header lines that name the files.
func unified(before, after string) string {
	d := udiff.Unified("a", "b", before, after)
	for range 2 {
		if _, rest, ok := strings.Cut(d, "\n"); ok {
			d = rest
		}
	}
	return d
}

// fileChanges compares the generation seen on a node with what is wanted.
func fileChanges(seen fleet.Manifest, want []fleet.File, o Observation, diffs diffCache) []FileChange {
	var out []FileChange
	before := make(map[string]fleet.ManifestFile, len(seen.Files))
	for _, f := range seen.Files {
		before[f.Path] = f
	}
	drifted := make(map[string]fleet.Drift, len(o.Seen.Drift))
	for _, d := range o.Seen.Drift {
		drifted[d.Path] = d
	}
	for _, f := range want {
		old, had := before[f.Path]
		delete(before, f.Path)
		drift, byHand := drifted[f.Path]
		if had && old.Digest == f.Digest && old.Mode == f.Mode && !byHand {
			continue
		}
		c := FileChange{Path: f.Path, Op: OpChange, Drift: byHand, Before: old.Digest}
		switch {
		case !had:
			c.Op = OpAdd
		case byHand:
			c.restore(drift, f)
		default:
			c.describe(f, diffs)
		}
		out = append(out, c)
	}
	for path := range before {
		_, byHand := drifted[path]
		out = append(out, FileChange{Path: path, Op: OpRemove, Drift: byHand})
	}
	slices.SortFunc(out, func(a, b FileChange) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// describe fills in the difference from the generation before, or why there
// is none to show.
func (c *FileChange) describe(f fleet.File, diffs diffCache) {
	switch {
	case f.Secret:
		c.Note = noteSecret
	case !text(f.Content):
		c.Note = noteBinary
	default:
		var known bool
		if c.Diff, known = diffs.between(c.Before, f); !known {
			c.Note = noteUnseen
		}
	}
}

// restore fills in the difference from what somebody made of the file.
func (c *FileChange) restore(d fleet.Drift, f fleet.File) {
	switch {
	case d.Kind == fleet.DriftMissing:
		c.Op = OpAdd
	case d.Kind == fleet.DriftMode:
		c.Note = "mode"
	case f.Secret:
		c.Note = noteSecret
	case d.Content == "" || !text(f.Content):
		c.Note = noteBinary
	default:
		c.Diff = unified(d.Content, string(f.Content))
	}
}

// text guesses as git does (buffer_is_binary): no NUL among the first bytes.
func text(b []byte) bool {
	const looked = 8000
	return b != nil && !bytes.Contains(b[:min(len(b), looked)], []byte{0})
}

// driftChanges are the files changed by hand, as an apply would restore them.
func driftChanges(drift []fleet.Drift, want []fleet.File) []FileChange {
	files := make(map[string]fleet.File, len(want))
	for _, f := range want {
		files[f.Path] = f
	}
	var out []FileChange
	for _, d := range drift {
		c := FileChange{Path: d.Path, Op: OpChange, Drift: true}
		f, listed := files[d.Path]
		c.restore(d, f)
		if !listed { // a link that enables a unit
			c.Note = ""
		}
		out = append(out, c)
	}
	return out
}

// unitChanges are what putting the generation in force does to units.
func unitChanges(seen, want []fleet.Unit, files []FileChange) []UnitChange {
	changed := func(paths []string) bool {
		return slices.ContainsFunc(files, func(c FileChange) bool { return slices.Contains(paths, c.Path) })
	}
	var out []UnitChange
	for _, u := range want {
		had := slices.ContainsFunc(seen, func(s fleet.Unit) bool { return s.Name == u.Name })
		switch {
		case u.Foreign && changed(u.ReloadOn):
			out = append(out, UnitChange{u.Name, UnitReload})
		case u.Foreign:
		case !had:
			out = append(out, UnitChange{u.Name, UnitStart})
		case changed(append([]string{unitFile(u.Name)}, u.RestartOn...)):
			out = append(out, UnitChange{u.Name, UnitRestart})
		case changed(u.ReloadOn):
			out = append(out, UnitChange{u.Name, UnitReload})
		}
	}
	for _, s := range seen {
		if !s.Foreign && !slices.ContainsFunc(want, func(u fleet.Unit) bool { return u.Name == s.Name }) {
			out = append(out, UnitChange{s.Name, UnitStop})
		}
	}
	return out
}

func unitFile(name string) string { return "/etc/systemd/system/" + name }

// brokenUnits are ours that do not run although their generation is in force.
func brokenUnits(states []fleet.UnitState, want []fleet.Unit) []UnitChange {
	var out []UnitChange
	for _, u := range want {
		i := slices.IndexFunc(states, func(s fleet.UnitState) bool { return s.Name == u.Name })
		if !u.Foreign && i >= 0 && states[i].Active != "active" && states[i].Active != "reloading" {
			out = append(out, UnitChange{u.Name, UnitStart})
		}
	}
	return out
}

// sameContent says whether two manifests hold the same files, units, packages,
// images and checks, whatever their numbers.
func sameContent(a, b fleet.Manifest) bool {
	return slices.Equal(a.Files, b.Files) && slices.Equal(a.Packages, b.Packages) && slices.Equal(a.Images, b.Images) &&
		slices.EqualFunc(a.Units, b.Units, func(x, y fleet.Unit) bool {
			return x.Name == y.Name && x.Foreign == y.Foreign &&
				slices.Equal(x.RestartOn, y.RestartOn) && slices.Equal(x.ReloadOn, y.ReloadOn)
		}) &&
		slices.EqualFunc(a.Checks, b.Checks, func(x, y fleet.Check) bool {
			return x.Name == y.Name && x.Kind == y.Kind && x.Address == y.Address && x.Unit == y.Unit && x.Seconds == y.Seconds &&
				slices.Equal(x.Command, y.Command)
		})
}

// Unseen says whether the change has no diff only because nobody fetched what
// the node holds.
func (c FileChange) Unseen() bool { return c.Note == noteUnseen }
