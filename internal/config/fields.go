package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/moggyfleet/moggy/internal/config/source"
)

// fields reads the attributes of one block. What is not there gives the zero
// value; what is wrong is reported, and gives the zero value too.
type fields struct {
	d *decoder
	b *block
	// meant are the attributes that are there under a wrong name.
	meant map[string]bool
}

// fields checks that the block has only attributes of its kind.
func (d *decoder) fields(b *block, k kind) fields {
	f := fields{d, b, make(map[string]bool)}
	for name, a := range b.body.Attributes {
		if !slices.Contains(k.attributes, name) {
			f.meant[source.Closest(name, k.attributes, k.aliases)] = true
			d.Mistake(a.NameRange, d.similar(name, k.attributes, k.aliases, ""), "%s: %s has no attribute %s", b, article(k.name), source.Quoted(name))
		}
	}
	for _, nested := range b.body.Blocks {
		switch {
		case slices.Contains(k.attributes, nested.Type):
			f.meant[nested.Type] = true
			d.Mistake(nested.TypeRange, nested.Type+" = ...", "%s: %s is an attribute, not a block", b, nested.Type)
		case b.broken && d.names[nested.Type] != nil: // collected as a block of its own
		default:
			d.Mistake(nested.TypeRange, d.similar(nested.Type, k.attributes, k.aliases, ""), "%s: %s has no block %s", b, article(k.name), source.Quoted(nested.Type))
		}
	}
	return f
}

// missing says whether an attribute is not there at all, as far as can be
// seen.
func (f fields) missing(name string) bool { return !f.has(name) && !f.meant[name] && !f.b.broken }

// wrong reports a mistake in this block.
func (f fields) wrong(at hcl.Range, suggestion, format string, args ...any) {
	f.d.Mistake(at, suggestion, "%s: %s", f.b, fmt.Sprintf(format, args...))
}

// has says whether the attribute is written, however wrong its value is.
func (f fields) has(name string) bool { return f.b.body.Attributes[name] != nil }

// at is where the attribute's value stands, or the block's header.
func (f fields) at(name string) hcl.Range {
	if a := f.b.body.Attributes[name]; a != nil {
		return a.Expr.Range()
	}
	return f.b.at
}

// text reads a text.
func (f fields) text(name string) (source.Item, bool) {
	a := f.b.body.Attributes[name]
	if a == nil {
		return source.Item{}, false
	}
	return f.textOf(name+" is a text", a.Expr)
}

// textOf reads an expression as a text. rule says what should stand there.
func (f fields) textOf(rule string, e hclsyntax.Expression) (source.Item, bool) {
	v, is := source.Literal(e)
	switch is {
	case source.IsText:
		return source.Item{Value: v.AsString(), At: e.Range()}, true
	case source.IsReference:
		f.wrong(e.Range(), fmt.Sprintf("%q", traversal(e)), "%s: it stands in quotes", rule)
	default:
		f.wrong(e.Range(), "", "%s, not %s", rule, is)
	}
	return source.Item{}, false
}

// choice reads a text that is one of a few.
func (f fields) choice(name string, choices []string, aliases map[string]string) (string, bool) {
	it, ok := f.text(name)
	if !ok {
		return "", false
	}
	if !slices.Contains(choices, it.Value) {
		suggestion := f.d.similar(it.Value, choices, aliases, `"`)
		if suggestion == "" {
			suggestion = "it is " + one(choices)
		}
		f.wrong(it.At, suggestion, "there is no %s %s", name, source.Quoted(it.Value))
		return "", false
	}
	return it.Value, true
}

// flag reads true or false; nil where the attribute is not there or wrong.
func (f fields) flag(name string) *bool {
	a := f.b.body.Attributes[name]
	if a == nil {
		return nil
	}
	v, is := source.Literal(a.Expr)
	if is == source.IsBool {
		b := v.True()
		return &b
	}
	suggestion := ""
	if is == source.IsText {
		meant := map[string]string{"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
		suggestion = source.DidYouMean(meant[v.AsString()], []string{meant[v.AsString()]}, nil, "")
	}
	if is == source.IsReference {
		suggestion = source.DidYouMean(traversal(a.Expr), []string{"true", "false"}, map[string]string{"yes": "true", "on": "true", "no": "false", "off": "false"}, "")
	}
	f.wrong(a.Expr.Range(), suggestion, "%s is true or false, not %s", name, is)
	return nil
}

// number reads a whole number between low and high.
func (f fields) number(name string, low, high int) (int, bool) {
	a := f.b.body.Attributes[name]
	if a == nil {
		return 0, false
	}
	v, is := source.Literal(a.Expr)
	if is == source.IsText {
		if n, err := cty.ParseNumberVal(v.AsString()); err == nil {
			f.wrong(a.Expr.Range(), fmt.Sprintf("did you mean %s?", n.AsBigFloat().Text('f', -1)), "%s is a number: it stands without quotes", name)
			return 0, false
		}
	}
	if is != source.IsNumber {
		f.wrong(a.Expr.Range(), "", "%s is a number, not %s", name, is)
		return 0, false
	}
	n, accuracy := v.AsBigFloat().Int64()
	if accuracy != 0 || n < int64(low) || n > int64(high) {
		f.wrong(a.Expr.Range(), "", "%s is a whole number from %d to %d", name, low, high)
		return 0, false
	}
	return int(n), true
}

// list reads the expressions of a list.
func (f fields) list(name, example string) []hclsyntax.Expression {
	a := f.b.body.Attributes[name]
	if a == nil {
		return nil
	}
	tuple, ok := source.Bare(a.Expr).(*hclsyntax.TupleConsExpr)
	if ok {
		return tuple.Exprs
	}
	v, is := source.Literal(a.Expr)
	suggestion := example
	if is == source.IsText {
		suggestion = fmt.Sprintf("[%q]", v.AsString())
	}
	if is == source.IsReference {
		suggestion = fmt.Sprintf("[%s]", traversal(a.Expr))
	}
	f.wrong(a.Expr.Range(), suggestion, "%s is a list, not %s", name, is)
	return nil
}

// texts reads a list of texts.
func (f fields) texts(name, example string) []source.Item {
	var out []source.Item
	for _, e := range f.list(name, example) {
		if it, ok := f.textOf(name+" is a list of texts", e); ok {
			out = append(out, it)
		}
	}
	return out
}

// reference reads a reference to a block of a kind, as site.london.
func (f fields) reference(name, kind string) (string, bool) {
	a := f.b.body.Attributes[name]
	if a == nil {
		return "", false
	}
	_, to, ok := f.referenceTo(name, a.Expr, fmt.Sprintf("%s = %s.NAME", name, kind), kind)
	return to, ok
}

// referenceTo reads an expression as a reference to a block of one of the
// kinds. form shows how one is written.
func (f fields) referenceTo(name string, e hclsyntax.Expression, form string, kinds ...string) (kind, to string, ok bool) {
	path, ok := steps(e)
	if !ok {
		v, is := source.Literal(e)
		suggestion := form
		if is == source.IsText {
			suggestion = fmt.Sprintf("did you mean %s?", f.d.nearestOf(kinds, v.AsString()))
		}
		f.wrong(e.Range(), suggestion, "%s is a reference, not %s", name, is)
		return "", "", false
	}
	known := slices.Contains(kinds, path[0].Value)
	switch {
	case !known && len(path) == 1:
		f.wrong(e.Range(), fmt.Sprintf("did you mean %s?", f.d.nearestOf(kinds, path[0].Value)), "a reference starts with its kind")
	case !known && f.d.names[path[0].Value] != nil:
		f.wrong(path[0].At, form, "%s refers to a %s, not to a %s", name, strings.Join(kinds, " or a "), path[0].Value)
	case !known:
		suggestion := form
		if len(kinds) == 1 || f.d.declared(kinds, path[1].Value) {
			suggestion = fmt.Sprintf("did you mean %s?", f.d.nearestOf(kinds, path[1].Value))
		}
		f.wrong(path[0].At, suggestion, "there is no kind %s", source.Quoted(path[0].Value))
	case len(path) == 1:
		f.wrong(e.Range(), path[0].Value+".NAME", "which %s?", path[0].Value)
	case len(path) > 2:
		f.wrong(path[2].At, fmt.Sprintf("did you mean %s?", refer(path[0].Value, path[1].Value)), "%s refers to a %s, not to something in it", name, path[0].Value)
	default:
		to, ok := f.resolve(path[0].Value, path[1])
		return path[0].Value, to, ok
	}
	return "", "", false
}

func (f fields) resolve(kind string, it source.Item) (string, bool) {
	if f.d.names[kind][it.Value] != nil {
		return it.Value, true
	}
	if f.d.partial {
		return "", false
	}
	suggestion := f.d.similar(it.Value, f.d.lists[kind], nil, `"`)
	if suggestion == "" && len(f.d.lists[kind]) == 0 {
		suggestion = fmt.Sprintf("%s %q { ... } declares it", kind, it.Value)
	}
	f.wrong(it.At, suggestion, "there is no %s %s", kind, source.Quoted(it.Value))
	return "", false
}

// nearest is the name of that kind closest to what was written.
func (d *decoder) nearest(kind, written string) string {
	if !d.Crowded() {
		if best := source.Closest(written, d.lists[kind], nil); best != "" {
			return best
		}
	}
	if source.WrongName(written) != "" {
		return "NAME"
	}
	return written
}

// declared says whether there is a block of that name, of one of the kinds.
func (d *decoder) declared(kinds []string, name string) bool {
	return slices.ContainsFunc(kinds, func(k string) bool { return d.names[k][name] != nil })
}

// nearestOf is a reference to the block, of any of the kinds, whose name is
// closest to what was written.
func (d *decoder) nearestOf(kinds []string, written string) string {
	for _, k := range kinds {
		if best := d.nearest(k, written); d.names[k][best] != nil {
			return refer(k, best)
		}
	}
	return refer(kinds[0], d.nearest(kinds[0], written))
}

func refer(kind, name string) string { return kind + "." + name }
