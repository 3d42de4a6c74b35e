package history

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func newFile(t *testing.T) (File, string) {
	t.Helper()
	root := t.TempDir()
	return File{&disk.Disk{Root: root}, "/history.jsonl"}, filepath.Join(root, "history.jsonl")
}

func turn(generation int) fleet.Turn {
	return fleet.Turn{
		At: time.Date(2026, 11, 22, 12, 0, 0, generation, time.UTC), Kind: fleet.TurnActivated,
		Generation: generation, From: generation - 1, By: "nico@laptop", Commit: "0123456789ab+",
	}
}

func numbers(turns []fleet.Turn) []int {
	out := []int{}
	for _, t := range turns {
		out = append(out, t.Generation)
	}
	return out
}

func TestTurns(t *testing.T) {
	f, path := newFile(t)
	if turns, err := f.Turns(); err != nil || len(turns) != 0 {
		t.Errorf("before the first: %v, %v", turns, err)
	}
	want := []fleet.Turn{turn(1), turn(2)}
	want[1].Kind, want[1].Why = fleet.TurnWentBack, "unit a.service: failed (exit-code)\n2 lines"
	for _, turn := range want {
		if err := f.Add(turn); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.Turns()
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want it for root alone", st.Mode(), err)
	}
}

// TestTornLine: power fails while the last line is written, at each byte of it.
func TestTornLine(t *testing.T) {
	f, path := newFile(t)
	f.Add(turn(1))
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Add(turn(2))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(first); cut < len(whole); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.Add(turn(3)); err != nil {
			t.Fatal(err)
		}
		want := []int{1, 3}
		if cut == len(whole)-1 { // all but the end of the line
			want = []int{1, 2, 3}
		}
		got, err := f.Turns()
		if diff := cmp.Diff(want, numbers(got)); diff != "" || err != nil {
			t.Fatalf("cut at %d: %v (-want +got):\n%s", cut, err, diff)
		}
	}
}

func TestBounded(t *testing.T) {
	f, path := newFile(t)
	f.Disk.NoSync = true
	const many = 2*Kept + 17
	for g := 1; g <= many; g++ {
		if err := f.Add(turn(g)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.Turns()
	if err != nil || len(got) != Kept || got[0].Generation != many-Kept+1 || got[Kept-1].Generation != many {
		t.Errorf("%d turns, %v", len(got), err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() > 400*Kept {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
}

// FuzzTurns: whatever the file holds, what is added is read back.
func FuzzTurns(f *testing.F) {
	f.Add([]byte("{\"kind\":\"confirmed\"}\n{\"kind\":"))
	f.Add([]byte("\n\x00\x00\n"))
	f.Fuzz(func(t *testing.T, was []byte) {
		h, path := newFile(t)
		h.Disk.NoSync = true
		if err := os.WriteFile(path, was, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.Add(turn(7)); err != nil {
			t.Fatal(err)
		}
		got, err := h.Turns()
		if err != nil || len(got) == 0 || got[len(got)-1].Generation != 7 {
			t.Errorf("%v, %v", got, err)
		}
	})
}
