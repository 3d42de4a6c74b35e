package config

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/crypto/ssh"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// lockReader builds a LockFile. moggy wrote the file, so what is wrong in it
// was done to it: by hand, by a merge, by a full disk.
type lockReader struct {
	*report
	file      *LockFile
	seen      map[fleet.NodeName]hcl.Range
	addresses map[netip.Addr]owner
	keys      map[fleet.Key]owner
	// onlyHCL reads every block through HCL, as a test of the short way.
	onlyHCL bool
}

func newLockReader(src Source) *lockReader {
	return &lockReader{
		report: newReport([]Source{src}), file: &LockFile{source: src, top: make(map[string]span), lock: &fleet.Lock{}},
		seen: make(map[fleet.NodeName]hcl.Range), addresses: make(map[netip.Addr]owner), keys: make(map[fleet.Key]owner),
	}
}

func (d *lockReader) parse() (*LockFile, Diagnostics) {
	if t := d.texts[0]; t.readable(d.report) {
		d.read(t)
	}
	list := d.finish()
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
func (d *lockReader) read(t *text) {
	first, open, before := true, hcl.Range{}, len(d.list)
	short := func(c chunk) bool {
		n, ok := canonicalNode(t.Name, c)
		if ok = ok && !first && !d.onlyHCL; ok {
			open = hcl.Range{}
			d.node(n)
		}
		return ok
	}
	t.parse(d.report, []string{"mesh", "node"}, short, func(b body) bool {
		open = hcl.Range{}
		if b.open {
			open = b.start()
		}
		if b.broken {
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
		d.list, d.unread = d.list[:before], nil
		d.mistake(open, restore(t.Name), "the lock ends within this block: it was cut off")
		return
	}
	d.checkRanges()
	slices.SortFunc(d.file.lock.Nodes, func(a, b fleet.NodeLock) int { return strings.Compare(string(a.Name), string(b.Name)) })
}

func (d *lockReader) body(b body) {
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
func (d *lockReader) checkRanges() {
	for addr, owner := range d.addresses {
		r := d.file.lock.Mesh.V4
		if addr.Is6() {
			r = d.file.lock.Mesh.V6
		}
		if r.IsValid() && !r.Contains(addr) {
			d.mistake(owner.at, "delete this line; moggy plan chooses a new one", "%s: %s is not in the mesh's range %s", lockName(owner.node), addr, r)
		}
	}
}

// restore is what helps when moggy's own file has lost something.
func restore(name string) string { return "take it from git again: git checkout -- " + name }

// version reads the format's number, which stands before the first block: of a
// newer format nothing else is understood.
func (d *lockReader) version(t *text, b body) bool {
	a := b.Attributes["version"]
	if a == nil {
		d.mistake(t.span(0, 0), restore(t.Name), "no version: this is no whole lock")
		return false
	}
	n, ok := d.whole("version", a)
	switch {
	case !ok:
	case n > LockVersion:
		d.mistake(a.Expr.Range(), "upgrade moggy", "the lock has format %d, and this moggy knows formats up to %d", n, LockVersion)
	case n < 1:
		d.mistake(a.Expr.Range(), "", "there is no format %d", n)
	default:
		d.file.lock.Version = n
		return true
	}
	return false
}

func (d *lockReader) attributes(b *hclsyntax.Body) {
	for name, a := range b.Attributes {
		if _, twice := d.file.top[name]; twice {
			d.mistake(a.NameRange, "", "%s is set twice", name)
		}
		d.file.top[name] = spanOf(a.Expr.Range())
		switch name {
		case "fleet":
			if it, ok := d.text("fleet", a); ok {
				d.file.lock.Fleet, d.file.name = fleet.Name(it.value), it.at
			}
		case "generation":
			d.file.lock.Generation, _ = d.whole("generation", a)
		}
	}
}

func (d *lockReader) block(b *hclsyntax.Block) lockBlock {
	out := lockBlock{
		whole: span{b.TypeRange.Start.Byte, b.CloseBraceRange.End.Byte},
		brace: span{b.OpenBraceRange.End.Byte, b.CloseBraceRange.Start.Byte},
		attrs: make(map[string]lockAttribute, len(b.Body.Attributes)),
	}
	for name, a := range b.Body.Attributes {
		out.attrs[name] = lockAttribute{spanOf(a.SrcRange), spanOf(a.Expr.Range())}
	}
	return out
}

func (d *lockReader) mesh(b *hclsyntax.Block) {
	at := hcl.RangeBetween(b.TypeRange, b.OpenBraceRange)
	if d.file.mesh != nil {
		d.mistake(at, "keep the one whose addresses the nodes have", "a second mesh block")
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
		if !ok || it.value == "" {
			return netip.Prefix{}
		}
		p, err := netip.ParsePrefix(it.value)
		if err != nil || p != p.Masked() || p.Addr().Is4() != (name == "v4") {
			d.mistake(it.at, "", "mesh: %s: %s is no such range", name, quoted(it.value))
			return netip.Prefix{}
		}
		return p
	}
	d.file.lock.Mesh = fleet.Ranges{V4: read("v4"), V6: read("v6")}
}

// lockNode is one node's block before its values are looked at.
type lockNode struct {
	name        item // with the range of type and name
	v4, v6, key item // without a value where the file has none
	arch        string
	generation  int
	hostKeys    []item
	block       lockBlock
}

func (n lockNode) String() string { return "node " + quoted(n.name.value) }

// nodeBlock takes a node's block apart.
func (d *lockReader) nodeBlock(b *hclsyntax.Block) lockNode {
	n := lockNode{name: item{b.Labels[0], hcl.RangeBetween(b.TypeRange, b.LabelRanges[0])}, block: d.block(b)}
	attrs := b.Body.Attributes
	text := func(name string) item {
		if a := attrs[name]; a != nil {
			it, _ := d.text(n.String()+": "+name, a)
			return it
		}
		return item{}
	}
	n.v4, n.v6, n.key, n.arch = text("v4"), text("v6"), text("mesh_key"), text("arch").value
	if a := attrs["generation"]; a != nil {
		n.generation, _ = d.whole(n.String()+": generation", a)
	}
	if a := attrs["host_keys"]; a != nil {
		n.hostKeys = d.hostKeyItems(n, a)
	}
	return n
}

func (d *lockReader) hostKeyItems(n lockNode, a *hclsyntax.Attribute) []item {
	tuple, ok := bare(a.Expr).(*hclsyntax.TupleConsExpr)
	if !ok {
		_, is := literal(a.Expr)
		d.mistake(a.Expr.Range(), "", "%s: host_keys is a list, not %s", n, is)
		return nil
	}
	var out []item
	for _, e := range tuple.Exprs {
		it := item{at: e.Range()}
		if v, is := literal(e); is == isText {
			it.value = v.AsString()
		}
		out = append(out, it)
	}
	return out
}

// node takes a node into the lock.
func (d *lockReader) node(n lockNode) {
	name := fleet.NodeName(n.name.value)
	if first, twice := d.seen[name]; twice {
		d.mistake(n.name.at, "keep the block whose keys the node has", "%s: there is one already at %s", n, place(first))
		return
	}
	d.seen[name] = n.name.at
	if why := wrongName(n.name.value); why != "" {
		d.mistake(n.name.at, "", "%s: no DNS label: %s", n, why)
	}
	out := fleet.NodeLock{
		Name: name, V4: d.address(n, "v4", n.v4), V6: d.address(n, "v6", n.v6), MeshKey: d.key(n),
		Arch: n.arch, Generation: n.generation,
	}
	for _, it := range n.hostKeys {
		if !hostKey(it.value) {
			d.mistake(it.at, "delete it; moggy apply asks the node again", "%s: no SSH host key", n)
			continue
		}
		out.HostKeys = append(out.HostKeys, it.value)
	}
	n.block.name = name
	d.file.nodes = append(d.file.nodes, n.block)
	d.file.lock.Nodes = append(d.file.lock.Nodes, out)
}

func (d *lockReader) address(n lockNode, name string, it item) netip.Addr {
	if it.value == "" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(it.value)
	if err != nil || addr.Is4() != (name == "v4") || addr.Is4In6() || addr.Zone() != "" {
		d.mistake(it.at, "", "%s: %s: %s is no such address", n, name, quoted(it.value))
		return netip.Addr{}
	}
	if first, taken := d.addresses[addr]; taken {
		d.mistake(it.at, "after a merge: delete this line and the node's other address; moggy plan chooses new ones",
			"%s: %s is the address of %s already (%s)", n, addr, lockName(first.node), place(first.at))
		return netip.Addr{}
	}
	d.addresses[addr] = owner{fleet.NodeName(n.name.value), it.at}
	return addr
}

func lockName(name fleet.NodeName) string { return "node " + quoted(string(name)) }

func (d *lockReader) key(n lockNode) fleet.Key {
	it := n.key
	if it.value == "" {
		return fleet.Key{}
	}
	k, err := fleet.ParseKey(it.value)
	if err != nil || k.IsZero() {
		d.mistake(it.at, "delete this line; moggy apply asks the node again", "%s: mesh_key is no WireGuard key (32 bytes in base64)", n)
		return fleet.Key{}
	}
	if first, taken := d.keys[k]; taken {
		d.mistake(it.at, "delete the line of the node that does not have it", "%s: this is the key of %s already (%s)", n, lockName(first.node), place(first.at))
		return fleet.Key{}
	}
	d.keys[k] = owner{fleet.NodeName(n.name.value), it.at}
	return k
}

// hostKey says whether s is "TYPE BASE64" of a public key.
func hostKey(s string) bool {
	pub, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(s))
	return err == nil && comment == "" && len(options) == 0 && len(rest) == 0 &&
		strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))) == s
}

func (d *lockReader) text(subject string, a *hclsyntax.Attribute) (item, bool) {
	v, is := literal(a.Expr)
	if is != isText {
		d.mistake(a.Expr.Range(), "", "%s is a text, not %s", subject, is)
		return item{}, false
	}
	return item{v.AsString(), a.Expr.Range()}, true
}

func (d *lockReader) whole(subject string, a *hclsyntax.Attribute) (int, bool) {
	v, is := literal(a.Expr)
	if is == isNumber && v.Type() == cty.Number {
		if n, accuracy := v.AsBigFloat().Int64(); accuracy == 0 && n >= 0 && n <= maxGeneration {
			return int(n), true
		}
	}
	d.mistake(a.Expr.Range(), "", "%s is a whole number", subject)
	return 0, false
}

// maxGeneration is more than anybody applies, and no overflow anywhere.
const maxGeneration = 1 << 31
