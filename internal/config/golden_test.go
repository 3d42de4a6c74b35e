package config

import (
	"flag"
	"testing"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/config/source/sourcetest"
)

var update = flag.Bool("update", false, "write what is said now into the goldens")

// TestMistakes renders what is said of the files in each archive together.
func TestMistakes(t *testing.T) {
	sourcetest.Mistakes(t, *update, func(t *testing.T, texts []source.Text) source.Diagnostics {
		f, diags := Parse(texts)
		if (f == nil) != (diags.Mistakes() > 0) {
			t.Errorf("%d mistakes, and the fleet is %v", diags.Mistakes(), f)
		}
		return diags
	})
}
