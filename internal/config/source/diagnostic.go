package source

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/moggyfleet/moggy/internal/term"
)

// Severity says whether a diagnostic stops the work.
type Severity string

// The severities. An error is what the reader is shown as a mistake.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Diagnostic is one thing to say about a file, at one place of it.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	// Lines and columns count from 1; columns count characters as a reader
	// does (grapheme clusters). The end is exclusive.
	Line      int `json:"line"`
	Column    int `json:"column"`
	EndLine   int `json:"end_line"`
	EndColumn int `json:"end_column"`
	// Message names the block and what is wrong with it.
	Message string `json:"message"`
	// Suggestion is what to write instead, or to do; "" where there is none.
	Suggestion string `json:"suggestion,omitempty"`
	// Source is the line of the mistake, cut where it is very long. "" where
	// the line must not be shown: a private key stands in it.
	Source string `json:"source,omitempty"`

	file    int // index of the source, to sort by
	snippet snippet
}

// Diagnostics are in the order of the texts, then of lines and columns.
type Diagnostics []Diagnostic

const (
	// maxShown is how many diagnostics Write prints: more than fit on any
	// screen, so the rest would only push the first ones away.
	maxShown = 50
	// maxKept bounds what is collected from a file that is garbage.
	maxKept = 1000
	// jsonVersion is the format of JSON's document.
	jsonVersion = 1
)

// Mistakes counts the diagnostics that are errors.
func (ds Diagnostics) Mistakes() int { return ds.count(Error) }

// Warnings counts the diagnostics that are warnings.
func (ds Diagnostics) Warnings() int { return ds.count(Warning) }

func (ds Diagnostics) count(s Severity) int {
	n := 0
	for _, d := range ds {
		if d.Severity == s {
			n++
		}
	}
	return n
}

// Write prints the diagnostics for a reader: for each its place and what is
// wrong, the line, and under it carets with the suggestion; then their number.
// It prints nothing where there are none.
func (ds Diagnostics) Write(w io.Writer, p term.Palette) error {
	if len(ds) == 0 {
		return nil
	}
	var b strings.Builder
	for i, d := range ds {
		if i == maxShown {
			fmt.Fprintf(&b, "and %s more\n", ds.atLeast(len(ds)-maxShown))
			break
		}
		d.write(&b, p)
	}
	fmt.Fprintln(&b, p.Strong(ds.summary()))
	_, err := io.WriteString(w, b.String())
	return err
}

func (d Diagnostic) write(b *strings.Builder, p term.Palette) {
	place := fmt.Sprintf("%s:%d:%d:", Printable(d.File), d.Line, d.Column)
	message, mark := d.Message, p.Bad
	if d.Severity == Warning {
		message, mark = "warning: "+message, p.Change
	}
	fmt.Fprintf(b, "%s %s\n", p.Strong(place), message)
	suggestion := ""
	if d.Suggestion != "" {
		suggestion = " " + d.Suggestion
	}
	if d.Source == "" {
		if suggestion != "" {
			fmt.Fprintf(b, "%s%s\n", p.Dim("      |"), p.Good(suggestion))
		}
		return
	}
	fmt.Fprintf(b, "%s %s\n", p.Dim(fmt.Sprintf("%5d |", d.Line)), d.Source)
	fmt.Fprintf(b, "%s %s%s%s\n", p.Dim("      |"), d.snippet.indent, mark(strings.Repeat("^", d.snippet.carets)), p.Good(suggestion))
}

func (ds Diagnostics) summary() string {
	mistakes, warnings := ds.Mistakes(), ds.Warnings()
	var parts []string
	if mistakes > 0 {
		n := ds.atLeast(mistakes)
		parts = append(parts, plural(n, mistakes, "mistake"))
	}
	if warnings > 0 {
		parts = append(parts, plural(fmt.Sprint(warnings), warnings, "warning"))
	}
	if mistakes > 0 {
		parts = append(parts, "nothing was changed")
	}
	return strings.Join(parts, ", ") + "."
}

// atLeast says n, or that it is only what was counted until counting stopped.
func (ds Diagnostics) atLeast(n int) string {
	if len(ds) >= maxKept {
		return fmt.Sprintf("%d or more", n)
	}
	return fmt.Sprint(n)
}

func plural(shown string, n int, noun string) string {
	if n == 1 {
		return shown + " " + noun
	}
	return shown + " " + noun + "s"
}

// JSON is the diagnostics as a versioned document:
//
//	{"version": 1, "mistakes": 1, "warnings": 0, "diagnostics": [...]}
func (ds Diagnostics) JSON() []byte {
	if ds == nil {
		ds = Diagnostics{}
	}
	doc := struct {
		Version     int         `json:"version"`
		Mistakes    int         `json:"mistakes"`
		Warnings    int         `json:"warnings"`
		Diagnostics Diagnostics `json:"diagnostics"`
	}{jsonVersion, ds.Mistakes(), ds.Warnings(), ds}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil { // strings and ints only: cannot fail
		panic(err)
	}
	return append(out, '\n')
}
