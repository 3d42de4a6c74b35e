package config

import (
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/moggyfleet/moggy/internal/config/source"
)

// Format returns the text in the one way HCL is indented and aligned. A text
// with syntax mistakes is not formatted, but reported.
func Format(src source.Text) ([]byte, source.Diagnostics) {
	r := source.NewReport([]source.Text{src})
	t := r.Texts[0]
	if t.Readable(r) {
		t.Parse(r, newDecoder(r).kindNames(), nil, func(source.Body) bool { return true })
	}
	list := r.Finish()
	if list.Mistakes() > 0 {
		return nil, list
	}
	return hclwrite.Format(src.Content), list
}
