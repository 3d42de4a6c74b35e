package lock

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/config/source/sourcetest"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func FuzzParse(f *testing.F) {
	text, err := New("fleet.lock.hcl").Update(sampleLock("bianco", "cosmo"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(lockByHand))
	rotating := sampleLock("ari", "cosmo")
	rotating.Nodes[0].NextKey, rotating.Nodes[1].OldKey = fleet.Key{7}, fleet.Key{8}
	if text, err = New("fleet.lock.hcl").Update(rotating); err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	rotating.Nodes[0].NextKey, rotating.Nodes[1].CA = fleet.Key{}, []byte("a certificate")
	if text, err = New("fleet.lock.hcl").Update(rotating); err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	sourcetest.AddMistakes(f)
	f.Add([]byte("version = 1\nnode \"b\" { v4 = \"10.0.0.1\" } # x\n\n\n# y\nnode \"a\" {}\nunknown {\n}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, diags := Parse(source.Text{Name: "fleet.lock.hcl", Content: text})
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
			lock.Nodes[0].NextKey, lock.Nodes[0].OldKey, lock.Nodes[0].GoneKey = fleet.Key{}, fleet.Key{}, fleet.Key{}
		}
		if len(lock.Nodes) > 1 {
			lock.Remove(lock.Nodes[1].Name)
		}
		lock.Put(fleet.NodeLock{Name: "fuzzed", Generation: 1})
		lock.Version, lock.Generation = Version, lock.Generation/2
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
func compareWithHCL(t *testing.T, text []byte, l *File, diags source.Diagnostics) {
	t.Helper()
	r := newReader(source.Text{Name: "fleet.lock.hcl", Content: text})
	r.onlyHCL = true
	want, wantDiags := r.parse()
	opts := cmp.Options{
		cmp.Exporter(func(reflect.Type) bool { return true }), cmpopts.EquateEmpty(),
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
