package lock

import (
	"bytes"
	"strconv"

	"github.com/hashicorp/hcl/v2"

	"github.com/moggyfleet/moggy/internal/config/source"
)

// canonicalNode reads a node's block that is, byte for byte, in the form in
// which Update writes one. That is nearly every block of nearly every lock, and
// ten times faster than HCL; whatever differs in a single blank goes through
// HCL. It finds the same as HCL does (FuzzParse compares them).
func canonicalNode(file string, c source.Chunk) (node, bool) {
	r := canonicalReader{file: file, rest: c.Text, at: c.Start}
	for len(r.rest) > 0 && r.rest[0] == '\n' { // what parts it from the one before
		r.skip(1)
	}
	n := node{block: block{attrs: make(map[string]attributeSpan, 6)}}
	start := r.at
	name := r.value(`node "`, `" {`)
	n.name = source.Item{Value: name.Value, At: hcl.Range{Filename: file, Start: start, End: name.At.End}}
	n.name.At.End.Column++ // with its closing quote
	n.name.At.End.Byte++
	n.block.whole.start, n.block.brace.start = start.Byte, r.at.Byte-1
	text := func(attr string) source.Item {
		from := r.at.Byte
		it := r.value(attr+`"`, `"`)
		it.At.Start.Column, it.At.Start.Byte = it.At.Start.Column-1, it.At.Start.Byte-1
		it.At.End.Column, it.At.End.Byte = it.At.End.Column+1, it.At.End.Byte+1
		n.block.attrs[attrName(attr)] = attributeSpan{span{from + 2, it.At.End.Byte}, spanOf(it.At)}
		return it
	}
	n.v4, n.v6 = text("  v4         = "), text("  v6         = ")
	n.key, n.arch = text("  mesh_key   = "), text("  arch       = ").Value
	from := r.at.Byte
	generation := r.value("  generation = ", "")
	n.block.attrs["generation"] = attributeSpan{span{from + 2, generation.At.End.Byte}, spanOf(generation.At)}
	if bytes.HasPrefix(r.rest, []byte("  ca ")) {
		n.ca = text("  ca         = ")
	}
	from = r.at.Byte
	r.line("  host_keys = [")
	for !r.failed && bytes.HasPrefix(r.rest, []byte(`    "`)) {
		it := r.value(`    "`, `",`)
		it.At.Start.Column, it.At.Start.Byte = it.At.Start.Column-1, it.At.Start.Byte-1
		it.At.End.Column, it.At.End.Byte = it.At.End.Column+1, it.At.End.Byte+1
		n.hostKeys = append(n.hostKeys, it)
	}
	r.line("  ]")
	n.block.attrs["host_keys"] = attributeSpan{span{from + 2, r.at.Byte - 1}, span{from + len("  host_keys = "), r.at.Byte - 1}}
	n.block.brace.end, n.block.whole.end = r.at.Byte, r.at.Byte+1
	r.line("}")
	whole, err := strconv.Atoi(generation.Value)
	n.generation = whole
	ok := !r.failed && err == nil && whole >= 0 && whole <= maxGeneration && strconv.Itoa(whole) == generation.Value &&
		len(bytes.Trim(r.rest, "\n")) == 0
	return n, ok
}

func attrName(written string) string {
	name, _, _ := bytes.Cut(bytes.TrimSpace([]byte(written)), []byte(" "))
	return string(name)
}

// canonicalReader reads lines of a known form.
type canonicalReader struct {
	file   string
	rest   []byte
	at     hcl.Pos
	failed bool
}

func (r *canonicalReader) skip(n int) {
	r.rest = r.rest[n:]
	r.at = hcl.Pos{Line: r.at.Line + 1, Column: 1, Byte: r.at.Byte + n}
}

// line passes over a line that is as given.
func (r *canonicalReader) line(want string) {
	if r.value(want, "").Value != "" {
		r.failed = true
	}
}

// value reads what stands between the parts of a line that are as given.
func (r *canonicalReader) value(before, after string) source.Item {
	end := bytes.IndexByte(r.rest, '\n')
	if end < 0 || r.failed {
		r.failed = true
		return source.Item{}
	}
	line := r.rest[:end]
	if len(line) < len(before)+len(after) || string(line[:len(before)]) != before || string(line[end-len(after):]) != after {
		r.failed = true
		return source.Item{}
	}
	value := line[len(before) : end-len(after)]
	for _, c := range value {
		// A quote ends a text, \, $ and % may begin what HCL replaces, and
		// characters beyond ASCII may share a column.
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '$' || c == '%' {
			r.failed = true
			return source.Item{}
		}
	}
	pos := func(column int) hcl.Pos {
		return hcl.Pos{Line: r.at.Line, Column: column + 1, Byte: r.at.Byte + column}
	}
	it := source.Item{Value: string(value), At: hcl.Range{Filename: r.file, Start: pos(len(before)), End: pos(end - len(after))}}
	r.skip(end + 1)
	return it
}
