package lock

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/crypto/ssh"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// reader builds a File. moggy wrote the file, so what is wrong in it
// was done to it: by hand, by a merge, by a full disk.
type reader struct {
	*source.Report
	file      *File
	seen      map[fleet.NodeName]hcl.Range
	addresses map[netip.Addr]owner
	keys      map[fleet.Key]owner
	// onlyHCL reads every block through HCL, as a test of the short way.
	onlyHCL bool
}

func newReader(src source.Text) *reader {
	return &reader{
		Report: source.NewReport([]source.Text{src}), file: &File{text: src, top: make(map[string]span), lock: &fleet.Lock{}},
		seen: make(map[fleet.NodeName]hcl.Range), addresses: make(map[netip.Addr]owner), keys: make(map[fleet.Key]owner),
	}
}

func (d *reader) parse() (*File, source.Diagnostics) {
	if t := d.Texts[0]; t.Readable(d.Report) {
		d.read(t)
	}
	list := d.Finish()
	if list.Mistakes() > 0 {
		return nil, list
	}
	return d.file, list
}

// owner is the node that has something, and where it says so.
type owner struct {
	node fleet.NodeName
	at   hcl.Range
}

// read takes one block after the other, so that a large lock's syntax trees are
// not all in memory at once.
func (d *reader) read(t *source.Text) {
	first, open, before := true, hcl.Range{}, d.Len()
	short := func(c source.Chunk) bool {
		n, ok := canonicalNode(t.Name, c)
		if ok = ok && !first && !d.onlyHCL; ok {
			open = hcl.Range{}
			d.node(n)
		}
		return ok
	}
	t.Parse(d.Report, []string{"mesh", "node"}, short, func(b source.Body) bool {
		open = hcl.Range{}
		if b.Open {
			open = b.Start()
		}
		if b.Broken {
			return true
		}
		if first && !d.version(t, b) {
			return false
		}
		first = false
		d.body(b)
		return true
	})
	if open.Filename != "" {
		// All else is a consequence, but for a private key that was found before.
		d.Forget(before)
		d.Mistake(open, source.Restore(t.Name), "the lock ends within this block: it was cut off")
		return
	}
	d.checkRanges()
	slices.SortFunc(d.file.lock.Nodes, func(a, b fleet.NodeLock) int { return strings.Compare(string(a.Name), string(b.Name)) })
}

func (d *reader) body(b source.Body) {
	d.attributes(b.Body)
	for _, block := range b.Blocks {
		switch {
		case block.Type == "mesh" && len(block.Labels) == 0:
			d.mesh(block)
		case block.Type == "node" && len(block.Labels) == 1:
			d.node(d.nodeBlock(block))
		}
	}
}

// checkRanges reports addresses outside of the mesh's ranges, which may stand
// anywhere in the file.
func (d *reader) checkRanges() {
	for addr, owner := range d.addresses {
		r := d.file.lock.Mesh.V4
		if addr.Is6() {
			r = d.file.lock.Mesh.V6
		}
		if r.IsValid() && !r.Contains(addr) {
			d.Mistake(owner.at, "delete this line; moggy plan chooses a new one", "%s: %s is not in the mesh's range %s", nodeName(owner.node), addr, r)
		}
	}
}

// version reads the format's number, which stands before the first block: of a
// newer format nothing else is understood.
func (d *reader) version(t *source.Text, b source.Body) bool {
	a := b.Attributes["version"]
	if a == nil {
		d.Mistake(t.Span(0, 0), source.Restore(t.Name), "no version: this is no whole lock")
		return false
	}
	n, ok := d.whole("version", a)
	switch {
	case !ok:
	case n > Version:
		d.Mistake(a.Expr.Range(), "upgrade moggy", "the lock has format %d, and this moggy knows formats up to %d", n, Version)
	case n < 1:
		d.Mistake(a.Expr.Range(), "", "there is no format %d", n)
	default:
		d.file.lock.Version = n
		return true
	}
	return false
}

func (d *reader) attributes(b *hclsyntax.Body) {
	for name, a := range b.Attributes {
		if _, twice := d.file.top[name]; twice {
			d.Mistake(a.NameRange, "", "%s is set twice", name)
		}
		d.file.top[name] = spanOf(a.Expr.Range())
		switch name {
		case "fleet":
			if it, ok := d.text("fleet", a); ok {
				d.file.lock.Fleet, d.file.name = fleet.Name(it.Value), it.At
			}
		case "generation":
			d.file.lock.Generation, _ = d.whole("generation", a)
		}
	}
}

func (d *reader) block(b *hclsyntax.Block) block {
	out := block{
		whole: span{b.TypeRange.Start.Byte, b.CloseBraceRange.End.Byte},
		brace: span{b.OpenBraceRange.End.Byte, b.CloseBraceRange.Start.Byte},
		attrs: make(map[string]attributeSpan, len(b.Body.Attributes)),
	}
	for name, a := range b.Body.Attributes {
		out.attrs[name] = attributeSpan{spanOf(a.SrcRange), spanOf(a.Expr.Range())}
	}
	return out
}

func (d *reader) mesh(b *hclsyntax.Block) {
	at := hcl.RangeBetween(b.TypeRange, b.OpenBraceRange)
	if d.file.mesh != nil {
		d.Mistake(at, "keep the one whose addresses the nodes have", "a second mesh block")
		return
	}
	block := d.block(b)
	d.file.mesh = &block
	read := func(name string) netip.Prefix {
		a := b.Body.Attributes[name]
		if a == nil {
			return netip.Prefix{}
		}
		it, ok := d.text("mesh: "+name, a)
		if !ok || it.Value == "" {
			return netip.Prefix{}
		}
		p, err := netip.ParsePrefix(it.Value)
		if err != nil || p != p.Masked() || p.Addr().Is4() != (name == "v4") {
			d.Mistake(it.At, "", "mesh: %s: %s is no such range", name, source.Quoted(it.Value))
			return netip.Prefix{}
		}
		return p
	}
	d.file.lock.Mesh = fleet.Ranges{V4: read("v4"), V6: read("v6")}
}

// node is one node's block before its values are looked at.
type node struct {
	name        source.Item // with the range of type and name
	v4, v6, key source.Item // without a value where the file has none
	next, old   source.Item // other mesh keys
	gone        source.Item
	ca          source.Item // in base64
	arch        string
	generation  int
	hostKeys    []source.Item
	block       block
}

func (n node) String() string { return "node " + source.Quoted(n.name.Value) }

// nodeBlock takes a node's block apart.
func (d *reader) nodeBlock(b *hclsyntax.Block) node {
	n := node{name: source.Item{Value: b.Labels[0], At: hcl.RangeBetween(b.TypeRange, b.LabelRanges[0])}, block: d.block(b)}
	attrs := b.Body.Attributes
	text := func(name string) source.Item {
		if a := attrs[name]; a != nil {
			it, _ := d.text(n.String()+": "+name, a)
			return it
		}
		return source.Item{}
	}
	n.v4, n.v6, n.key, n.arch = text("v4"), text("v6"), text("mesh_key"), text("arch").Value
	n.next, n.old, n.gone = text("next_key"), text("old_key"), text("gone_key")
	n.ca = text("ca")
	if a := attrs["generation"]; a != nil {
		n.generation, _ = d.whole(n.String()+": generation", a)
	}
	if a := attrs["host_keys"]; a != nil {
		n.hostKeys = d.hostKeyItems(n, a)
	}
	return n
}

func (d *reader) hostKeyItems(n node, a *hclsyntax.Attribute) []source.Item {
	tuple, ok := source.Bare(a.Expr).(*hclsyntax.TupleConsExpr)
	if !ok {
		_, is := source.Literal(a.Expr)
		d.Mistake(a.Expr.Range(), "", "%s: host_keys is a list, not %s", n, is)
		return nil
	}
	var out []source.Item
	for _, e := range tuple.Exprs {
		it := source.Item{At: e.Range()}
		if v, is := source.Literal(e); is == source.IsText {
			it.Value = v.AsString()
		}
		out = append(out, it)
	}
	return out
}

// node takes a node into the lock.
func (d *reader) node(n node) {
	name := fleet.NodeName(n.name.Value)
	if first, twice := d.seen[name]; twice {
		d.Mistake(n.name.At, "keep the block whose keys the node has", "%s: there is one already at %s", n, source.Place(first))
		return
	}
	d.seen[name] = n.name.At
	if why := source.WrongName(n.name.Value); why != "" {
		d.Mistake(n.name.At, "", "%s: no DNS label: %s", n, why)
	}
	out := fleet.NodeLock{
		Name: name, V4: d.address(n, "v4", n.v4), V6: d.address(n, "v6", n.v6), MeshKey: d.key(n, "mesh_key", n.key),
		NextKey: d.key(n, "next_key", n.next), OldKey: d.key(n, "old_key", n.old), GoneKey: d.key(n, "gone_key", n.gone),
		Arch: n.arch, Generation: n.generation, CA: d.certificate(n),
	}
	var others []source.Item
	for _, it := range []source.Item{n.next, n.old, n.gone} {
		if it.Value != "" {
			others = append(others, it)
		}
	}
	if len(others) > 1 {
		d.Mistake(others[1].At, "keep the one of the branch whose mesh_key the node has; then moggy rotate",
			"%s: of next_key, old_key and gone_key there is one at a time", n)
	}
	for _, it := range n.hostKeys {
		if !hostKey(it.Value) {
			d.Mistake(it.At, "delete it; moggy apply asks the node again", "%s: no SSH host key", n)
			continue
		}
		out.HostKeys = append(out.HostKeys, it.Value)
	}
	n.block.name = name
	d.file.nodes = append(d.file.nodes, n.block)
	d.file.lock.Nodes = append(d.file.lock.Nodes, out)
}

// certificate is that of the node's authority. What it says is judged where it is
// used: a wrong one is asked for again.
func (d *reader) certificate(n node) []byte {
	if n.ca.Value == "" {
		return nil
	}
	der, err := base64.StdEncoding.Strict().DecodeString(n.ca.Value)
	if err != nil {
		d.Mistake(n.ca.At, "delete it; moggy apply asks the node again", "%s: ca is no certificate in base64", n)
		return nil
	}
	return der
}

func (d *reader) address(n node, name string, it source.Item) netip.Addr {
	if it.Value == "" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(it.Value)
	if err != nil || addr.Is4() != (name == "v4") || addr.Is4In6() || addr.Zone() != "" {
		d.Mistake(it.At, "", "%s: %s: %s is no such address", n, name, source.Quoted(it.Value))
		return netip.Addr{}
	}
	if first, taken := d.addresses[addr]; taken {
		d.Mistake(it.At, "after a merge: delete this line and the node's other address; moggy plan chooses new ones",
			"%s: %s is the address of %s already (%s)", n, addr, nodeName(first.node), source.Place(first.at))
		return netip.Addr{}
	}
	d.addresses[addr] = owner{fleet.NodeName(n.name.Value), it.At}
	return addr
}

func nodeName(name fleet.NodeName) string { return "node " + source.Quoted(string(name)) }

func (d *reader) key(n node, name string, it source.Item) fleet.Key {
	if it.Value == "" {
		return fleet.Key{}
	}
	k, err := fleet.ParseKey(it.Value)
	if err != nil || k.IsZero() {
		d.Mistake(it.At, "delete this line; moggy apply asks the node again", "%s: %s is no WireGuard key (32 bytes in base64)", n, name)
		return fleet.Key{}
	}
	if first, taken := d.keys[k]; taken {
		d.Mistake(it.At, "delete the line of the node that does not have it", "%s: this is the key of %s already (%s)", n, nodeName(first.node), source.Place(first.at))
		return fleet.Key{}
	}
	d.keys[k] = owner{fleet.NodeName(n.name.Value), it.At}
	return k
}

// hostKey says whether s is "TYPE BASE64" of a public key.
func hostKey(s string) bool {
	pub, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(s))
	return err == nil && comment == "" && len(options) == 0 && len(rest) == 0 &&
		strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))) == s
}

func (d *reader) text(subject string, a *hclsyntax.Attribute) (source.Item, bool) {
	v, is := source.Literal(a.Expr)
	if is != source.IsText {
		d.Mistake(a.Expr.Range(), "", "%s is a text, not %s", subject, is)
		return source.Item{}, false
	}
	return source.Item{Value: v.AsString(), At: a.Expr.Range()}, true
}

func (d *reader) whole(subject string, a *hclsyntax.Attribute) (int, bool) {
	v, is := source.Literal(a.Expr)
	if is == source.IsNumber && v.Type() == cty.Number {
		if n, accuracy := v.AsBigFloat().Int64(); accuracy == 0 && n >= 0 && n <= maxGeneration {
			return int(n), true
		}
	}
	d.Mistake(a.Expr.Range(), "", "%s is a whole number", subject)
	return 0, false
}

// maxGeneration is more than anybody applies, and no overflow anywhere.
const maxGeneration = 1 << 31
