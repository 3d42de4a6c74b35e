package operate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Line is one line of a log.
type Line struct {
	At   time.Time      `json:"at"` // by the node's clock
	Node fleet.NodeName `json:"node"`
	Unit string         `json:"unit"`
	Text string         `json:"text"` // what a terminal would obey is taken out

	cursor string // of the node's journal
}

// entry is a line of `journalctl --output=json` (systemd's Journal JSON Format).
type entry struct {
	Cursor string          `json:"__CURSOR"`
	Micro  string          `json:"__REALTIME_TIMESTAMP"` // µs since 1970
	Unit   string          `json:"_SYSTEMD_UNIT"`
	About  string          `json:"UNIT"` // where systemd speaks of a unit
	Text   json.RawMessage `json:"MESSAGE"`
}

// parse reads what journalctl wrote. A message is a text, or, where it is no
// UTF-8, a list of bytes; null where it is too long.
func parse(node fleet.NodeName, b []byte) (Line, error) {
	var e entry
	if err := json.Unmarshal(b, &e); err != nil {
		return Line{}, fmt.Errorf("node %s: a line of the journal: %w", node, err)
	}
	micro, err := strconv.ParseInt(e.Micro, 10, 64)
	if err != nil {
		return Line{}, fmt.Errorf("node %s: a line of the journal: time %q: %w", node, e.Micro, err)
	}
	l := Line{At: time.UnixMicro(micro), Node: node, Unit: e.Unit, cursor: e.Cursor}
	if e.About != "" {
		l.Unit = e.About
	}
	var text string
	var numbers []int
	if json.Unmarshal(e.Text, &text) != nil && json.Unmarshal(e.Text, &numbers) == nil {
		raw := make([]byte, len(numbers))
		for i, n := range numbers {
			raw[i] = byte(n)
		}
		text = string(bytes.ToValidUTF8(raw, []byte("\uFFFD")))
	}
	l.Text = harmless(text)
	return l, nil
}

// harmless replaces what a terminal would obey.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, strings.TrimRight(s, "\r\n"))
}

// merged are the lines in the order of their times.
func merged(lines []Line) []Line {
	slices.SortStableFunc(lines, func(a, b Line) int { return a.At.Compare(b.At) })
	return lines
}
