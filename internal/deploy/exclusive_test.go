package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moggyfleet/moggy/internal/deploy/ssh"
)

// TestExclusive says that one apply at a time is let in, that a second is told
// who is, and that nodes know one directory's operator by the same word each
// time, and another's by another.
func TestExclusive(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	from := func(by string) *Deployment {
		client, err := ssh.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return &Deployment{SSH: client, By: by}
	}
	nico, ana := from("nico@desk"), from("ana@desk")
	first, err := nico.exclusive()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nico.exclusive(); err == nil || !strings.Contains(err.Error(), "nico@desk (process ") {
		t.Errorf("the second apply: %v", err)
	}
	other, err := ana.exclusive()
	if err != nil {
		t.Fatal(err)
	}
	defer other.free()
	first.free()
	again, err := nico.exclusive()
	if err != nil {
		t.Fatal(err)
	}
	if first.session == "" || again.session != first.session || other.session == first.session {
		t.Errorf("sessions: nico's %q and then %q, ana's %q", first.session, again.session, other.session)
	}
	again.free()

	path := filepath.Join(nico.SSH.Dir(), "apply.lock")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("who may read the session: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if anew, err := nico.exclusive(); err != nil || anew.session == "" {
		t.Errorf("after garbage: session %q, %v", anew.session, err)
	}
}
