package source

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Expression is a sort of expression, in the words a mistake describes it with.
type Expression string

// The sorts of expression that Literal tells apart.
const (
	IsText      Expression = "a text"
	IsNumber    Expression = "a number"
	IsBool      Expression = "true or false"
	IsNull      Expression = "null (leave the attribute out)"
	IsReference Expression = "a reference"
	IsList      Expression = "a list"
	IsMap       Expression = "a map"
	IsTemplate  Expression = "a text with ${...} in it"
	IsCall      Expression = "a function call (the language has none)"
	IsOther     Expression = "an expression (write the value itself)"
)

// Item is a value with its place.
type Item struct {
	Value string
	At    hcl.Range
}

// Bare takes parentheses off an expression.
func Bare(e hclsyntax.Expression) hclsyntax.Expression {
	for {
		p, ok := e.(*hclsyntax.ParenthesesExpr)
		if !ok {
			return e
		}
		e = p.Expression
	}
}

// Literal says what sort of expression e is and, of a text, number or bool,
// its value. It evaluates nothing: facts are written down, not computed.
func Literal(e hclsyntax.Expression) (cty.Value, Expression) {
	switch e := Bare(e).(type) {
	case *hclsyntax.LiteralValueExpr:
		switch {
		case e.Val.IsNull():
			return cty.NilVal, IsNull
		case e.Val.Type() == cty.Bool:
			return e.Val, IsBool
		case e.Val.Type() == cty.Number:
			return e.Val, IsNumber
		}
	case *hclsyntax.TemplateExpr:
		var b strings.Builder
		for _, p := range e.Parts {
			l, ok := p.(*hclsyntax.LiteralValueExpr)
			if !ok || l.Val.IsNull() || l.Val.Type() != cty.String {
				return cty.NilVal, IsTemplate
			}
			b.WriteString(l.Val.AsString())
		}
		return cty.StringVal(b.String()), IsText
	case *hclsyntax.TemplateWrapExpr:
		return cty.NilVal, IsTemplate
	case *hclsyntax.ScopeTraversalExpr:
		return cty.NilVal, IsReference
	case *hclsyntax.TupleConsExpr:
		return cty.NilVal, IsList
	case *hclsyntax.ObjectConsExpr:
		return cty.NilVal, IsMap
	case *hclsyntax.FunctionCallExpr:
		return cty.NilVal, IsCall
	}
	return cty.NilVal, IsOther
}
