package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
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
	// Left is set where Current was returned to by itself.
	Left *wayBack `json:"left,omitempty"`
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
	Commit     string       `json:"commit,omitempty"`
	// Held says which checks held before the change, by their keys.
	Held map[string]bool `json:"held,omitempty"`
	// Back is set while the node returns to a generation by itself.
	Back *wayBack `json:"back,omitempty"`
}

// wayBack says which generation a node left by itself, or did not put in force,
// and why.
type wayBack struct {
	From  int      `json:"from"`
	Never bool     `json:"never,omitempty"` // it was not switched to
	Why   string   `json:"why"`
	Hints []string `json:"hints,omitempty"`
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
		Number: current, Previous: st.Previous, At: st.At, Confirmed: current > 0 && n.good() == current,
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

// underWay is the journal of the activation that has begun and not ended, nil
// if there is none. A journal that cannot be read still says that there was one.
func (n *Node) underWay() *journal {
	var j journal
	err := n.readJSON(journalFile, &j)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		j = journal{Step: "unknown"}
		j.Generation, _ = n.linked() // 0 says as much
		j.From = j.Generation
	}
	return &j
}

// pending is the activation that has begun and not ended, nil if there is none.
func (n *Node) pending() *fleet.Activation {
	j := n.underWay()
	if j == nil {
		return nil
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
