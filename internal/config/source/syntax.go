package source

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Body is a parsed part of a text.
type Body struct {
	*hclsyntax.Body
	Broken bool // with a syntax mistake: what seems missing may be there
	Open   bool // with brackets that are not closed
}

// Start is where the body's last block starts, or the body.
func (b Body) Start() hcl.Range {
	if n := len(b.Blocks); n > 0 {
		return b.Blocks[n-1].DefRange()
	}
	return hcl.Range{Filename: b.SrcRange.Filename, Start: b.SrcRange.Start, End: b.SrcRange.Start}
}

// Parse reads a text block by block and reports its syntax mistakes. kinds are
// the block types that stand at its top. Each block is given to each, which says
// whether to go on; but what short takes is not parsed. short may be nil. Parse
// returns whether the text was read to its end.
func (t *Text) Parse(r *Report, kinds []string, short func(Chunk) bool, each func(Body) bool) bool {
	s := newSplitter(t.Content, kinds)
	for c, ok := s.next(); ok && !r.full(); c, ok = s.next() {
		if c.deep >= 0 {
			at := hcl.Range{Filename: t.Name, Start: c.pos(c.deep), End: c.pos(c.deep + 1)}
			r.Mistake(at, "", "brackets are nested more than %d deep", maxNesting)
			continue
		}
		if c.large {
			r.Mistake(hcl.Range{Filename: t.Name, Start: c.Start, End: c.Start}, "start each block at the beginning of a line",
				"no block ends within %d kB of here", maxChunk>>10)
			return false
		}
		if short != nil && short(c) {
			continue
		}
		file, diags := hclsyntax.ParseConfig(c.Text, t.Name, c.Start)
		t.translate(r, diags, kinds)
		parsed, ok := file.Body.(*hclsyntax.Body)
		if ok && !each(Body{parsed, diags.HasErrors(), c.open && diags.HasErrors()}) {
			return false
		}
	}
	return true
}

// translate reports what HCL says of one chunk, in moggy's words.
func (t *Text) translate(r *Report, diags hcl.Diagnostics, kinds []string) {
	for _, d := range diags {
		if d.Summary == "Invalid multi-line string" && d.Subject != nil {
			// All that follows an open quote is read inside out: the rest of
			// the block's mistakes are none.
			r.syntax(t.openQuote(*d.Subject), `is a " missing?`, "a text that is not closed on its line")
			return
		}
	}
	for _, d := range diags {
		at := hcl.Range{Filename: t.Name}
		if d.Subject != nil {
			at = *d.Subject
		}
		message, suggestion := t.reword(d, at, kinds)
		r.syntax(at, suggestion, message)
	}
}

// openQuote is the range from a line's last quote to its end.
func (t *Text) openQuote(newline hcl.Range) hcl.Range {
	end := newline.Start.Byte
	from := bytes.LastIndexByte(t.Content[:end], '\n') + 1
	if i := bytes.LastIndexByte(t.Content[from:end], '"'); i >= 0 {
		newline.End = newline.Start
		newline.Start.Byte = from + i
		newline.Start.Column = utf8.RuneCount(t.Content[from:from+i]) + 1
	}
	return newline
}

const neverClosed = "never closed"

// redefined finds the attribute and the first place in HCL's words for it.
var redefined = regexp.MustCompile(`^The argument "([^"]*)" was already set at .*:(\d+),[^:]*\. `)

// reword says in moggy's words what HCL found wrong, and what to write.
func (t *Text) reword(d *hcl.Diagnostic, at hcl.Range, kinds []string) (message, suggestion string) {
	has := func(s string) bool { return strings.Contains(d.Detail, s) }
	switch d.Summary {
	case "Attribute redefined":
		if m := redefined.FindStringSubmatch(d.Detail); m != nil {
			return fmt.Sprintf("%s is set twice", m[1]), "it is set in line " + m[2] + " already"
		}
	case "Unclosed configuration block", "Unclosed configuration body":
		return "a block that is " + neverClosed, `is a "}" missing?`
	case "Argument or block definition required", "Argument definition required":
		return "an attribute (name = value) or a block is expected here", ""
	case "Invalid argument name":
		return "an attribute's name stands without quotes", ""
	case "Invalid block definition":
		return t.rewordBlock(d, at, kinds)
	case "Invalid single-argument block definition":
		if has("Single-line block syntax") || has("must end with a closing brace") {
			return "a block on one line holds one attribute", "give each attribute a line of its own"
		}
		return "a block that starts with an attribute on its first line ends on that line", `move the attribute to the next line, or add "}"`
	case "Missing newline after block definition":
		return "after a block's end the line ends", "start a new line here"
	case "Missing newline after argument":
		return "after an attribute's value the line ends", "start a new line here"
	case "Unexpected comma after argument":
		return "attributes stand on lines of their own, without commas", "remove the comma"
	case "Missing expression", "Missing attribute value":
		return "a value is missing", ""
	case "Invalid expression":
		return "a value is expected here", ""
	case "Unterminated tuple constructor expression":
		return "a list that is never closed", `is a "]" missing?`
	case "Missing item separator":
		return "between the items of a list stands a comma", `is a "," or a "]" missing?`
	case "Unterminated object constructor expression":
		return "a value that is never closed", `is a "}" missing?`
	case "Missing attribute separator":
		return "between two entries stands a comma or a new line", `is a "," or a "}" missing?`
	case "Missing key/value separator":
		return "between a name and its value stands a =", ""
	case "Unterminated template string", "Unterminated string literal":
		return "a text that is never closed", `is a " missing?`
	case "Invalid attribute name":
		return "a name is missing after the dot", ""
	case "Invalid escape sequence":
		return "no escape sequence", `a backslash itself is written \\`
	case "Invalid character":
		return rewordCharacter(d.Detail)
	}
	return plain(d), ""
}

func (t *Text) rewordBlock(d *hcl.Diagnostic, at hcl.Range, kinds []string) (message, suggestion string) {
	switch {
	case strings.Contains(d.Detail, "equals sign"):
		return "a block has no = before its brace", "remove the ="
	case strings.Contains(d.Detail, "starting on the same line"):
		if d.Context == nil {
			break
		}
		// `os "debian"` is far more often an attribute without its = than a
		// block without its brace.
		words := strings.Fields(string(t.Content[d.Context.Start.Byte:at.Start.Byte]))
		if len(words) == 2 && !slices.Contains(kinds, words[0]) {
			return fmt.Sprintf("%s has neither a = nor a brace", words[0]),
				fmt.Sprintf(`%s = %s sets a value, %s %s { begins a block`, words[0], words[1], words[0], words[1])
		}
		return "a block's opening brace stands on the line of its name", `is a "{" missing?`
	}
	return "after a block's type its name in quotes or a { is expected", ""
}

func rewordCharacter(detail string) (message, suggestion string) {
	switch {
	case strings.Contains(detail, "Single quotes"), strings.Contains(detail, "Curly"), strings.Contains(detail, "\"`\""):
		return "texts stand in double quotes", `write "..."`
	case strings.Contains(detail, `";"`):
		return "attributes stand on lines of their own, without semicolons", "start a new line here"
	}
	return "a character that has no meaning here", ""
}

// plain is HCL's own wording in the house's form.
func plain(d *hcl.Diagnostic) string {
	first, _, _ := strings.Cut(d.Detail, ". ")
	return lower(d.Summary) + ": " + lower(strings.TrimSuffix(first, "."))
}

func lower(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToLower(r)) + s[n:]
}
