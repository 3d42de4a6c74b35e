package lock

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Update changes the file's text so that it says lock, and returns it. What is
// not understood, comments, and the order stay byte for byte; a node that is
// new goes to its place in the alphabet, so that two branches that each add
// one rarely conflict. It fails where the lock is one that Parse refuses,
// and changes nothing then.
func (l *File) Update(lock *fleet.Lock) ([]byte, error) {
	text := l.text.Content
	if len(text) == 0 {
		text = fresh(lock)
	} else {
		e := &edits{old: text}
		l.edit(e, lock)
		text = e.apply()
	}
	next, diags := Parse(source.Text{Name: l.text.Name, Content: text})
	if diags.Mistakes() > 0 {
		d := diags[0]
		return nil, fmt.Errorf("%s: not written: %s", l.text.Name, d.Message)
	}
	*l = *next
	return slices.Clone(text), nil
}

// fresh is the text of a lock's first version.
func fresh(lock *fleet.Lock) []byte {
	var b strings.Builder
	b.WriteString(header)
	fmt.Fprintf(&b, "version    = %d\nfleet      = %q\ngeneration = %d\n", Version, lock.Fleet, lock.Generation)
	b.WriteString("\n" + meshText(lock.Mesh) + "\n")
	for _, n := range lock.Nodes {
		b.WriteString("\n" + nodeText(n) + "\n")
	}
	return []byte(b.String())
}

func meshText(r fleet.Ranges) string {
	return fmt.Sprintf("mesh {\n  v4 = %s\n  v6 = %s\n}", prefixText(r.V4), prefixText(r.V6))
}

func nodeText(n fleet.NodeLock) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %q {\n", n.Name)
	for _, a := range nodeAttributes(n) {
		if a.value == "" {
			continue
		}
		if a.name == "host_keys" { // of many lines: not aligned with the others
			fmt.Fprintf(&b, "  %s = %s\n", a.name, a.value)
			continue
		}
		fmt.Fprintf(&b, "  %-10s = %s\n", a.name, a.value)
	}
	b.WriteString("}")
	return b.String()
}

// attribute is one as it is written.
type attribute struct{ name, value string }

// nodeAttributes are all of a node, the unknown ones empty: so a change is a
// change of one line. Those that a node has only while its key is rotated have no
// value when it is not, and are not written.
func nodeAttributes(n fleet.NodeLock) []attribute {
	var keys strings.Builder
	keys.WriteString("[\n")
	for _, k := range n.HostKeys {
		fmt.Fprintf(&keys, "    %s,\n", source.QuoteHCL(k))
	}
	keys.WriteString("  ]")
	return []attribute{
		{"v4", addrText(n.V4)},
		{"v6", addrText(n.V6)},
		{"mesh_key", source.QuoteHCL(n.MeshKey.String())},
		{"next_key", keyText(n.NextKey)},
		{"old_key", keyText(n.OldKey)},
		{"gone_key", keyText(n.GoneKey)},
		{"arch", source.QuoteHCL(n.Arch)},
		{"generation", fmt.Sprint(n.Generation)},
		{"ca", bytesText(n.CA)},
		{"host_keys", keys.String()},
	}
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return `""`
	}
	return source.QuoteHCL(a.String())
}

// keyText is a key that is written only where there is one.
func keyText(k fleet.Key) string {
	if k.IsZero() {
		return ""
	}
	return source.QuoteHCL(k.String())
}

// bytesText is what is written only where there is any, in base64.
func bytesText(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return source.QuoteHCL(base64.StdEncoding.EncodeToString(b))
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return `""`
	}
	return source.QuoteHCL(p.String())
}

// edit collects what must change.
func (l *File) edit(e *edits, lock *fleet.Lock) {
	old := l.lock
	e.top(l.top, "version", fmt.Sprint(Version), old.Version != Version)
	e.top(l.top, "fleet", source.QuoteHCL(string(lock.Fleet)), old.Fleet != lock.Fleet)
	e.top(l.top, "generation", fmt.Sprint(lock.Generation), old.Generation != lock.Generation)
	switch {
	case old.Mesh == lock.Mesh:
	case l.mesh == nil:
		e.insert(e.topEnd(l.top), meshText(lock.Mesh))
	default:
		e.set(*l.mesh, []attribute{{"v4", prefixText(lock.Mesh.V4)}, {"v6", prefixText(lock.Mesh.V6)}},
			[]attribute{{"v4", prefixText(old.Mesh.V4)}, {"v6", prefixText(old.Mesh.V6)}})
	}
	known := make(map[fleet.NodeName]bool, len(l.nodes))
	var kept []block
	for _, b := range l.nodes {
		i, ok := slices.BinarySearchFunc(lock.Nodes, b.name, byName)
		if !ok {
			e.remove(b.whole)
			continue
		}
		known[b.name] = true
		kept = append(kept, b)
		e.set(b, nodeAttributes(lock.Nodes[i]), nodeAttributes(old.Node(b.name)))
	}
	after := sortedBlocks(kept)
	for _, n := range lock.Nodes {
		if known[n.Name] {
			continue
		}
		i, _ := slices.BinarySearchFunc(after, n.Name, func(b block, want fleet.NodeName) int { return cmp.Compare(b.name, want) })
		at := len(e.old)
		if i < len(after) {
			at = e.withComment(after[i].whole.start)
		}
		e.insert(at, nodeText(n))
	}
}

func byName(n fleet.NodeLock, want fleet.NodeName) int { return cmp.Compare(n.Name, want) }

// sortedBlocks are the blocks that stand in the order of the alphabet, seen
// from the start: a new one goes before the first that is greater.
func sortedBlocks(blocks []block) []block {
	var out []block
	for _, b := range blocks {
		if len(out) == 0 || out[len(out)-1].name < b.name {
			out = append(out, b)
		}
	}
	return out
}

// edits are changes to a text, each to a part of its own.
type edits struct {
	old  []byte
	list []edit
}

type edit struct {
	span
	text string
}

// top changes an attribute outside of blocks, or adds it in front of all.
func (e *edits) top(have map[string]span, name, value string, changed bool) {
	at, ok := have[name]
	switch {
	case !changed:
	case ok:
		e.list = append(e.list, edit{at, value})
	default:
		e.list = append(e.list, edit{span{0, 0}, name + " = " + value + "\n"})
	}
}

// set changes those attributes of a block whose value is another now.
func (e *edits) set(b block, now, old []attribute) {
	var missing []attribute
	for i, a := range now {
		have, ok := b.attrs[a.name]
		switch {
		case a.value == old[i].value:
		case ok && a.value == "":
			e.drop(have.whole)
		case ok:
			e.list = append(e.list, edit{have.value, a.value})
		default:
			missing = append(missing, a)
		}
	}
	if len(missing) == 0 {
		return
	}
	var text strings.Builder
	for _, a := range missing {
		fmt.Fprintf(&text, "  %s = %s\n", a.name, a.value)
	}
	// The braces of a block on one line must part first.
	at := b.brace.end
	if !bytes.ContainsRune(e.old[b.brace.start:b.brace.end], '\n') {
		inner := bytes.TrimSpace(e.old[b.brace.start:b.brace.end])
		if len(inner) > 0 {
			e.list = append(e.list, edit{span{b.brace.start, b.brace.start}, "\n "})
		}
		e.list = append(e.list, edit{span{at, at}, "\n" + text.String()})
		return
	}
	e.list = append(e.list, edit{span{at, at}, text.String()})
}

// drop takes an attribute out, with its line where that is all it has.
func (e *edits) drop(s span) {
	line := bytes.LastIndexByte(e.old[:s.start], '\n') + 1
	if end := e.lineEnd(s.end); len(bytes.TrimSpace(e.old[line:s.start])) == 0 && bytes.HasSuffix(e.old[:end], []byte("\n")) {
		s = span{line, end}
	}
	e.list = append(e.list, edit{s, ""})
}

// topEnd is the offset behind the last attribute outside of blocks, where an
// inserted block parts it from the next.
func (e *edits) topEnd(have map[string]span) int {
	end := 0
	for _, s := range have {
		end = max(end, e.lineEnd(s.end))
	}
	return end
}

// insert puts a block before the offset, with an empty line between it and
// its neighbours.
func (e *edits) insert(at int, text string) {
	if at < len(e.old) {
		e.list = append(e.list, edit{span{at, at}, text + "\n\n"})
		return
	}
	lead := "\n"
	if len(e.old) > 0 && e.old[len(e.old)-1] != '\n' {
		lead = "\n\n"
	}
	e.list = append(e.list, edit{span{at, at}, lead + text + "\n"})
}

// remove takes out a block with the comment that stands on it, and the empty
// line that parted it from its neighbour.
func (e *edits) remove(s span) {
	s.start = e.withComment(s.start)
	s.end = e.lineEnd(s.end)
	for s.start > 1 && e.old[s.start-1] == '\n' && e.old[s.start-2] == '\n' {
		s.start--
	}
	e.list = append(e.list, edit{s, ""})
}

// withComment is the start of the comment lines directly above the line of an
// offset, or of that line.
func (e *edits) withComment(at int) int {
	start := bytes.LastIndexByte(e.old[:at], '\n') + 1
	for start > 0 {
		above := bytes.LastIndexByte(e.old[:start-1], '\n') + 1
		line := bytes.TrimSpace(e.old[above : start-1])
		if !bytes.HasPrefix(line, []byte("#")) && !bytes.HasPrefix(line, []byte("//")) {
			break
		}
		start = above
	}
	return start
}

// lineEnd is the offset behind the newline that ends the line.
func (e *edits) lineEnd(at int) int {
	if i := bytes.IndexByte(e.old[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(e.old)
}

// apply returns the text with all edits made.
func (e *edits) apply() []byte {
	slices.SortStableFunc(e.list, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	var out bytes.Buffer
	at := 0
	for _, c := range e.list {
		out.Write(e.old[at:c.start])
		out.WriteString(c.text)
		at = c.end
	}
	out.Write(e.old[at:])
	return out.Bytes()
}
