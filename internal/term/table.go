package term

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is rows of cells under headings, each column as wide as its widest
// cell. A cell may be painted; the paint does not count.
type Table struct {
	Indent string
	Head   []string
	Rows   [][]string
}

// Add appends a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Write draws the table.
func (t *Table) Write(w io.Writer, p Palette) error {
	width := make([]int, len(t.Head))
	for i, h := range t.Head {
		width[i] = Width(h)
	}
	for _, r := range t.Rows {
		for i, c := range r {
			if i < len(width) {
				width[i] = max(width[i], Width(c))
			}
		}
	}
	line := func(cells []string, paint func(string) string) error {
		var b strings.Builder
		b.WriteString(t.Indent)
		for i, c := range cells {
			b.WriteString(paint(c))
			if i < len(cells)-1 && i < len(width) {
				b.WriteString(strings.Repeat(" ", width[i]-Width(c)+2))
			}
		}
		_, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
		return err
	}
	if err := line(t.Head, p.Dim); err != nil {
		return err
	}
	for _, r := range t.Rows {
		if err := line(r, func(s string) string { return s }); err != nil {
			return err
		}
	}
	return nil
}

// Width is the number of columns s takes, escape sequences left out.
func Width(s string) int {
	n := 0
	for {
		i := strings.IndexByte(s, '\x1b')
		if i < 0 {
			return n + utf8.RuneCountInString(s)
		}
		n += utf8.RuneCountInString(s[:i])
		end := strings.IndexByte(s[i:], 'm')
		if end < 0 {
			return n
		}
		s = s[i+end+1:]
	}
}
