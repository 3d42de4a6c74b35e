package authority

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/pki"
)

func keys(t *testing.T) Keys {
	t.Helper()
	return Keys{Disk: &disk.Disk{Root: t.TempDir(), NoSync: true}, Dir: "/keys"}
}

func TestAuthorityStaysItself(t *testing.T) {
	k, now := keys(t), time.Now()
	if err := k.Disk.Mkdir(k.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := pki.Constraints{Name: "ari", Domains: []string{"ari.internal"}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}}
	first, err := k.Make(c, now)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := k.Make(c, now.Add(time.Hour)); err != nil || !bytes.Equal(first, again) {
		t.Errorf("made again: %v", err)
	}
	c.Domains = append(c.Domains, "global.nomad")
	bound, err := k.Make(c, now)
	if err != nil || bytes.Equal(first, bound) {
		t.Fatalf("not bound anew: %v", err)
	}
	was, err := pki.CheckAuthority(bound, c, now)
	if err != nil {
		t.Fatal(err)
	}
	if now, err := k.read(); err != nil || !now.Cert.Equal(was) {
		t.Errorf("what is kept is another: %v", err)
	}
	path := filepath.Join(k.Disk.Root, "keys", AuthorityFile)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("its file: %v, %v", st.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("scrambled"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Make(c, now); err == nil {
		t.Error("a file that cannot be read is replaced")
	}
}

func TestSecretIsNeverReplaced(t *testing.T) {
	k := keys(t)
	if got, err := k.Secret("gossip"); got != nil || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	for range 2 {
		if err := k.Keep("gossip", strings.NewReader("one")); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Keep("gossip", strings.NewReader("two")); !errors.Is(err, ErrOther) {
		t.Errorf("%v", err)
	}
	if got, err := k.Secret("gossip"); string(got) != "one" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"", "../mesh.key", "a/b", "A", strings.Repeat("a", 64)} {
		if _, err := k.Secret(name); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
	for _, content := range []string{"", strings.Repeat("x", maxSecret+1)} {
		if err := k.Keep("other", strings.NewReader(content)); err == nil {
			t.Errorf("%d bytes are kept", len(content))
		}
	}
	if st, err := os.Stat(filepath.Join(k.Disk.Root, "keys", "shared")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("their directory: %v, %v", st, err)
	}
}
