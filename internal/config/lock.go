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

// LockVersion is the format of the lock this release writes.
const LockVersion = 1

// LockFile is fleet.lock.hcl: what it says, and its text, so that an update
// changes nothing else in it.
//
//	version    = 1
//	fleet      = "cats"
//	generation = 42
//
//	mesh {
//	  v4 = "10.77.0.0/16"
//	  v6 = "fd7a:6d6f:6767::/48"
//	}
//
//	node "cosmo" {
//	  v4         = "10.77.0.1"
//	  v6         = "fd7a:6d6f:6767::1"
//	  mesh_key   = "..."
//	  arch       = "amd64"
//	  generation = 42
//	  host_keys = [
//	    "ssh-ed25519 AAAA...",
//	  ]
//	}
type LockFile struct {
	source Source
	lock   *fleet.Lock
	top    map[string]span // the attributes outside of blocks
	mesh   *lockBlock
	nodes  []lockBlock // in the order of the file
	name   hcl.Range   // where it says whose it is
}

// span is a part of the text, in bytes; the end is exclusive.
type span struct{ start, end int }

func spanOf(r hcl.Range) span { return span{r.Start.Byte, r.End.Byte} }

// lockBlock is where one block of the lock stands.
type lockBlock struct {
	name  fleet.NodeName
	whole span // from its type to its closing brace
	brace span // what stands between the braces
	attrs map[string]lockAttribute
}

type lockAttribute struct {
	whole, value span
	equals       int // offset of its =
}

const lockHeader = `# What moggy derived once and keeps: addresses, public keys, generation numbers.
# moggy writes this file; commit it beside the fleet's. It holds no secrets.

`

// NewLock returns the lock of a fleet that has none yet, to be written to the
// file of that name.
func NewLock(name string) *LockFile {
	return &LockFile{source: Source{Name: name}, lock: &fleet.Lock{Version: LockVersion}}
}

// Name is the file's name, as it was given.
func (l *LockFile) Name() string { return l.source.Name }

// Text is the file's content. It is empty in a new one.
func (l *LockFile) Text() []byte { return slices.Clone(l.source.Content) }

// Lock returns what the file says. The caller may change it.
func (l *LockFile) Lock() *fleet.Lock { return l.lock.Clone() }

// ParseLock reads a lock. Where one of the diagnostics is a mistake there is
// no lock. Blocks and attributes that are not known are kept and passed over:
// a later release may have written them.
func ParseLock(src Source) (*LockFile, Diagnostics) {
	d := &lockReader{
		report: newReport([]Source{src}), file: &LockFile{source: src, top: make(map[string]span), lock: &fleet.Lock{}},
		seen: make(map[fleet.NodeName]hcl.Range), addresses: make(map[netip.Addr]owner), keys: make(map[fleet.Key]owner),
	}
	t := d.texts[0]
	if t.readable(d.report) {
		d.read(t)
	}
	list := d.finish()
	if list.Mistakes() > 0 {
		return nil, list
	}
	return d.file, list
}

// Check reports a lock that is not this fleet's.
func (l *LockFile) Check(f *fleet.Fleet) Diagnostics {
	if l.lock.Fleet == "" || l.lock.Fleet == f.Name {
		return nil
	}
	r := newReport([]Source{l.source})
	r.mistake(l.name, "a renamed fleet needs its new name here too", "this is the lock of the fleet %q, and the file describes %q", l.lock.Fleet, f.Name)
	return r.finish()
}

// lockReader builds a LockFile. moggy wrote the file, so what is wrong in it
// was done to it: by hand, by a merge, by a full disk.
type lockReader struct {
	*report
	file      *LockFile
	seen      map[fleet.NodeName]hcl.Range
	addresses map[netip.Addr]owner
	keys      map[fleet.Key]owner
	late      []func() // checks that need the whole file
}

// owner is the node that has something, and where it says so.
type owner struct {
	node fleet.NodeName
	at   hcl.Range
}

func (d *lockReader) read(t *text) {
	var bodies []body
	whole, open := 0, false
	t.parse(d.report, []string{"mesh", "node"}, func(b body) bool {
		if open = b.open; !open {
			whole = len(d.list)
		}
		bodies = append(bodies, b)
		return len(bodies) > 1 || b.broken || d.version(t, b)
	})
	if open {
		d.list = d.list[:whole]
		d.mistake(bodies[len(bodies)-1].start(), restore(t.Name), "the lock ends within this block: it was cut off")
	}
	if len(d.list) > 0 { // each further mistake would be a consequence
		return
	}
	for _, b := range bodies {
		d.attributes(b.Body)
		for _, block := range b.Blocks {
			switch {
			case block.Type == "mesh" && len(block.Labels) == 0:
				d.mesh(block)
			case block.Type == "node" && len(block.Labels) == 1:
				d.node(block)
			}
		}
	}
	for _, check := range d.late {
		check()
	}
	slices.SortFunc(d.file.lock.Nodes, func(a, b fleet.NodeLock) int { return strings.Compare(string(a.Name), string(b.Name)) })
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
		out.attrs[name] = lockAttribute{spanOf(a.SrcRange), spanOf(a.Expr.Range()), a.EqualsRange.Start.Byte}
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

func (d *lockReader) node(b *hclsyntax.Block) {
	n := fleet.NodeLock{Name: fleet.NodeName(b.Labels[0])}
	at := hcl.RangeBetween(b.TypeRange, b.LabelRanges[0])
	if first, twice := d.seen[n.Name]; twice {
		d.mistake(at, "keep the block whose keys the node has", "%s: there is one already at %s", lockNode(n.Name), place(first))
		return
	}
	d.seen[n.Name] = at
	if why := wrongName(string(n.Name)); why != "" {
		d.mistake(at, "", "%s: no DNS label: %s", lockNode(n.Name), why)
	}
	subject := lockNode(n.Name) + ": "
	attrs := b.Body.Attributes
	n.V4 = d.address(n.Name, "v4", attrs["v4"])
	n.V6 = d.address(n.Name, "v6", attrs["v6"])
	n.MeshKey = d.key(n.Name, attrs["mesh_key"])
	if a := attrs["arch"]; a != nil {
		it, _ := d.text(subject+"arch", a)
		n.Arch = it.value
	}
	if a := attrs["generation"]; a != nil {
		n.Generation, _ = d.whole(subject+"generation", a)
	}
	if a := attrs["host_keys"]; a != nil {
		n.HostKeys = d.hostKeys(subject, a)
	}
	block := d.block(b)
	block.name = n.Name
	d.file.nodes = append(d.file.nodes, block)
	d.file.lock.Nodes = append(d.file.lock.Nodes, n)
}

func lockNode(name fleet.NodeName) string { return "node " + quoted(string(name)) }

func (d *lockReader) address(node fleet.NodeName, name string, a *hclsyntax.Attribute) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	it, ok := d.text(lockNode(node)+": "+name, a)
	if !ok || it.value == "" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(it.value)
	if err != nil || addr.Is4() != (name == "v4") || addr.Is4In6() || addr.Zone() != "" {
		d.mistake(it.at, "", "%s: %s: %s is no such address", lockNode(node), name, quoted(it.value))
		return netip.Addr{}
	}
	if first, taken := d.addresses[addr]; taken {
		d.mistake(it.at, "after a merge: delete this line and the node's other address; moggy plan chooses new ones",
			"%s: %s is the address of %s already (%s)", lockNode(node), addr, lockNode(first.node), place(first.at))
		return netip.Addr{}
	}
	d.addresses[addr] = owner{node, it.at}
	d.late = append(d.late, func() {
		r := d.file.lock.Mesh.V4
		if addr.Is6() {
			r = d.file.lock.Mesh.V6
		}
		if r.IsValid() && !r.Contains(addr) {
			d.mistake(it.at, "delete this line; moggy plan chooses a new one", "%s: %s is not in the mesh's range %s", lockNode(node), addr, r)
		}
	})
	return addr
}

func (d *lockReader) key(node fleet.NodeName, a *hclsyntax.Attribute) fleet.Key {
	if a == nil {
		return fleet.Key{}
	}
	it, ok := d.text(lockNode(node)+": mesh_key", a)
	if !ok || it.value == "" {
		return fleet.Key{}
	}
	k, err := fleet.ParseKey(it.value)
	if err != nil || k.IsZero() {
		d.mistake(it.at, "delete this line; moggy apply asks the node again", "%s: mesh_key is no WireGuard key (32 bytes in base64)", lockNode(node))
		return fleet.Key{}
	}
	if first, taken := d.keys[k]; taken {
		d.mistake(it.at, "delete the line of the node that does not have it", "%s: this is the key of %s already (%s)", lockNode(node), lockNode(first.node), place(first.at))
		return fleet.Key{}
	}
	d.keys[k] = owner{node, it.at}
	return k
}

func (d *lockReader) hostKeys(subject string, a *hclsyntax.Attribute) []string {
	tuple, ok := bare(a.Expr).(*hclsyntax.TupleConsExpr)
	if !ok {
		_, is := literal(a.Expr)
		d.mistake(a.Expr.Range(), "", "%shost_keys is a list, not %s", subject, is)
		return nil
	}
	var out []string
	for _, e := range tuple.Exprs {
		v, is := literal(e)
		if is != isText || !hostKey(v.AsString()) {
			d.mistake(e.Range(), "delete it; moggy apply asks the node again", "%sno SSH host key", subject)
			continue
		}
		out = append(out, v.AsString())
	}
	return out
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
