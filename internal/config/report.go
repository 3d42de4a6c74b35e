package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// report collects diagnostics while the sources are read.
type report struct {
	texts []*text
	index map[string]*text // by name; of two with one name, the first
	list  Diagnostics
	// unread are the lines, by source and number, that HCL could not make
	// sense of: what else seems wrong in them is a consequence.
	unread map[lineOf]bool
}

type lineOf struct {
	file string
	line int
}

func newReport(sources []Source) *report {
	r := &report{index: make(map[string]*text), unread: make(map[lineOf]bool)}
	for i, s := range sources {
		t := &text{Source: s, number: i}
		r.texts = append(r.texts, t)
		if r.index[s.Name] == nil {
			r.index[s.Name] = t
		}
	}
	return r
}

// full says that so much is wrong that reading on helps nobody.
func (r *report) full() bool { return len(r.list) >= maxKept }

// mistake reports an error at a place. The suggestion may be "".
func (r *report) mistake(at hcl.Range, suggestion, format string, args ...any) {
	r.add(Error, at, suggestion, fmt.Sprintf(format, args...))
}

// syntax reports the first thing HCL could not read in a line.
func (r *report) syntax(at hcl.Range, suggestion, message string) {
	r.add(Error, at, suggestion, message)
	if !strings.Contains(message, neverClosed) { // then the line itself is fine
		r.unread[lineOf{at.Filename, at.Start.Line}] = true
	}
}

// secret reports a place where a private key stands. What else is wrong there
// is left out: it could show a part of the key.
func (r *report) secret(at hcl.Range, suggestion, message string) {
	d := diagnostic(Error, at, suggestion, message)
	if t := r.index[at.Filename]; t != nil {
		d.file = t.number
	}
	r.list = append(r.list, d)
}

// warn reports what is worth a thought and stops nothing.
func (r *report) warn(at hcl.Range, suggestion, format string, args ...any) {
	r.add(Warning, at, suggestion, fmt.Sprintf(format, args...))
}

func (r *report) add(s Severity, at hcl.Range, suggestion, message string) {
	if r.full() || r.unread[lineOf{at.Filename, at.Start.Line}] {
		return
	}
	d := diagnostic(s, at, suggestion, message)
	if t := r.index[at.Filename]; t != nil {
		if t.secret(at) {
			return
		}
		d.file = t.number
		d.Source, d.snippet = show(t.Content, at)
	}
	r.list = append(r.list, d)
}

func diagnostic(s Severity, at hcl.Range, suggestion, message string) Diagnostic {
	d := Diagnostic{
		Severity: s, File: at.Filename, Message: printable(message), Suggestion: printable(suggestion),
		Line: max(1, at.Start.Line), Column: max(1, at.Start.Column),
		EndLine: at.End.Line, EndColumn: at.End.Column,
	}
	d.EndLine = max(d.Line, d.EndLine)
	if d.EndLine == d.Line {
		d.EndColumn = max(d.Column, d.EndColumn)
	}
	return d
}

// finish returns the diagnostics in order, each once.
func (r *report) finish() Diagnostics {
	slices.SortStableFunc(r.list, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), strings.Compare(string(a.Severity), string(b.Severity)))
	})
	return slices.CompactFunc(r.list, func(a, b Diagnostic) bool {
		return a.file == b.file && a.Line == b.Line && a.Column == b.Column && a.Message == b.Message
	})
}

// quoted is a text of the file for use inside a message.
func quoted(s string) string {
	const most = 60
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most-3]) + "..."
	}
	return fmt.Sprintf("%q", s)
}

// place is a range's start for use inside a message.
func place(at hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", at.Filename, at.Start.Line, at.Start.Column)
}
