package config

import (
	"bytes"
	"testing"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/config/source/sourcetest"
	"github.com/moggyfleet/moggy/internal/term"
)

func diagsOf(text []byte) source.Diagnostics {
	_, diags := Parse([]source.Text{{Name: "a.hcl", Content: text}})
	return diags
}

func FuzzParse(f *testing.F) {
	f.Add(Template("cats", nil))
	sourcetest.AddMistakes(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		got, diags := Parse([]source.Text{{Name: "a.hcl", Content: text}, {Name: "b.hcl", Content: []byte("node \"x\" {\n")}})
		if got != nil {
			t.Error("a fleet in spite of mistakes")
		}
		sourcetest.Write(t, diags)
		if got, diags = Parse([]source.Text{{Name: "a.hcl", Content: text}}); (got == nil) != (diags.Mistakes() > 0) {
			t.Errorf("%d mistakes, fleet %v", diags.Mistakes(), got)
		}
		var b bytes.Buffer
		if err := diags.Write(&b, term.NewPalette(false)); err != nil {
			t.Fatal(err)
		}
		if i := bytes.IndexFunc(b.Bytes(), func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' }); i >= 0 {
			t.Errorf("prints a control character: %q", b.Bytes())
		}
		if formatted, diags := Format(source.Text{Name: "a.hcl", Content: text}); diags.Mistakes() == 0 {
			again, after := Parse([]source.Text{{Name: "a.hcl", Content: formatted}})
			if (again == nil) != (got == nil) || len(after) != len(diagsOf(text)) {
				t.Errorf("means something else in form:\n%s\n%s", text, formatted)
			}
		}
	})
}
