package config

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/moggyfleet/moggy/internal/config/source"
)

// steps are the parts of a reference: of site.london, "site" and "london".
func steps(e hclsyntax.Expression) ([]source.Item, bool) {
	s, ok := source.Bare(e).(*hclsyntax.ScopeTraversalExpr)
	if !ok {
		return nil, false
	}
	var out []source.Item
	for _, step := range s.Traversal {
		switch step := step.(type) {
		case hcl.TraverseRoot:
			out = append(out, source.Item{Value: step.Name, At: step.SrcRange})
		case hcl.TraverseAttr:
			at := step.SrcRange // from the dot on
			if at.End.Byte-at.Start.Byte == len(step.Name)+1 {
				at.Start.Byte++
				at.Start.Column++
			}
			out = append(out, source.Item{Value: step.Name, At: at})
		case hcl.TraverseIndex:
			name := ""
			switch step.Key.Type() {
			case cty.String:
				name = step.Key.AsString()
			case cty.Number:
				name = step.Key.AsBigFloat().String()
			}
			out = append(out, source.Item{Value: name, At: step.SrcRange})
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
		words[i] = p.Value
	}
	return strings.Join(words, ".")
}
