package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// SavedVersion is the format of Saved this release writes.
const SavedVersion = 1

// MaxSaved bounds a saved plan, in bytes: some 10,000 nodes.
const MaxSaved = 4 << 20

// Saved is what was decided, and on which grounds, as `moggy plan --out` keeps
// it: a fingerprint. Nothing in it is ever carried out. An apply plans anew and
// compares; so who alters the file can have an apply refused and nothing else.
// It has digests and numbers, no content.
type Saved struct {
	Version int        `json:"version"`
	Fleet   fleet.Name `json:"fleet"`
	// File and Lock are digests of both texts; Binaries of our own builds, by
	// architecture.
	File     fleet.Digest            `json:"file"`
	Lock     fleet.Digest            `json:"lock"`
	Binaries map[string]fleet.Digest `json:"binaries,omitempty"`
	Only     []fleet.NodeName        `json:"only,omitempty"`
	Nodes    []SavedNode             `json:"nodes"`
}

// SavedNode is what was seen of a node and decided about it.
type SavedNode struct {
	Node       fleet.NodeName `json:"node"`
	Action     Action         `json:"action"`
	Generation int            `json:"generation,omitempty"` // in force
	Confirmed  bool           `json:"confirmed,omitempty"`
	Holds      fleet.Digest   `json:"holds,omitempty"` // of the manifest in force
	Drift      fleet.Digest   `json:"drift,omitempty"` // of all that was changed by hand
	To         int            `json:"to,omitempty"`
	Want       fleet.Digest   `json:"want,omitempty"` // of the manifest to be
}

// Fingerprint is the plan's own part of what is saved: its nodes.
func (p *Plan) Fingerprint() Saved {
	s := Saved{Version: SavedVersion, Fleet: p.Fleet}
	for _, n := range p.Nodes {
		sn := SavedNode{Node: n.Node, Action: n.Action, To: n.To}
		if n.Action == ActionChange || n.Action == ActionRestore {
			sn.Want = digest(n.Manifest)
		}
		if n.seen != nil {
			sn.Generation, sn.Confirmed = n.seen.Current.Number, n.seen.Current.Confirmed
			if n.seen.Manifest != nil {
				sn.Holds = digest(*n.seen.Manifest)
			}
			if len(n.seen.Drift) > 0 {
				sn.Drift = digest(n.seen.Drift)
			}
		}
		s.Nodes = append(s.Nodes, sn)
	}
	return s
}

func digest(v any) fleet.Digest {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers: they always marshal
	}
	return fleet.DigestOf(b)
}

// Write writes the plan as ParseSaved reads it.
func (s Saved) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(s)
}

// ParseSaved reads a saved plan. The error says that it is none, or one of a
// newer moggy.
func ParseSaved(b []byte) (Saved, error) {
	const makeAnother = "make another: moggy plan --out FILE"
	var s Saved
	if len(b) > MaxSaved {
		return s, hint.Wrap(fmt.Errorf("no saved plan: longer than %d bytes", MaxSaved), makeAnother)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return s, hint.Wrap(fmt.Errorf("no saved plan: %w", err), makeAnother)
	}
	if head.Version != SavedVersion {
		return s, hint.Wrap(fmt.Errorf("a saved plan of version %d, this moggy reads %d", head.Version, SavedVersion), makeAnother)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields() // what we do not know we cannot compare
	if err := dec.Decode(&s); err != nil {
		return Saved{}, hint.Wrap(fmt.Errorf("no saved plan: %w", err), makeAnother)
	}
	seen := make(map[fleet.NodeName]bool, len(s.Nodes))
	for _, n := range s.Nodes {
		if n.Node == "" || seen[n.Node] {
			return Saved{}, hint.Wrap(errors.New("no saved plan: a node without a name, or there twice"), makeAnother)
		}
		seen[n.Node] = true
	}
	return s, nil
}

// Moved says what is other now than when s was saved, a line for each; none
// where all is as it was.
func (s Saved) Moved(now Saved) []string {
	var out []string
	say := func(moved bool, text string) {
		if moved {
			out = append(out, text)
		}
	}
	say(s.Fleet != now.Fleet, fmt.Sprintf("it is of the fleet %q, this is %q", s.Fleet, now.Fleet))
	say(s.File != now.File, "the fleet file has changed")
	say(s.Lock != now.Lock, "the lock has changed")
	say(!maps.Equal(s.Binaries, now.Binaries), "this is another build of moggy")
	if !slices.Equal(s.Only, now.Only) { // from which all the rest follows
		return append(out, fmt.Sprintf("it was made for %s, this is for %s", chosen(s.Only), chosen(now.Only)))
	}
	were := make(map[fleet.NodeName]SavedNode, len(s.Nodes))
	for _, n := range s.Nodes {
		were[n.Node] = n
	}
	for _, n := range now.Nodes {
		was, known := were[n.Node]
		delete(were, n.Node)
		if !known {
			out = append(out, string(n.Node)+" was not in it")
		} else if text := was.moved(n); text != "" {
			out = append(out, string(n.Node)+" "+text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(were)) {
		out = append(out, string(name)+" is gone")
	}
	return out
}

func chosen(only []fleet.NodeName) string {
	if len(only) == 0 {
		return "all nodes"
	}
	return fmt.Sprintf("%v", only)
}

// moved says how the node is other now; "" where it is not.
func (s SavedNode) moved(now SavedNode) string {
	idle := func(n SavedNode) bool { return n.Action == ActionNone || n.Action == ActionUnreachable }
	switch {
	case s == now:
		return ""
	case idle(s) && idle(now) && s.Action != now.Action: // nothing is done to it, whether it answers or not
		return ""
	case now.Action == ActionUnreachable:
		return "does not answer any more"
	case s.Action == ActionUnreachable:
		return "answers again"
	case s.Generation != now.Generation:
		return fmt.Sprintf("was on generation %d, is on %d", s.Generation, now.Generation)
	case s.Holds != now.Holds:
		return fmt.Sprintf("holds another generation %d", now.Generation)
	case s.Confirmed != now.Confirmed:
		return fmt.Sprintf("has generation %d confirmed, or no longer", now.Generation)
	case s.Drift != now.Drift:
		return "was changed by hand"
	case s.Action != now.Action:
		return fmt.Sprintf("was to %s, is to %s", s.Action, now.Action)
	}
	return "would get something else"
}
