package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

func TestCommitOf(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "fleet.hcl")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-C", dir, "-c", "user.name=nico", "-c", "user.email=nico@laptop"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	expect := func(when, want string) {
		t.Helper()
		if got := commitOf(t.Context(), []string{file}); !regexp.MustCompile("^" + want + "$").MatchString(got) {
			t.Errorf("%s: %q, want %s", when, got, want)
		}
	}
	write("a")
	expect("not in git", "")
	git("init", "-q")
	expect("no commit yet", "")
	git("add", "fleet.hcl")
	git("commit", "-q", "-m", "first")
	expect("committed", "[0-9a-f]{10,}")
	write("b")
	expect("changed", `[0-9a-f]{10,}\+`)
	write("a")
	if err := os.WriteFile(filepath.Join(dir, "notes"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	expect("another file beside it", "[0-9a-f]{10,}")
}
