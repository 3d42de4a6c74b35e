package config

import "github.com/hashicorp/hcl/v2/hclwrite"

// Format returns the text in the one way HCL is indented and aligned. A text
// with syntax mistakes is not formatted, but reported.
func Format(src Source) ([]byte, Diagnostics) {
	r := newReport([]Source{src})
	t := r.texts[0]
	if t.readable(r) {
		t.parse(r, newDecoder(r).kindNames(), nil, func(body) bool { return true })
	}
	list := r.finish()
	if list.Mistakes() > 0 {
		return nil, list
	}
	return hclwrite.Format(src.Content), list
}
