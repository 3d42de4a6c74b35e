package config

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// sort of expression, in the words a mistake is described with.
type expression string

const (
	isText      expression = "a text"
	isNumber    expression = "a number"
	isBool      expression = "true or false"
	isNull      expression = "null (leave the attribute out)"
	isReference expression = "a reference"
	isList      expression = "a list"
	isMap       expression = "a map"
	isTemplate  expression = "a text with ${...} in it"
	isCall      expression = "a function call (the language has none)"
	isOther     expression = "an expression (write the value itself)"
)

// bare takes parentheses off an expression.
func bare(e hclsyntax.Expression) hclsyntax.Expression {
	for {
		p, ok := e.(*hclsyntax.ParenthesesExpr)
		if !ok {
			return e
		}
		e = p.Expression
	}
}

// literal says what sort of expression e is and, of a text, number or bool,
// its value. It evaluates nothing: facts are written down, not computed.
func literal(e hclsyntax.Expression) (cty.Value, expression) {
	switch e := bare(e).(type) {
	case *hclsyntax.LiteralValueExpr:
		switch {
		case e.Val.IsNull():
			return cty.NilVal, isNull
		case e.Val.Type() == cty.Bool:
			return e.Val, isBool
		case e.Val.Type() == cty.Number:
			return e.Val, isNumber
		}
	case *hclsyntax.TemplateExpr:
		var b strings.Builder
		for _, p := range e.Parts {
			l, ok := p.(*hclsyntax.LiteralValueExpr)
			if !ok || l.Val.IsNull() || l.Val.Type() != cty.String {
				return cty.NilVal, isTemplate
			}
			b.WriteString(l.Val.AsString())
		}
		return cty.StringVal(b.String()), isText
	case *hclsyntax.TemplateWrapExpr:
		return cty.NilVal, isTemplate
	case *hclsyntax.ScopeTraversalExpr:
		return cty.NilVal, isReference
	case *hclsyntax.TupleConsExpr:
		return cty.NilVal, isList
	case *hclsyntax.ObjectConsExpr:
		return cty.NilVal, isMap
	case *hclsyntax.FunctionCallExpr:
		return cty.NilVal, isCall
	}
	return cty.NilVal, isOther
}

// steps are the parts of a reference: of site.london, "site" and "london".
func steps(e hclsyntax.Expression) ([]item, bool) {
	s, ok := bare(e).(*hclsyntax.ScopeTraversalExpr)
	if !ok {
		return nil, false
	}
	var out []item
	for _, step := range s.Traversal {
		switch step := step.(type) {
		case hcl.TraverseRoot:
			out = append(out, item{step.Name, step.SrcRange})
		case hcl.TraverseAttr:
			at := step.SrcRange // from the dot on
			if at.End.Byte-at.Start.Byte == len(step.Name)+1 {
				at.Start.Byte++
				at.Start.Column++
			}
			out = append(out, item{step.Name, at})
		case hcl.TraverseIndex:
			name := ""
			switch step.Key.Type() {
			case cty.String:
				name = step.Key.AsString()
			case cty.Number:
				name = step.Key.AsBigFloat().String()
			}
			out = append(out, item{name, step.SrcRange})
		default:
			return nil, false
		}
	}
	return out, len(out) > 0
}

// traversal is a reference as it is written.
func traversal(e hclsyntax.Expression) string {
	path, _ := steps(e)
	words := make([]string, len(path))
	for i, p := range path {
		words[i] = p.value
	}
	return strings.Join(words, ".")
}
