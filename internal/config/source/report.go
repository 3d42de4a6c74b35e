package source

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Report collects diagnostics while texts are read.
type Report struct {
	// Texts are what is read, in order.
	Texts []*Text
	index map[string]*Text // by name; of two with one name, the first
	list  Diagnostics
	// unread are the lines, by source and number, that HCL could not make
	// sense of: what else seems wrong in them is a consequence.
	unread map[lineOf]bool
}

type lineOf struct {
	file string
	line int
}

// NewReport returns a report that shows its diagnostics in these texts.
func NewReport(texts []Text) *Report {
	r := &Report{index: make(map[string]*Text), unread: make(map[lineOf]bool)}
	for i, t := range texts {
		t := &Text{Name: t.Name, Content: t.Content, number: i}
		r.Texts = append(r.Texts, t)
		if r.index[t.Name] == nil {
			r.index[t.Name] = t
		}
	}
	return r
}

// Len is how many diagnostics there are so far.
func (r *Report) Len() int { return len(r.list) }

// Crowded says that there are more than are shown to a reader: what costs much
// to find is left out then.
func (r *Report) Crowded() bool { return len(r.list) >= maxShown }

// Forget drops what was reported since there were n diagnostics: all of it is a
// consequence of what is reported next, in whatever line.
func (r *Report) Forget(n int) {
	r.list = r.list[:n]
	clear(r.unread)
}

// full says that so much is wrong that reading on helps nobody.
func (r *Report) full() bool { return len(r.list) >= maxKept }

// Mistake reports an error at a place. The suggestion may be "".
func (r *Report) Mistake(at hcl.Range, suggestion, format string, args ...any) {
	r.add(Error, at, suggestion, fmt.Sprintf(format, args...))
}

// syntax reports the first thing HCL could not read in a line.
func (r *Report) syntax(at hcl.Range, suggestion, message string) {
	r.add(Error, at, suggestion, message)
	if !strings.Contains(message, neverClosed) { // then the line itself is fine
		r.unread[lineOf{at.Filename, at.Start.Line}] = true
	}
}

// secret reports a place where a private key stands. What else is wrong there
// is left out: it could show a part of the key.
func (r *Report) secret(at hcl.Range, suggestion, message string) {
	d := diagnostic(Error, at, suggestion, message)
	if t := r.index[at.Filename]; t != nil {
		d.file = t.number
	}
	r.list = append(r.list, d)
}

// Warn reports what is worth a thought and stops nothing.
func (r *Report) Warn(at hcl.Range, suggestion, format string, args ...any) {
	r.add(Warning, at, suggestion, fmt.Sprintf(format, args...))
}

func (r *Report) add(s Severity, at hcl.Range, suggestion, message string) {
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
		Severity: s, File: at.Filename, Message: Printable(message), Suggestion: Printable(suggestion),
		Line: max(1, at.Start.Line), Column: max(1, at.Start.Column),
		EndLine: at.End.Line, EndColumn: at.End.Column,
	}
	d.EndLine = max(d.Line, d.EndLine)
	if d.EndLine == d.Line {
		d.EndColumn = max(d.Column, d.EndColumn)
	}
	return d
}

// Finish returns the diagnostics in order, each once.
func (r *Report) Finish() Diagnostics {
	slices.SortStableFunc(r.list, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), strings.Compare(string(a.Severity), string(b.Severity)))
	})
	return slices.CompactFunc(r.list, func(a, b Diagnostic) bool {
		return a.file == b.file && a.Line == b.Line && a.Column == b.Column && a.Message == b.Message
	})
}
