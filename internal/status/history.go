package status

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

// HistoryVersion is the format of a History document.
const HistoryVersion = 1

// History is what happened to the fleet's generations, newest first.
type History struct {
	Version int              `json:"version"`
	Fleet   fleet.Name       `json:"fleet"`
	Entries []Entry          `json:"entries"`
	Silent  []fleet.NodeName `json:"silent,omitempty"` // nodes that could not be asked
}

// Record is a turn of one node.
type Record struct {
	Node fleet.NodeName
	fleet.Turn
}

// about is the generation that a turn belongs to: of one that a node went back
// from, that one.
func (r Record) about() int {
	if r.Kind == fleet.TurnWentBack {
		return r.From
	}
	return r.Generation
}

// Entry is what one hand did to one generation: what happened on each node.
type Entry struct {
	At         time.Time `json:"at"` // when the first node began
	Generation int       `json:"generation"`
	// Back is the generation that a rollback led away from; 0 where it was none.
	Back   int    `json:"back,omitempty"`
	By     string `json:"by,omitempty"`
	Commit string `json:"commit,omitempty"`
	// Results says of each kind of end which nodes came to it, kinds in the order
	// of their weight: what went wrong first.
	Results []NodesTurn `json:"results"`
}

// NodesTurn is one kind of end, and the nodes that came to it.
type NodesTurn struct {
	Kind  fleet.TurnKind   `json:"kind"`
	To    int              `json:"to,omitempty"` // where those that went back are
	Nodes []fleet.NodeName `json:"nodes"`        // sorted
	Why   string           `json:"why,omitempty"`
}

// sameWork is how far apart the turns of one apply may be: activation,
// probation and confirmation on every node of a large fleet.
const sameWork = 30 * time.Minute

// Recount tells the nodes' turns as one story. Of each node's turns at one
// generation by one hand only the last counts: what it came to. At most limit
// entries are told, the newest; 0 tells all.
func Recount(name fleet.Name, turns map[fleet.NodeName][]fleet.Turn, limit int) History {
	var all []Record
	for node, ts := range turns {
		for _, t := range ts {
			all = append(all, Record{node, t})
		}
	}
	slices.SortStableFunc(all, func(a, b Record) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return strings.Compare(string(a.Node), string(b.Node))
	})
	var open []*work
	for _, r := range all {
		i := len(open) - 1
		for i >= 0 && !open[i].takes(r) {
			i--
		}
		if i < 0 {
			open = append(open, &work{first: r, last: make(map[fleet.NodeName]fleet.Turn)})
			i = len(open) - 1
		}
		open[i].last[r.Node], open[i].latest = r.Turn, r.At
		if r.Kind == fleet.TurnWentBack && r.By != open[i].first.By {
			continue // the node's own doing: the work is still its author's
		}
		if open[i].first.Commit == "" {
			open[i].first.Commit = r.Commit
		}
	}
	h := History{Version: HistoryVersion, Fleet: name, Entries: []Entry{}}
	for _, w := range slices.Backward(open) {
		if limit > 0 && len(h.Entries) == limit {
			break
		}
		h.Entries = append(h.Entries, w.entry())
	}
	return h
}

// work is one entry in the making.
type work struct {
	first  Record
	latest time.Time
	last   map[fleet.NodeName]fleet.Turn // what each node came to
}

// takes says whether a turn belongs to the work: the same generation, at about
// the same time, by the same hand. What a node does by itself belongs to whom it
// reacts to.
func (w *work) takes(r Record) bool {
	if r.about() != w.first.about() || r.At.Sub(w.latest) > sameWork {
		return false
	}
	_, began := w.last[r.Node]
	if began && (r.Kind == fleet.TurnActivated || r.Kind == fleet.TurnRestored) {
		return false // it begins anew
	}
	return r.By == w.first.By || began && r.Kind == fleet.TurnWentBack
}

func (w *work) entry() Entry {
	e := Entry{At: w.first.At, Generation: w.first.about(), By: w.first.By, Commit: w.first.Commit}
	if w.first.Kind == fleet.TurnActivated && w.first.From > w.first.Generation {
		e.Back = w.first.From
	}
	for _, kind := range []fleet.TurnKind{fleet.TurnWentBack, fleet.TurnFailed, fleet.TurnActivated, fleet.TurnRestored, fleet.TurnConfirmed} {
		byWhy := make(map[string]NodesTurn)
		for _, node := range slices.Sorted(maps.Keys(w.last)) {
			t := w.last[node]
			if t.Kind != kind {
				continue
			}
			r := byWhy[t.Why]
			r.Kind, r.Why, r.Nodes = kind, t.Why, append(r.Nodes, node)
			if kind == fleet.TurnWentBack {
				r.To = t.Generation
			}
			byWhy[t.Why] = r
		}
		for _, why := range slices.Sorted(maps.Keys(byWhy)) {
			e.Results = append(e.Results, byWhy[why])
		}
	}
	return e
}

// Write draws the history, newest first, times in the zone of now.
func (h *History) Write(w io.Writer, c term.Palette, now time.Time) error {
	var b strings.Builder
	if len(h.Entries) == 0 {
		b.WriteString("Nothing has happened yet.\n")
	}
	t := term.Table{Head: []string{"WHEN", "GEN", "WHO", "COMMIT", "WHAT"}}
	for _, e := range h.Entries {
		for i, r := range e.Results {
			what := told(r, c)
			if i > 0 {
				t.Add("", "", "", "", what)
				continue
			}
			number := fmt.Sprint(e.Generation)
			if e.Back > 0 {
				number = fmt.Sprintf("%d <- %d", e.Generation, e.Back)
			}
			t.Add(e.At.In(now.Location()).Format("2006-01-02 15:04:05"), number, e.By, e.Commit, what)
		}
	}
	if len(t.Rows) > 0 {
		if err := t.Write(&b, c); err != nil {
			return err
		}
	}
	if len(h.Silent) > 0 {
		names := make([]string, len(h.Silent))
		for i, n := range h.Silent {
			names[i] = string(n)
		}
		fmt.Fprintf(&b, "%s\n", c.Dim("Without "+strings.Join(names, ", ")+", which could not be asked."))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// told is one result in a line.
func told(r NodesTurn, c term.Palette) string {
	names := make([]string, len(r.Nodes))
	for i, n := range r.Nodes {
		names[i] = string(n)
	}
	kind := string(r.Kind)
	switch r.Kind {
	case fleet.TurnWentBack, fleet.TurnFailed:
		kind = c.Bad(kind)
	case fleet.TurnConfirmed:
		kind = c.Good(kind)
	case fleet.TurnActivated:
		kind = c.Change("activated, not confirmed")
	case fleet.TurnRestored:
	}
	if r.To > 0 {
		kind += fmt.Sprintf(" to %d", r.To)
	}
	line := kind + "  " + shorten(names)
	if r.Why != "" {
		line += ": " + r.Why
	}
	return line
}
