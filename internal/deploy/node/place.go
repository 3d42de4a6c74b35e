package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/deploy/node/ledger"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/node/systemd"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// placements are all that a generation has outside our directory, by path.
func (n *Node) placements(m fleet.Manifest) (map[string]ledger.Placement, error) {
	out := make(map[string]ledger.Placement, len(m.Files)+len(m.Units))
	apart := n.apart()
	for _, f := range m.Files {
		if apart && strings.HasPrefix(f.Path, protocol.SystemdDir+"/") {
			out[f.Path] = ledger.Placement{Copy: f.Digest, Mode: f.Mode}
			continue
		}
		out[f.Path] = ledger.Placement{Link: n.disk.Real(currentLink + "/root" + f.Path)}
	}
	for _, u := range m.Units {
		if u.Foreign {
			continue
		}
		f, ok := m.File(protocol.UnitFile(u.Name))
		if !ok {
			return nil, fmt.Errorf("unit %s: no unit file in its generation", u.Name)
		}
		content, err := os.ReadFile(n.disk.Real(treePath(m.Generation, f.Path)))
		if err != nil {
			return nil, err
		}
		links, err := systemd.InstallLinks(u.Name, content)
		if err != nil {
			return nil, err
		}
		for path, target := range links {
			out[path] = ledger.Placement{Link: n.disk.Real(target)}
		}
	}
	return out, nil
}

// found is what a path holds, compared with what we want there.
type found int

const (
	asPlaced  found = iota
	absent          // nothing
	otherOurs       // something else of ours: replaced without a thought
	foreign         // a file or link of somebody else: kept before it is replaced
	obstacle        // a directory, a device: not ours to move
)

// look compares what is at path with the placement.
func (n *Node) look(path string, p ledger.Placement) found {
	st, err := os.Lstat(n.disk.Real(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return absent
	case err != nil:
		return obstacle
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(n.disk.Real(path))
		switch {
		case err != nil:
			return obstacle
		case p.Link != "" && target == p.Link:
			return asPlaced
		case strings.HasPrefix(target, n.disk.Real(currentLink)+"/"):
			return otherOurs
		}
		return foreign
	case !st.Mode().IsRegular():
		return obstacle
	case p.Copy == "":
		return foreign
	}
	content, err := os.ReadFile(n.disk.Real(path))
	switch {
	case err != nil:
		return obstacle
	case fleet.DigestOf(content) != p.Copy:
		return foreign
	case !n.disk.RightMode(path, p.Mode):
		return otherOurs
	}
	return asPlaced
}

// place puts one path right. What somebody else had there is kept first: in
// original/ if the path was not managed until now, else in replaced/. It says
// what it did, "" if nothing.
func (a *activation) place(path string, p ledger.Placement) (said string, err error) {
	is := a.look(path, p)
	_, managed := a.fromPlaced[path]
	if is == foreign && (managed || p.Copy != "") && a.ourCopy(path) {
		is = otherOurs
	}
	switch is {
	case asPlaced:
		return "", a.disk.Discard(disk.TempName(path))
	case obstacle:
		return "", hint.New(fmt.Sprintf("%s: something is there that is no file", path), "move it away on the node, then apply again")
	case foreign:
		if said, err = a.keep(path, managed); err != nil {
			return "", err
		}
	case absent:
		for _, dir := range a.disk.MissingDirs(path) {
			if err := a.disk.Mkdir(dir, 0o755); err != nil {
				return "", err
			}
		}
		said = "placed " + path
	case otherOurs:
		said = "replaced " + path
	}
	if p.Link != "" {
		return said, a.disk.Symlink(p.Link, path)
	}
	tmp := disk.TempName(path)
	if err := a.disk.Discard(tmp); err != nil {
		return "", err
	}
	if err := a.disk.Copy(treePath(a.target.Generation, path), tmp); err != nil {
		return "", err
	}
	return said, a.disk.Rename(tmp, path)
}

// ourCopy says whether a path holds a copy that one of our generations put
// there: nothing is lost with it.
func (a *activation) ourCopy(path string) bool {
	st, err := os.Lstat(a.disk.Real(path))
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	content, err := os.ReadFile(a.disk.Real(path))
	if err != nil {
		return false
	}
	digest := fleet.DigestOf(content)
	for _, g := range a.generations() {
		if m, err := a.manifest(g); err == nil {
			if f, ok := m.File(path); ok && f.Digest == digest {
				return true
			}
		}
	}
	return false
}

// keep gives what a path holds a second place, where it stays.
func (a *activation) keep(path string, managed bool) (said string, err error) {
	to := originalDir + path
	if _, err := os.Lstat(a.disk.Real(to)); err == nil && !managed {
		if a.disk.Same(path, to) {
			return "took over " + path, nil // an earlier attempt kept it
		}
		managed = true
	}
	if managed {
		to = a.replaced(path)
	}
	if err := a.disk.Keep(path, to); err != nil {
		return "", fmt.Errorf("%s: keeping what is there: %w", path, err)
	}
	if managed {
		return fmt.Sprintf("restored %s; what was there is %s", path, to), nil
	}
	return fmt.Sprintf("took over %s; what was there is %s", path, to), nil
}

// unplace takes away what we put at a path that is managed no more, and gives
// back what was there before us. What somebody put there since stays. It says
// what it did, "" if nothing.
func (a *activation) unplace(path string, p ledger.Placement) (said string, err error) {
	if err := a.disk.Discard(disk.TempName(path)); err != nil {
		return "", err
	}
	original := originalDir + path
	_, err = os.Lstat(a.disk.Real(original))
	had := err == nil
	is := a.look(path, p)
	if is == foreign && p.Copy != "" && a.ourCopy(path) {
		is = otherOurs
	}
	switch {
	case is == foreign || is == obstacle:
		return fmt.Sprintf("left %s: it is not ours any more", path), nil
	case had:
		return "gave back " + path, a.giveBack(original, path)
	case is == absent:
		return "", nil
	}
	return "removed " + path, a.disk.Remove(path)
}

// giveBack moves what a path held before us to where it was.
func (a *activation) giveBack(original, path string) error {
	for _, dir := range a.disk.MissingDirs(path) {
		if err := a.disk.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if a.disk.SameFileSystem(filepath.Dir(original), filepath.Dir(path)) {
		return a.disk.Rename(original, path)
	}
	tmp := disk.TempName(path)
	if err := a.disk.Discard(tmp); err != nil {
		return err
	}
	if err := a.disk.Duplicate(original, tmp); err != nil {
		return errors.Join(err, a.disk.Discard(tmp))
	}
	if err := a.disk.Rename(tmp, path); err != nil {
		return err
	}
	return a.disk.Remove(original)
}
