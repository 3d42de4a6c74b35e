package config

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

// addGoldens starts from every mistake there is a golden of.
func addGoldens(f *testing.F, wanted func(string) bool) {
	f.Helper()
	archives, err := filepath.Glob("testdata/mistakes/*.txtar")
	if err != nil || len(archives) == 0 {
		f.Fatal("no goldens", err)
	}
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if wanted(file.Name) && len(file.Data) < 4<<10 {
				f.Add(content(file))
			}
		}
	}
}

func diagsOf(text []byte) Diagnostics {
	_, diags := Parse([]Source{{"a.hcl", text}})
	return diags
}

func FuzzParse(f *testing.F) {
	f.Add(Template("cats", nil))
	addGoldens(f, func(name string) bool { return strings.HasSuffix(name, ".hcl") && !strings.HasSuffix(name, lockSuffix) })
	f.Fuzz(func(t *testing.T, text []byte) {
		got, diags := Parse([]Source{{"a.hcl", text}, {"b.hcl", []byte("node \"x\" {\n")}})
		if got != nil {
			t.Error("a fleet in spite of mistakes")
		}
		writeAll(t, diags)
		if got, diags = Parse([]Source{{"a.hcl", text}}); (got == nil) != (diags.Mistakes() > 0) {
			t.Errorf("%d mistakes, fleet %v", diags.Mistakes(), got)
		}
		var b bytes.Buffer
		if err := diags.Write(&b, term.NewPalette(false)); err != nil {
			t.Fatal(err)
		}
		if i := bytes.IndexFunc(b.Bytes(), func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' }); i >= 0 {
			t.Errorf("prints a control character: %q", b.Bytes())
		}
		if formatted, diags := Format(Source{"a.hcl", text}); diags.Mistakes() == 0 {
			again, after := Parse([]Source{{"a.hcl", formatted}})
			if (again == nil) != (got == nil) || len(after) != len(diagsOf(text)) {
				t.Errorf("means something else in form:\n%s\n%s", text, formatted)
			}
		}
	})
}

func FuzzParseLock(f *testing.F) {
	text, err := NewLock("fleet.lock.hcl").Update(sampleLock("bianco", "cosmo"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(lockByHand))
	addGoldens(f, func(name string) bool { return strings.HasSuffix(name, lockSuffix) })
	f.Add([]byte("version = 1\nnode \"b\" { v4 = \"10.0.0.1\" } # x\n\n\n# y\nnode \"a\" {}\nunknown {\n}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, diags := ParseLock(Source{"fleet.lock.hcl", text})
		compareWithHCL(t, text, l, diags)
		if l == nil {
			if diags.Mistakes() == 0 {
				t.Error("neither lock nor mistake")
			}
			return
		}
		same, err := l.Update(l.Lock())
		if err != nil || !bytes.Equal(same, text) {
			t.Fatalf("updated to itself: %v\n%q\n%q", err, text, same)
		}
		// Whatever is in the file, a change gives a file that says the change.
		lock := l.Lock()
		if len(lock.Nodes) > 0 {
			lock.Nodes[0].Arch = "arm64"
		}
		if len(lock.Nodes) > 1 {
			lock.Remove(lock.Nodes[1].Name)
		}
		lock.Put(fleet.NodeLock{Name: "fuzzed", Generation: 1})
		lock.Version, lock.Generation = LockVersion, lock.Generation/2
		lock.Mesh = fleet.Ranges{}
		if _, err := l.Update(lock); err != nil {
			t.Fatalf("%v\n%q", err, text)
		}
		if diff := lockDiff(lock, l.Lock()); diff != "" {
			t.Errorf("after a change of %q (-want +got):\n%s", text, diff)
		}
	})
}

// compareWithHCL holds the short way through a lock to what HCL finds.
func compareWithHCL(t *testing.T, text []byte, l *LockFile, diags Diagnostics) {
	t.Helper()
	r := newLockReader(Source{"fleet.lock.hcl", text})
	r.onlyHCL = true
	want, wantDiags := r.parse()
	opts := cmp.Options{
		cmp.AllowUnexported(Diagnostic{}, snippet{}, lockBlock{}, lockAttribute{}, span{}), cmpopts.EquateEmpty(),
	}
	if diff := cmp.Diff(wantDiags, diags, opts); diff != "" {
		t.Fatalf("diagnostics (-HCL +short):\n%s\n%q", diff, text)
	}
	if (want == nil) != (l == nil) {
		t.Fatalf("only one way finds a lock in %q", text)
	}
	if l == nil {
		return
	}
	if diff := lockDiff(want.lock, l.lock); diff != "" {
		t.Fatalf("lock (-HCL +short):\n%s\n%q", diff, text)
	}
	if diff := cmp.Diff(want.nodes, l.nodes, opts); diff != "" {
		t.Fatalf("places (-HCL +short):\n%s\n%q", diff, text)
	}
}
