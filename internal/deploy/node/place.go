package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// placement is what we put at a path outside our directory.
type placement struct {
	Link string       `json:"link,omitempty"` // the target, as readlink(2) gives it
	Copy fleet.Digest `json:"copy,omitempty"` // or the content
	Mode uint32       `json:"mode,omitempty"` // of a copy
}

// placements are all that a generation has outside our directory, by path.
func (n *Node) placements(m fleet.Manifest) (map[string]placement, error) {
	out := make(map[string]placement, len(m.Files)+len(m.Units))
	apart := n.apart()
	for _, f := range m.Files {
		if apart && strings.HasPrefix(f.Path, protocol.SystemdDir+"/") {
			out[f.Path] = placement{Copy: f.Digest, Mode: f.Mode}
			continue
		}
		out[f.Path] = placement{Link: n.disk.real(currentLink + "/root" + f.Path)}
	}
	for _, u := range m.Units {
		if u.Foreign {
			continue
		}
		f, ok := m.File(protocol.UnitFile(u.Name))
		if !ok {
			return nil, fmt.Errorf("unit %s: no unit file in its generation", u.Name)
		}
		content, err := os.ReadFile(n.disk.real(treePath(m.Generation, f.Path)))
		if err != nil {
			return nil, err
		}
		links, err := installLinks(u.Name, content)
		if err != nil {
			return nil, err
		}
		for path, target := range links {
			out[path] = placement{Link: n.disk.real(target)}
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
func (n *Node) look(path string, p placement) found {
	st, err := os.Lstat(n.disk.real(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return absent
	case err != nil:
		return obstacle
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(n.disk.real(path))
		switch {
		case err != nil:
			return obstacle
		case p.Link != "" && target == p.Link:
			return asPlaced
		case strings.HasPrefix(target, n.disk.real(currentLink)+"/"):
			return otherOurs
		}
		return foreign
	case !st.Mode().IsRegular():
		return obstacle
	case p.Copy == "":
		return foreign
	}
	content, err := os.ReadFile(n.disk.real(path))
	switch uid, gid := owner(st); {
	case err != nil:
		return obstacle
	case fleet.DigestOf(content) != p.Copy:
		return foreign
	case st.Mode().Perm() != fs.FileMode(p.Mode) || uid != os.Geteuid() || gid != os.Getegid():
		return otherOurs
	}
	return asPlaced
}

// place puts one path right. What somebody else had there is kept first: in
// original/ if the path was not managed until now, else in replaced/. It says
// what it did, "" if nothing.
func (a *activation) place(path string, p placement) (said string, err error) {
	is := a.look(path, p)
	_, managed := a.fromPlaced[path]
	if is == foreign && (managed || p.Copy != "") && a.ourCopy(path) {
		is = otherOurs
	}
	switch is {
	case asPlaced:
		return "", a.disk.discard(tempName(path))
	case obstacle:
		return "", hint.New(fmt.Sprintf("%s: something is there that is no file", path), "move it away on the node, then apply again")
	case foreign:
		if said, err = a.keep(path, managed); err != nil {
			return "", err
		}
	case absent:
		for _, dir := range a.disk.missingDirs(path) {
			if err := a.disk.mkdir(dir, 0o755); err != nil {
				return "", err
			}
		}
		said = "placed " + path
	case otherOurs:
		said = "replaced " + path
	}
	if p.Link != "" {
		return said, a.disk.symlink(p.Link, path)
	}
	tmp := tempName(path)
	if err := a.disk.discard(tmp); err != nil {
		return "", err
	}
	if err := a.disk.copy(treePath(a.target.Generation, path), tmp); err != nil {
		return "", err
	}
	return said, a.disk.rename(tmp, path)
}

// ourCopy says whether a path holds a copy that one of our generations put
// there: nothing is lost with it.
func (a *activation) ourCopy(path string) bool {
	st, err := os.Lstat(a.disk.real(path))
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	content, err := os.ReadFile(a.disk.real(path))
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
	if _, err := os.Lstat(a.disk.real(to)); err == nil && !managed {
		if a.disk.same(path, to) {
			return "took over " + path, nil // an earlier attempt kept it
		}
		managed = true
	}
	if managed {
		to = a.replaced(path)
	}
	if err := a.disk.keep(path, to); err != nil {
		return "", fmt.Errorf("%s: keeping what is there: %w", path, err)
	}
	if managed {
		return fmt.Sprintf("restored %s; what was there is %s", path, to), nil
	}
	return fmt.Sprintf("took over %s; what was there is %s", path, to), nil
}

// same says whether two paths hold the same thing.
func (d disk) same(a, b string) bool {
	sa, err := os.Lstat(d.real(a))
	if err != nil {
		return false
	}
	sb, err := os.Lstat(d.real(b))
	if err != nil || sa.Mode() != sb.Mode() {
		return false
	}
	if os.SameFile(sa, sb) {
		return true
	}
	if sa.Mode()&fs.ModeSymlink != 0 {
		ta, erra := os.Readlink(d.real(a))
		tb, errb := os.Readlink(d.real(b))
		return erra == nil && errb == nil && ta == tb
	}
	ca, erra := os.ReadFile(d.real(a))
	cb, errb := os.ReadFile(d.real(b))
	return erra == nil && errb == nil && string(ca) == string(cb)
}

// keep puts what is at from, a file or a link, at to as well, in directories
// that only root may enter.
func (d disk) keep(from, to string) error {
	for _, dir := range d.missingDirs(to) {
		if err := d.mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	st, err := os.Lstat(d.real(from))
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(d.real(from))
		if err != nil {
			return err
		}
		return d.symlink(target, to)
	}
	tmp := tempName(to)
	if err := d.discard(tmp); err != nil {
		return err
	}
	if err := d.link(from, tmp); err != nil {
		return errors.Join(err, d.discard(tmp))
	}
	return d.rename(tmp, to)
}

// unplace takes away what we put at a path that is managed no more, and gives
// back what was there before us. What somebody put there since stays. It says
// what it did, "" if nothing.
func (a *activation) unplace(path string, p placement) (said string, err error) {
	if err := a.disk.discard(tempName(path)); err != nil {
		return "", err
	}
	original := originalDir + path
	_, err = os.Lstat(a.disk.real(original))
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
	return "removed " + path, a.disk.remove(path)
}

// giveBack moves what a path held before us to where it was.
func (a *activation) giveBack(original, path string) error {
	for _, dir := range a.disk.missingDirs(path) {
		if err := a.disk.mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if a.disk.sameFileSystem(filepath.Dir(original), filepath.Dir(path)) {
		return a.disk.rename(original, path)
	}
	tmp := tempName(path)
	if err := a.disk.discard(tmp); err != nil {
		return err
	}
	if err := a.disk.keepAt(original, tmp); err != nil {
		return errors.Join(err, a.disk.discard(tmp))
	}
	if err := a.disk.rename(tmp, path); err != nil {
		return err
	}
	return a.disk.remove(original)
}

// keepAt copies a file or link.
func (d disk) keepAt(from, to string) error {
	if target, err := os.Readlink(d.real(from)); err == nil {
		return d.symlink(target, to)
	}
	return d.copy(from, to)
}
