package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFollow(t *testing.T) {
	var said []string
	last := follow(strings.NewReader(`I: Retrieving InRelease
I: Checking Release signature
I: Retrieving adduser 3.134
I: Retrieving apt 2.6.1
I: Extracting apt...
I: Unpacking apt...
I: Configuring libc-bin...
E: Couldn't download packages: foo
`), func(s string) { said = append(said, s) })
	want := []string{
		"debootstrap: retrieving package 1, InRelease", "debootstrap: retrieving package 2, adduser",
		"debootstrap: retrieving package 3, apt", "debootstrap: extracting package 1, apt",
		"debootstrap: unpacking package 1 of 3, apt", "debootstrap: configuring package 1 of 3, libc-bin",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said %q", said)
	}
	if last != "E: Couldn't download packages: foo" {
		t.Errorf("last line %q", last)
	}
}

func TestNameFollowsRecipe(t *testing.T) {
	if a, b := name("amd64"), name("arm64"); a == b || a != name("amd64") {
		t.Errorf("names %q and %q", a, b)
	}
	for _, want := range append(include(), masked()...) {
		if !strings.Contains(recipe("amd64"), want) {
			t.Errorf("the recipe does not depend on %s", want)
		}
	}
}

func TestFinish(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"etc/ssh/ssh_host_ed25519_key": "shared", "etc/machine-id": "shared", "var/lib/apt/lists/x_Packages": "big",
		"etc/apt/sources.list": "deb http://elsewhere", "etc/systemd/system/timers.target.wants/apt-daily.timer": "",
	} {
		if err := write(filepath.Join(root, path), text); err != nil {
			t.Fatal(err)
		}
	}
	// debootstrap leaves links that lead out of the root file system.
	if err := link("/no/such/place/resolv.conf", filepath.Join(root, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	if err := finish(root); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(root); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the root file system is open to this box's users: %v, %v", st.Mode(), err)
	}
	for _, gone := range []string{"etc/ssh/ssh_host_ed25519_key", "var/lib/apt/lists/x_Packages"} {
		if _, err := os.Stat(filepath.Join(root, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	for _, empty := range []string{"etc/machine-id", "etc/apt/sources.list", "etc/resolv.conf"} {
		if text, err := os.ReadFile(filepath.Join(root, empty)); err != nil || len(text) > 0 {
			t.Errorf("%s: %q, %v; want it empty", empty, text, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(root, "etc/systemd/system/apt-daily.timer")); err != nil || to != "/dev/null" {
		t.Errorf("apt-daily.timer: %q, %v", to, err)
	}
}

func TestEnsureIsCached(t *testing.T) {
	cache := t.TempDir()
	root := filepath.Join(cache, name("amd64"))
	if whole(root) {
		t.Fatal("an empty cache has a root file system")
	}
	if err := write(filepath.Join(root, "usr/sbin/sshd"), ""); err != nil {
		t.Fatal(err)
	}
	if !whole(root) {
		t.Error("a root file system that is there was not seen")
	}
}

func TestLastLine(t *testing.T) {
	if got := lastLine("", "a\nb\n"); got != "b" {
		t.Errorf("got %q", got)
	}
	if got := lastLine("", " \n"); got != "it said nothing" {
		t.Errorf("got %q", got)
	}
}
