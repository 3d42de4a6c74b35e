package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// formatVersion is the format of the JSON files a node keeps for itself.
const formatVersion = 1

// state is state.json: what cannot be read off the current link. The link is
// the truth about which generation is in force, the mark in a generation's
// directory about whether it was confirmed; where state.json lags behind the
// link, or is lost, the rest is worked out (where).
type state struct {
	Version  int            `json:"version"`
	Fleet    fleet.Name     `json:"fleet"`
	Node     fleet.NodeName `json:"node"`
	Current  int            `json:"current"`
	Previous int            `json:"previous,omitempty"`
	At       time.Time      `json:"at"`
}

// journal is activating.json: an activation under way. It is there from the
// first change to the last.
type journal struct {
	Version    int          `json:"version"`
	Generation int          `json:"generation"`
	Digest     fleet.Digest `json:"digest,omitempty"` // of its manifest
	From       int          `json:"from"`
	Step       Step         `json:"step"`
	By         string       `json:"by,omitempty"`
	Since      time.Time    `json:"since"`
}

func (n *Node) readJSON(path string, v any) error {
	b, err := os.ReadFile(n.disk.Real(path))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (n *Node) writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return n.disk.Write(path, append(b, '\n'))
}

// linked is the generation that the current link names; 0 if there is no link,
// or one that somebody bent to elsewhere, which the next activation replaces.
func (n *Node) linked() (int, error) {
	target, err := os.Readlink(n.disk.Real(currentLink))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, hint.Wrap(fmt.Errorf("%s: not a link: %w", currentLink, err), "move it away on the node, then apply again")
	}
	name, ours := strings.CutPrefix(target, filepath.Base(generationsDir)+"/")
	number, err := strconv.Atoi(name)
	if !ours || err != nil || number < 1 {
		return 0, nil //nolint:nilerr // see above
	}
	return number, nil
}

// where says which generation is in force, and which going back returns to.
func (n *Node) where() (fleet.GenerationState, error) {
	var at fleet.GenerationState
	current, err := n.linked()
	if err != nil {
		return at, err
	}
	var st state
	if err := n.readJSON(stateFile, &st); err != nil || st.Current != current {
		st = n.moved(st, current)
	}
	return fleet.GenerationState{
		Number: current, Previous: st.Previous, At: st.At, Confirmed: n.confirmed(current),
	}, nil
}

// moved is the state after current was switched to. Going forward, what was in
// force before is what to go back to, unless it was never confirmed itself;
// then, and when going back, it is the next lower that was.
func (n *Node) moved(was state, current int) state {
	now := was
	now.Version, now.Current, now.Previous = formatVersion, current, 0
	if st, err := os.Lstat(n.disk.Real(currentLink)); err == nil {
		now.At = st.ModTime()
	}
	switch {
	case current > was.Current && was.Current > 0 && n.confirmed(was.Current):
		now.Previous = was.Current
	case current > was.Current && was.Previous > 0 && n.confirmed(was.Previous):
		now.Previous = was.Previous
	default:
		for _, g := range n.generations() {
			if g < current && n.confirmed(g) {
				now.Previous = max(now.Previous, g)
			}
		}
	}
	return now
}

// generations are those on disk, ascending.
func (n *Node) generations() []int {
	entries, err := os.ReadDir(n.disk.Real(generationsDir))
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if g, err := strconv.Atoi(e.Name()); err == nil && g > 0 {
			out = append(out, g)
		}
	}
	slices.Sort(out)
	return out
}

func confirmedMark(generation int) string { return generationDir(generation) + "/confirmed" }

func (n *Node) confirmed(generation int) bool {
	_, err := os.Lstat(n.disk.Real(confirmedMark(generation)))
	return err == nil
}

// manifest reads a generation's manifest; generation 0 is empty.
func (n *Node) manifest(generation int) (fleet.Manifest, error) {
	if generation == 0 {
		return empty(), nil
	}
	var m fleet.Manifest
	err := n.readJSON(generationDir(generation)+"/manifest.json", &m)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, hint.New(fmt.Sprintf("generation %d is not on this node", generation),
			"moggy apply stages it again")
	case err != nil:
		return m, fmt.Errorf("generation %d: %w", generation, err)
	case m.Generation != generation:
		return m, fmt.Errorf("generation %d: its manifest is of generation %d", generation, m.Generation)
	}
	return m, nil
}

// identity is whose machine this is; empty before the first stage.
func (n *Node) identity() (fleet.Name, fleet.NodeName) {
	var st state
	if n.readJSON(stateFile, &st) == nil && st.Node != "" {
		return st.Fleet, st.Node
	}
	for _, g := range slices.Backward(n.generations()) {
		if m, err := n.manifest(g); err == nil {
			return m.Fleet, m.Node
		}
	}
	return "", ""
}

// pending is the activation that has begun and not ended, nil if there is none.
// A journal that cannot be read still says that there was one.
func (n *Node) pending() *fleet.Activation {
	var j journal
	err := n.readJSON(journalFile, &j)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		j.Generation, _ = n.linked() // 0 says as much
		j.Step = "unknown"
	}
	return &fleet.Activation{
		Generation: j.Generation, From: j.From, Step: string(j.Step), By: j.By, Since: j.Since, Running: n.held(),
	}
}

// recover removes what a killed command left in the making. An activation that
// was killed stays as it is: every step can be taken again, so activating that
// or any other generation finishes it.
func (h *Held) recover() error {
	for _, dir := range []string{Dir, storeDir, keysDir} {
		if err := h.disk.Sweep(dir); err != nil {
			return err
		}
	}
	for _, dir := range []string{generationsDir, originalDir, replacedDir} {
		if err := h.disk.SweepTree(dir); err != nil {
			return err
		}
	}
	return nil
}
