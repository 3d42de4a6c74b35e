// Package sourcetest is what the tests of the packages that read texts share:
// archives that hold a text and what is said of it, and garbage. It knows no
// kind of file.
package sourcetest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/term"
)

// Mistakes renders what read says of the files in each archive of
// testdata/mistakes. The part "want" is what is expected of it on a screen, and
// "json", where there is one, as JSON. With update they are written instead.
func Mistakes(t *testing.T, update bool, read func(*testing.T, []source.Text) source.Diagnostics) {
	t.Helper()
	for _, name := range archives(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			diags := read(t, texts(archive))
			var b bytes.Buffer
			if err := diags.Write(&b, term.NewPalette(false)); err != nil {
				t.Fatal(err)
			}
			parts := map[string][]byte{"want": b.Bytes()}
			if slices.ContainsFunc(archive.Files, func(f txtar.File) bool { return f.Name == "json" }) {
				parts["json"] = diags.JSON()
			}
			if update {
				write(t, name, archive, parts)
				return
			}
			compare(t, archive, parts)
		})
	}
}

// AddMistakes makes every text of the archives a seed, but for the large ones.
func AddMistakes(f *testing.F) {
	f.Helper()
	for _, name := range archives(f) {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, text := range texts(archive) {
			if len(text.Content) < 4<<10 {
				f.Add(text.Content)
			}
		}
	}
}

func archives(tb testing.TB) []string {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", "mistakes", "*.txtar"))
	if err != nil || len(names) == 0 {
		tb.Fatal("no goldens", err)
	}
	return names
}

func texts(archive *txtar.Archive) []source.Text {
	var out []source.Text
	for _, f := range archive.Files {
		if strings.HasSuffix(f.Name, ".hcl") {
			out = append(out, source.Text{Name: f.Name, Content: content(f)})
		}
	}
	return out
}

// content is a file of an archive. In one whose name starts with "escaped"
// \xNN stands for a byte that an archive cannot hold, and a backslash at the
// end of a line for no newline.
func content(f txtar.File) []byte {
	if !strings.HasPrefix(f.Name, "escaped") {
		return f.Data
	}
	replace := strings.NewReplacer(`\x00`, "\x00", `\xff`, "\xff", `\xfe`, "\xfe", `\xef`, "\xef", `\xbb`, "\xbb", `\xbf`, "\xbf", `\x1b`, "\x1b", `\r`, "\r", "\\\n", "")
	return []byte(replace.Replace(string(f.Data)))
}

func compare(t *testing.T, archive *txtar.Archive, parts map[string][]byte) {
	t.Helper()
	for part, got := range parts {
		i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == part })
		if i < 0 {
			t.Fatalf("no part %q; go test -update writes it", part)
		}
		if diff := cmp.Diff(string(archive.Files[i].Data), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", part, diff)
		}
	}
}

func write(t *testing.T, name string, archive *txtar.Archive, parts map[string][]byte) {
	t.Helper()
	for part, got := range parts {
		i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == part })
		if i < 0 {
			archive.Files = append(archive.Files, txtar.File{Name: part})
			i = len(archive.Files) - 1
		}
		archive.Files[i].Data = got
	}
	if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}
