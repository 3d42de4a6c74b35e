package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// AddOperators writes operators into the text of a fleet's file, which has the
// fleet block and no mistake. What else stands there, comments among it, stays
// as it is. The error says why a text cannot be changed so.
func AddOperators(src source.Text, more []fleet.Operator) ([]byte, error) {
	file, diags := hclsyntax.ParseConfig(src.Content, src.Name, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, fmt.Errorf("%s: %s", src.Name, diags[0].Summary)
	}
	var home *hclsyntax.Block
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		if b.Type == "fleet" {
			home = b
		}
	}
	if home == nil {
		return nil, fmt.Errorf("%s: there is no fleet block in it", src.Name)
	}
	at, text := home.OpenBraceRange.End.Byte, "\n  operators = {"+entries("\n    ", more)+"\n  }"
	if had := home.Body.Attributes["operators"]; had != nil {
		object, ok := had.Expr.(*hclsyntax.ObjectConsExpr)
		if !ok {
			return nil, fmt.Errorf("%s: operators is not a map that can be added to", source.Place(had.SrcRange))
		}
		at, text = addition(src.Content[:object.SrcRange.End.Byte-1], len(object.Items) == 0, more)
	}
	out := slices.Concat(src.Content[:at], []byte(text), src.Content[at:])
	if bytes.Equal(hclwrite.Format(src.Content), src.Content) {
		out = hclwrite.Format(out)
	}
	return out, nil
}

// addition is what to write, and where, into a map that head ends just before
// the closing brace of: in its style, a line for each entry or all on one.
func addition(head []byte, empty bool, more []fleet.Operator) (at int, text string) {
	last := len(bytes.TrimRight(head, " \t"))
	if last > 0 && head[last-1] == '\n' {
		return last, strings.TrimPrefix(entries("\n    ", more), "\n") + "\n"
	}
	text = strings.TrimPrefix(entries(", ", more), ",")
	if !empty && head[last-1] != ',' {
		text = "," + text
	}
	return last, text
}

func entries(before string, more []fleet.Operator) string {
	var b strings.Builder
	for _, o := range more {
		fmt.Fprintf(&b, "%s%s = %s", before, o.Name, hclwrite.TokensForValue(cty.StringVal(o.Key)).Bytes())
	}
	return b.String()
}

// OperatorOf makes an operator of a line as it stands in authorized_keys, under
// a name that its comment suggests and that none of taken has. The error says
// what is wrong with the key, and never repeats it.
func OperatorOf(line string, taken []fleet.Operator) (fleet.Operator, error) {
	key, err := AuthorizedKey(line)
	if err != nil {
		return fleet.Operator{}, err
	}
	comment := ""
	if fields := strings.Fields(key); len(fields) > 2 {
		comment, _, _ = strings.Cut(fields[2], "@")
	}
	stem := label(comment)
	name := stem
	for i := 2; slices.ContainsFunc(taken, func(o fleet.Operator) bool { return o.Name == name }); i++ {
		name = fmt.Sprintf("%s%d", stem, i)
	}
	return fleet.Operator{Name: name, Key: key}, nil
}

// label makes a DNS label of what somebody calls himself.
func label(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', b.Len() > 0 && (r >= '0' && r <= '9' || r == '-'):
			b.WriteRune(r)
		}
	}
	const longest = 30
	out := strings.Trim(b.String()[:min(b.Len(), longest)], "-")
	if out == "" {
		return "operator"
	}
	return out
}
