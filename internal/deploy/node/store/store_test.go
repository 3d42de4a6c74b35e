package store

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func newStore(t *testing.T) Store {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(root+"/store", 0o700); err != nil {
		t.Fatal(err)
	}
	later := func() time.Time { return time.Now().Add(time.Minute) } // every stamp is old enough
	return Store{Disk: &disk.Disk{Root: root, NoSync: true}, Dir: "/store", Known: "/known.json", Now: later}
}

func (s Store) mustPut(t *testing.T, mode uint32, content string) fleet.Digest {
	t.Helper()
	d := fleet.DigestOf([]byte(content))
	if err := s.Put(d, mode, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return d
}

func manifest(mode uint32, digests ...fleet.Digest) fleet.Manifest {
	var m fleet.Manifest
	for _, d := range digests {
		m.Files = append(m.Files, fleet.ManifestFile{Path: "/etc/" + string(d), Mode: mode, Digest: d})
	}
	return m
}

func TestPut(t *testing.T) {
	s := newStore(t)
	d := s.mustPut(t, 0o640, "a")
	b, err := os.ReadFile(s.Disk.Real(s.Path(d, 0o640)))
	if err != nil || string(b) != "a" || !s.Disk.RightMode(s.Path(d, 0o640), 0o640) {
		t.Errorf("stored %q, %v", b, err)
	}
	err = s.Put(d, 0o600, strings.NewReader("b"))
	if err == nil || !strings.Contains(err.Error(), "arrived with the digest 3e23e8160039") {
		t.Errorf("another content: %v", err)
	}
	entries, err := os.ReadDir(s.Disk.Real("/store"))
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the store: %v, %v", entries, err)
	}
}

func TestMissingAndEnsure(t *testing.T) {
	s := newStore(t)
	a, b := s.mustPut(t, 0o644, "a"), s.mustPut(t, 0o644, "b")
	none := fleet.DigestOf([]byte("none"))
	if err := os.WriteFile(s.Disk.Real(s.Path(b, 0o644)), []byte("B"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := s.Missing(manifest(0o600, a, b, none, none))
	want := []fleet.Digest{b, none}
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("missing %v, %v; want %v", got, err, want)
	}
	have, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	c := s.Cache(false)
	if err := s.Ensure(c, have, fleet.ManifestFile{Path: "/x", Mode: 0o600, Digest: a}); err != nil {
		t.Error(err)
	}
	if !s.Disk.RightMode(s.Path(a, 0o600), 0o600) || !s.Disk.RightMode(s.Path(a, 0o644), 0o644) {
		t.Error("not there for both modes")
	}
	if err := s.Ensure(c, have, fleet.ManifestFile{Path: "/x", Mode: 0o644, Digest: b}); err == nil {
		t.Error("damaged content was taken")
	}
	if err := s.Prune([]fleet.Manifest{manifest(0o600, a)}); err != nil {
		t.Fatal(err)
	}
	if have, err = s.List(); err != nil || len(have) != 1 || !slices.Equal(have[a], []uint32{0o600}) {
		t.Errorf("left after pruning: %v, %v", have, err)
	}
}

// TestCache: what the cache says is believed while the inode was not touched.
func TestCache(t *testing.T) {
	s := newStore(t)
	a := s.mustPut(t, 0o644, "a")
	path := s.Path(a, 0o644)
	digest := func(deep bool) fleet.Digest {
		t.Helper()
		c := s.Cache(deep)
		d, err := c.Digest(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Save(); err != nil {
			t.Fatal(err)
		}
		return d
	}
	lie := func() {
		t.Helper()
		known := s.Cache(false).known
		for k, v := range known {
			v.SHA = "a lie"
			known[k] = v
		}
		b, err := json.Marshal(known)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.Disk.Real(s.Known), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := digest(false); got != a {
		t.Errorf("digest %s", got)
	}
	lie()
	if got := digest(false); got != "a lie" {
		t.Errorf("read again though nothing changed: %s", got)
	}
	if got := digest(true); got != a {
		t.Errorf("a deep look believed the cache: %s", got)
	}
	lie()
	mtime := time.Unix(0, 0)
	if err := os.Chtimes(s.Disk.Real(path), mtime, mtime); err != nil { // cannot hide: the change time tells
		t.Fatal(err)
	}
	if got := digest(false); got != a {
		t.Errorf("believed although the inode was touched: %s", got)
	}
	lie()
	if err := s.Cache(false).Forget("/store"); err != nil || len(s.Cache(false).known) != 1 {
		t.Errorf("forgot what is there: %v", err)
	}
	if err := os.Remove(s.Disk.Real(path)); err != nil {
		t.Fatal(err)
	}
	if err := s.Cache(false).Forget("/store"); err != nil || len(s.Cache(false).known) != 0 {
		t.Errorf("remembers what is gone: %v", err)
	}
}

// TestCacheOfTheJustWritten: a second change within one tick of the clock would
// leave the same times.
func TestCacheOfTheJustWritten(t *testing.T) {
	s := newStore(t)
	s.Now = func() time.Time { return time.Unix(0, 0) } // a clock that went back counts as too young as well
	a := s.mustPut(t, 0o644, "a")
	c := s.Cache(false)
	if d, err := c.Digest(s.Path(a, 0o644)); err != nil || d != a {
		t.Fatal(d, err)
	}
	if len(c.known) != 0 {
		t.Error("believes a stamp that is too young")
	}
}

func TestDigestOnlyOfFiles(t *testing.T) {
	s := newStore(t)
	for name, make := range map[string]func(path string) error{
		"/dir":  func(path string) error { return os.Mkdir(path, 0o755) },
		"/link": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"/pipe": func(path string) error { return unix.Mkfifo(path, 0o600) }, // must not wait for a writer
	} {
		if err := make(s.Disk.Real(name)); err != nil {
			t.Fatal(err)
		}
		if d, err := s.Cache(false).Digest(name); err == nil {
			t.Errorf("%s has the digest %s", name, d)
		}
	}
}
