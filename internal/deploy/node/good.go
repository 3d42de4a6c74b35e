package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moggyfleet/moggy/internal/hint"
)

// Two links say where a node stands. Current is what is in force; good is what
// was confirmed last, and it is what a node goes back to: by itself when
// nobody confirms, and at boot.
//
//	            activate 42                 confirm 42
//	good    41 ─────────────── 41 ────────────────────── 42
//	current 41 ─────────────── 42 ─┬──────────────────── 42
//	                               └─ nobody confirms ── 41

// linked is the generation that the current link names; 0 if there is no link,
// or one that somebody bent to elsewhere, which the next activation replaces.
func (n *Node) linked() (int, error) { return n.named(currentLink) }

func (n *Node) named(link string) (int, error) {
	target, err := os.Readlink(n.disk.Real(link))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, hint.Wrap(errors.New(link+": not a link"), "move it away on the node, then apply again")
	}
	name, ours := strings.CutPrefix(target, filepath.Base(generationsDir)+"/")
	number, err := strconv.Atoi(name)
	if !ours || err != nil || number < 1 {
		return 0, nil //nolint:nilerr // see above
	}
	return number, nil
}

func linkTo(generation int) string {
	return filepath.Base(generationsDir) + "/" + strconv.Itoa(generation)
}

// good is the generation that was confirmed last, 0 if none was. Where the link
// is lost, or an older moggy never made it, it is the one in force if that was
// confirmed, else the highest that was.
func (n *Node) good() int {
	if g, err := n.named(goodLink); err == nil && g > 0 && n.staged(g) {
		return g
	}
	if at, err := n.linked(); err == nil && n.marked(at) {
		return at
	}
	best := 0
	for _, g := range n.generations() {
		if n.marked(g) {
			best = g
		}
	}
	return best
}

// keepGood makes the link to the generation that was confirmed last, where it
// is not there.
func (h *Held) keepGood() error {
	g := h.good()
	if was, err := h.named(goodLink); g == 0 || err != nil || was == g {
		return err
	}
	return h.disk.Symlink(linkTo(g), goodLink)
}

// settleOn makes a generation the one that was confirmed last. The one that was
// so far keeps a mark of it.
func (h *Held) settleOn(generation int, mark string) error {
	was, err := h.named(goodLink)
	if err != nil {
		return err
	}
	if was > 0 && was != generation && h.staged(was) && !h.marked(was) {
		if err := h.disk.Write(confirmedMark(was), []byte(mark)); err != nil {
			return err
		}
	}
	if was != generation {
		if err := h.disk.Symlink(linkTo(generation), goodLink); err != nil {
			return err
		}
	}
	if h.marked(generation) {
		return nil
	}
	return h.disk.Write(confirmedMark(generation), []byte(mark))
}

func (n *Node) staged(generation int) bool {
	_, err := os.Lstat(n.disk.Real(generationDir(generation) + "/manifest.json"))
	return err == nil
}

func confirmedMark(generation int) string { return generationDir(generation) + "/confirmed" }

func (n *Node) marked(generation int) bool {
	if generation == 0 {
		return false
	}
	_, err := os.Lstat(n.disk.Real(confirmedMark(generation)))
	return err == nil
}

// confirmed says whether a generation was ever confirmed.
func (n *Node) confirmed(generation int) bool {
	if n.marked(generation) {
		return true
	}
	g, err := n.named(goodLink)
	return err == nil && generation > 0 && g == generation
}
