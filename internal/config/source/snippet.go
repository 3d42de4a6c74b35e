package source

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// snippet is how the carets stand under a diagnostic's line.
type snippet struct {
	indent string // as wide as what stands before the carets
	carets int
}

const (
	// maxLine is the widest line shown whole, in characters.
	maxLine = 120
	// before and after are how much of a wider line is shown around the carets.
	before, after = 40, 70
	// scanned is how far the ends of a line are looked for, in bytes: a file
	// of 10 MB may be one line.
	scanned = 4096
)

// show returns the line that at starts on and where its carets go.
func show(content []byte, at hcl.Range) (string, snippet) {
	start := min(max(at.Start.Byte, 0), len(content))
	end := min(max(at.End.Byte, start), len(content))
	from := max(0, start-scanned)
	if i := bytes.LastIndexByte(content[from:start], '\n'); i >= 0 {
		from += i + 1
	}
	to := min(len(content), start+scanned)
	if i := bytes.IndexByte(content[start:to], '\n'); i >= 0 {
		to = start + i
	}
	end = min(end, to)
	left := []rune(Printable(string(content[from:start])))
	marked := []rune(Printable(string(content[start:end])))
	right := []rune(Printable(strings.TrimSuffix(string(content[end:to]), "\r")))
	if len(left)+len(marked)+len(right) > maxLine {
		left, marked, right = cut(left, marked, right)
	}
	indent := make([]rune, len(left))
	for i, r := range left {
		indent[i] = ' '
		if r == '\t' { // as wide as the tab above it, whatever that is
			indent[i] = '\t'
		}
	}
	return string(left) + string(marked) + string(right), snippet{string(indent), max(1, len(marked))}
}

func cut(left, marked, right []rune) (l, m, r []rune) {
	if len(left) > before {
		left = append([]rune("..."), left[len(left)-before:]...)
	}
	if len(marked) > after {
		marked, right = marked[:after], []rune("...")
	}
	if room := after - len(marked); len(right) > max(room, 3) {
		right = append(right[:max(room, 0):max(room, 0)], []rune("...")...)
	}
	return left, marked, right
}

// Printable replaces what would act on a terminal instead of being shown.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
