package config

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/moggyfleet/moggy/internal/term"
)

var update = flag.Bool("update", false, "write what is said now into the goldens")

// TestMistakes renders what is said of the files in each archive. Of a file
// named *.lock.hcl that is the lock's mistakes, of the others together the
// fleet's. The part "want" is what is expected.
func TestMistakes(t *testing.T) {
	archives, err := filepath.Glob("testdata/mistakes/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no goldens", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got, json := say(t, archive)
			golden(t, name, archive, "want", got)
			if slices.ContainsFunc(archive.Files, func(f txtar.File) bool { return f.Name == "json" }) {
				golden(t, name, archive, "json", json)
			}
		})
	}
}

func say(t *testing.T, archive *txtar.Archive) (text, json []byte) {
	t.Helper()
	var sources []Source
	var diags Diagnostics
	for _, f := range archive.Files {
		switch {
		case strings.HasSuffix(f.Name, lockSuffix):
			_, found := ParseLock(Source{f.Name, content(f)})
			diags = append(diags, found...)
		case strings.HasSuffix(f.Name, ".hcl"):
			sources = append(sources, Source{f.Name, content(f)})
		}
	}
	if len(sources) > 0 {
		f, found := Parse(sources)
		if (f == nil) != (found.Mistakes() > 0) {
			t.Errorf("%d mistakes, and the fleet is %v", found.Mistakes(), f)
		}
		diags = append(diags, found...)
	}
	var b bytes.Buffer
	if err := diags.Write(&b, term.NewPalette(false)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), diags.JSON()
}

// content is a file of an archive. In one whose name starts with "escaped"
// \xNN stands for a byte that an archive cannot hold, and \e for the end.
func content(f txtar.File) []byte {
	if !strings.HasPrefix(f.Name, "escaped") {
		return f.Data
	}
	replace := strings.NewReplacer(`\x00`, "\x00", `\xff`, "\xff", `\xfe`, "\xfe", `\xef`, "\xef", `\xbb`, "\xbb", `\xbf`, "\xbf", `\x1b`, "\x1b", `\r`, "\r", "\\\n", "")
	return []byte(replace.Replace(string(f.Data)))
}

func golden(t *testing.T, name string, archive *txtar.Archive, part string, got []byte) {
	t.Helper()
	i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == part })
	if *update {
		if i < 0 {
			archive.Files = append(archive.Files, txtar.File{Name: part})
			i = len(archive.Files) - 1
		}
		archive.Files[i].Data = got
		if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if i < 0 {
		t.Fatalf("no part %q; go test -update writes it", part)
	}
	if diff := cmp.Diff(string(archive.Files[i].Data), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", part, diff)
	}
}
