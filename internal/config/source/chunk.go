package source

import (
	"bytes"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// Chunk is a part of a text that is parsed by itself: one top-level block,
// with what stands before it. So a brace that is missing in one block hides
// nothing of the next, and a file of garbage is given up early.
type Chunk struct {
	// Start is where it stands in the file, and Text what stands there.
	Start hcl.Pos
	Text  []byte

	deep  int  // offset in Text where brackets nest too deep, or -1
	open  bool // its brackets are not closed
	large bool // so large that nothing of it or behind it is read
}

const (
	// maxChunk bounds one block, in bytes. HCL's parser recurses with what it
	// reads, so this bounds its stack too.
	maxChunk = 256 << 10
	// maxHeader is how far a block's opening brace is looked for in a line, in
	// bytes: a name has 63 at most.
	maxHeader = 512
	// maxNesting bounds brackets within brackets, for the same reason.
	maxNesting = 100
)

var heredoc = regexp.MustCompile(`^<<-?([\pL_][\pL\pN_-]*)\r?\n`)

// splitter cuts a text into chunks, line by line. It knows just enough of HCL
// to pass over comments, quoted texts and heredocs.
type splitter struct {
	src    []byte
	kinds  []string // of top-level blocks
	at     int      // offset of the next line
	line   int      // its number
	depth  int      // open brackets
	deep   int      // offset where there were too many, or -1
	inside bool
	until  []byte // the word that ends the heredoc we are in
}

func newSplitter(src []byte, kinds []string) *splitter {
	return &splitter{src: src, kinds: kinds, line: 1, deep: -1}
}

// next returns the next chunk, and false after the last.
func (s *splitter) next() (Chunk, bool) {
	if s.at >= len(s.src) {
		return Chunk{}, false
	}
	from := s.at
	c := Chunk{Start: hcl.Pos{Line: s.line, Column: 1, Byte: from}, deep: -1}
	s.depth, s.deep = 0, -1
	for begun := false; s.at < len(s.src); {
		if !s.inside && s.until == nil {
			starts := s.starts()
			if starts && begun {
				break
			}
			begun = begun || starts
		}
		s.scanLine()
		if s.at-from > maxChunk { // garbage, most likely: the rest is not read
			s.at = len(s.src)
			return Chunk{Start: c.Start, deep: -1, large: true}, true
		}
	}
	c.Text, c.open = s.src[from:s.at], s.depth > 0
	if s.deep >= 0 {
		c.deep = s.deep - from
	}
	return c, true
}

// lineEnd is the offset behind the next line.
func (s *splitter) lineEnd() int {
	if i := bytes.IndexByte(s.src[s.at:], '\n'); i >= 0 {
		return s.at + i + 1
	}
	return len(s.src)
}

// starts says whether the next line begins a top-level block. Within brackets
// only one of a known kind, with a name, is taken for one: there a brace is
// likely to be missing.
func (s *splitter) starts() bool {
	line := s.src[s.at:min(s.lineEnd(), s.at+maxHeader)]
	if len(line) == 0 || line[0] <= ' ' { // nearly all lines: indented or empty
		return false
	}
	kind, named, ok := header(line)
	return ok && (s.depth == 0 || named && slices.Contains(s.kinds, kind))
}

// header reads the first line of a block: a type, perhaps a name in quotes, and
// a brace.
func header(line []byte) (kind string, named, ok bool) {
	word := 0
	for word < len(line) && (line[word] >= 'a' && line[word] <= 'z' || line[word] >= 'A' && line[word] <= 'Z' ||
		line[word] == '_' || word > 0 && (line[word] >= '0' && line[word] <= '9' || line[word] == '-')) {
		word++
	}
	rest := bytes.TrimLeft(line[word:], " \t")
	if len(rest) > 0 && rest[0] == '"' {
		end := bytes.IndexByte(rest[1:], '"')
		if end < 0 {
			return "", false, false
		}
		named, rest = true, bytes.TrimLeft(rest[end+2:], " \t")
	}
	return string(line[:word]), named, word > 0 && len(rest) > 0 && rest[0] == '{'
}

// scanLine passes over one line.
func (s *splitter) scanLine() {
	end := s.lineEnd()
	line, base := s.src[s.at:end], s.at
	s.at, s.line = end, s.line+1
	if s.until != nil {
		if bytes.Equal(bytes.TrimSpace(line), s.until) {
			s.until = nil
		}
		return
	}
	quoted := false
	for i := 0; i < len(line); i++ {
		rest := line[i:]
		switch c := line[i]; {
		case s.inside:
			if bytes.HasPrefix(rest, []byte("*/")) {
				s.inside = false
				i++
			}
		case quoted:
			if c == '\\' {
				i++
			}
			quoted = c != '"'
		case c == '"':
			quoted = true
		case c == '#', bytes.HasPrefix(rest, []byte("//")):
			return
		case bytes.HasPrefix(rest, []byte("/*")):
			s.inside = true
			i++
		case c == '<' && heredoc.Match(rest):
			s.until = heredoc.FindSubmatch(rest)[1]
			return
		case c == '{' || c == '[' || c == '(':
			if s.depth++; s.depth > maxNesting && s.deep < 0 {
				s.deep = base + i
			}
		case c == '}' || c == ']' || c == ')':
			s.depth = max(0, s.depth-1)
		}
	}
}

// pos is the position of an offset in the chunk.
func (c Chunk) pos(offset int) hcl.Pos {
	head := c.Text[:offset]
	from := bytes.LastIndexByte(head, '\n') + 1
	return hcl.Pos{
		Line:   c.Start.Line + bytes.Count(head, []byte("\n")),
		Column: utf8.RuneCount(head[from:]) + 1,
		Byte:   c.Start.Byte + offset,
	}
}
