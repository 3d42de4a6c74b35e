package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// kind is one type of top-level block. A new one is a file with a function
// that returns its kind, and a line in kinds.
type kind struct {
	name       string
	attributes []string          // in the order they are usually written
	aliases    map[string]string // what people write for an attribute
	decode     func(*decoder, *block)
}

// kinds are the block types in the order they are decoded.
func kinds() []kind { return []kind{siteKind(), fleetKind(), nodeKind(), allowKind(), serviceKind()} }

// kindAliases are words people use for a block type.
func kindAliases() map[string]string {
	return map[string]string{
		"cluster": "fleet", "server": "node", "host": "node", "machine": "node", "vm": "node",
		"datacenter": "site", "location": "site", "home": "site", "region": "site",
		"firewall": "allow", "acl": "allow", "rule": "allow", "access": "allow", "permit": "allow", "accept": "allow",
		"app": "service", "job": "service", "container": "service", "workload": "service", "task": "service",
	}
}

// block is a named top-level block.
type block struct {
	kind   string
	name   string
	at     hcl.Range // its type and name
	nameAt hcl.Range
	body   *hclsyntax.Body
	broken bool // with a syntax mistake: what seems missing may be there
}

func (b *block) String() string {
	if b.name == "" {
		return b.kind
	}
	return b.kind + " " + source.Quoted(b.name)
}

// decoder builds a fleet from the blocks of all sources.
type decoder struct {
	*source.Report
	kinds  []kind
	blocks map[string][]*block          // by kind, in the order of the sources
	names  map[string]map[string]*block // by kind and name, the first of each
	lists  map[string][]string          // by kind, the names in order, to suggest from
	// partial says that a part of the sources could not be read, so that what
	// is missing may be there.
	partial bool
	doubt   doubt

	fleet  *fleet.Fleet
	home   *block // the fleet block
	ranges []meshRange
	sites  map[fleet.SiteName]fleet.Site
	claims map[netip.Addr]claim

	specials []special
	global   netip.Prefix
	places   map[fleet.NodeName]*nodePlaces
	services map[fleet.ServiceName]servicePlaces
}

// doubt says which conclusions about the fleet as a whole would rest on
// something that is mistaken in the file.
type doubt struct{ hubs, servers bool }

func newDecoder(r *source.Report) *decoder {
	d := &decoder{
		Report: r, kinds: kinds(), blocks: make(map[string][]*block), names: make(map[string]map[string]*block),
		lists: make(map[string][]string), fleet: &fleet.Fleet{Port: fleet.DefaultPort, Scheduler: fleet.Systemd, Ingress: fleet.Caddy},
		places: make(map[fleet.NodeName]*nodePlaces), services: make(map[fleet.ServiceName]servicePlaces), sites: make(map[fleet.SiteName]fleet.Site),
		claims: make(map[netip.Addr]claim), specials: specials(), global: globalUnicast(),
	}
	for _, k := range d.kinds {
		d.names[k.name] = make(map[string]*block)
	}
	return d
}

// read collects the blocks of one source.
func (d *decoder) read(t *source.Text) {
	if !t.Readable(d.Report) {
		d.partial = true
		return
	}
	before := d.Len()
	all := t.Parse(d.Report, d.kindNames(), nil, func(b source.Body) bool {
		for _, a := range b.Attributes {
			d.strayAttribute(a)
		}
		for _, syntax := range b.Blocks {
			d.collect(t, syntax, b.Broken)
		}
		return true
	})
	d.partial = d.partial || !all
	if d.Len() > before {
		d.doubt = doubt{hubs: true, servers: true}
	}
}

func (d *decoder) kindNames() []string {
	var names []string
	for _, k := range d.kinds {
		names = append(names, k.name)
	}
	return names
}

func (d *decoder) strayAttribute(a *hclsyntax.Attribute) {
	for _, k := range d.kinds {
		if slices.Contains(k.attributes, a.Name) {
			d.Mistake(a.NameRange, fmt.Sprintf("move it into the %s block it is meant for", k.name), "%s stands outside of a block", a.Name)
			return
		}
	}
	d.Mistake(a.NameRange, "", "%s stands outside of a block", a.Name)
}

// collect takes in one top-level block.
func (d *decoder) collect(t *source.Text, syntax *hclsyntax.Block, broken bool) {
	names := d.names[syntax.Type]
	if names == nil {
		d.doubt = doubt{hubs: true, servers: true}
		d.Mistake(syntax.TypeRange, d.similar(syntax.Type, d.kindNames(), kindAliases(), ""), "there is no block type %s", source.Quoted(syntax.Type))
		return
	}
	b := &block{kind: syntax.Type, at: syntax.TypeRange, nameAt: syntax.TypeRange, body: syntax.Body, broken: broken}
	if len(syntax.Labels) > 0 {
		b.name, b.nameAt = syntax.Labels[0], syntax.LabelRanges[0]
		b.at = hcl.RangeBetween(syntax.TypeRange, b.nameAt)
	}
	d.checkLabels(t, b, syntax)
	if first := names[b.name]; first != nil && b.kind != "fleet" {
		if b.name != "" {
			d.Mistake(b.nameAt, "", "%s: there is one already at %s", b, source.Place(first.at))
		}
	} else {
		names[b.name] = b
		d.lists[b.kind] = append(d.lists[b.kind], b.name)
	}
	d.blocks[b.kind] = append(d.blocks[b.kind], b)
	if broken {
		// A brace is missing somewhere: what follows looks as if it were inside.
		for _, nested := range syntax.Body.Blocks {
			if d.names[nested.Type] != nil && len(nested.Labels) == 1 {
				d.collect(t, nested, broken)
			}
		}
	}
}

func (d *decoder) checkLabels(t *source.Text, b *block, syntax *hclsyntax.Block) {
	switch {
	case len(syntax.Labels) == 0:
		d.Mistake(b.at, fmt.Sprintf(`%s "name" {`, b.kind), "%s needs a name", article(b.kind))
		return
	case len(syntax.Labels) > 1:
		d.Mistake(syntax.LabelRanges[1], "", "%s: %s has one name", b, article(b.kind))
		return
	}
	if at := b.nameAt; at.Start.Byte < len(t.Content) && t.Content[at.Start.Byte] != '"' {
		d.Mistake(at, fmt.Sprintf("%q", b.name), "%s: a name stands in quotes", b)
		return
	}
	d.checkName(b.nameAt, b.String(), b.name)
}

// similar is didYouMean while anybody will read it: each costs a look at all
// the candidates.
func (d *decoder) similar(written string, candidates []string, aliases map[string]string, quote string) string {
	if d.Crowded() {
		return ""
	}
	return source.DidYouMean(written, candidates, aliases, quote)
}

// decode turns the blocks into the fleet.
func (d *decoder) decode() {
	for _, k := range d.kinds {
		for _, b := range d.blocks[k.name] {
			k.decode(d, b)
		}
	}
	if d.home == nil && !d.partial && len(d.Texts) > 0 {
		at := hcl.Range{Filename: d.Texts[0].Name, Start: hcl.InitialPos, End: hcl.InitialPos}
		d.Mistake(at, `it begins with fleet "name" {`, "there is no fleet block")
	}
}

// article puts "a" or "an" before a word.
func article(word string) string {
	if word != "" && strings.Contains("aeiou", word[:1]) {
		return "an " + word
	}
	return "a " + word
}

// one lists choices for a sentence: "a", "b" or "c".
func one(choices []string) string {
	var b strings.Builder
	for i, c := range choices {
		switch i {
		case 0:
		case len(choices) - 1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(source.Quoted(c))
	}
	return b.String()
}
