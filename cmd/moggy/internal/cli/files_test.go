package cli

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// lockedApp is an App beside a fleet's file, and that fleet.
func lockedApp(t *testing.T) (*App, *fleet.Fleet) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "examples", "cats", "fleet.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fleet.hcl")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	a := New("0.0.0-test", strings.NewReader(""), &out, &out)
	a.Files = []string{file}
	f, err := a.LoadFleet()
	if err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	return a, f
}

func TestLockIsSavedBesideTheFleet(t *testing.T) {
	a, f := lockedApp(t)
	l, err := a.LoadLock(f)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(filepath.Dir(a.Files[0]), "fleet.lock.hcl")
	if l.Name() != name {
		t.Errorf("the lock is %s, want %s", l.Name(), name)
	}
	for generation := 1; generation <= 2; generation++ {
		lock := l.Lock()
		lock.Fleet, lock.Generation = f.Name, generation
		if err := a.SaveLock(l, lock); err != nil {
			t.Fatal(err)
		}
		again, err := a.LoadLock(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := again.Lock().Generation; got != generation {
			t.Errorf("generation %d, want %d", got, generation)
		}
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode()&^0o644 != 0 { // a umask may take more away
		t.Errorf("mode %v", info.Mode())
	}
	left, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLockThatSomebodyElseChanged(t *testing.T) {
	a, f := lockedApp(t)
	mine, err := a.LoadLock(f)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := a.LoadLock(f)
	if err != nil {
		t.Fatal(err)
	}
	save := func(l interface{ Lock() *fleet.Lock }) *fleet.Lock {
		lock := l.Lock()
		lock.Fleet, lock.Generation = f.Name, lock.Generation+1
		return lock
	}
	if err := a.SaveLock(theirs, save(theirs)); err != nil {
		t.Fatal(err)
	}
	if err := a.SaveLock(mine, save(mine)); err == nil {
		t.Error("wrote over what another moggy saved")
	}
}

func TestReplaceFileKeepsLinkAndMode(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceFile(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	got, err := os.ReadFile(target)
	if err != nil || string(got) != "new" {
		t.Errorf("the target holds %q, %v", got, err)
	}
	if info, err := os.Stat(target); err != nil || info.Mode() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}
