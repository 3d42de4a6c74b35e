package lock

import (
	"flag"
	"testing"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/config/source/sourcetest"
)

var update = flag.Bool("update", false, "write what is said now into the goldens")

// TestMistakes renders what is said of the lock in each archive.
func TestMistakes(t *testing.T) {
	sourcetest.Mistakes(t, *update, func(t *testing.T, texts []source.Text) source.Diagnostics {
		if len(texts) != 1 {
			t.Fatalf("%d locks in one archive", len(texts))
		}
		l, diags := Parse(texts[0])
		if (l == nil) != (diags.Mistakes() > 0) {
			t.Errorf("%d mistakes, and the lock is %v", diags.Mistakes(), l)
		}
		return diags
	})
}
