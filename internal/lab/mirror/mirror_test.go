package mirror

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// deb builds a package that holds nothing.
func deb(t *testing.T, dir, name string) {
	t.Helper()
	src := t.TempDir()
	control := fmt.Sprintf("Package: %s\nVersion: 1.2\nArchitecture: all\nMaintainer: nobody <x@example.org>\nDescription: test\n longer\n", name)
	if err := os.MkdirAll(filepath.Join(src, "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "DEBIAN/control"), []byte(control), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", src, filepath.Join(dir, name+"_1.2_all.deb")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestIndex has apt itself read what is served.
func TestIndex(t *testing.T) {
	for _, tool := range []string{"dpkg-deb", "apt-get"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here", tool)
		}
	}
	dir := t.TempDir()
	deb(t, dir, "cat")
	deb(t, dir, "ari")
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := index(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "Packages"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Index(string(text), "Package: ari\n") > strings.Index(string(text), "Package: cat\n") || !strings.Contains(string(text), "\nFilename: ./cat_1.2_all.deb\n") {
		t.Errorf("index:\n%s", text)
	}
	server := httptest.NewServer(Handler(dir))
	defer server.Close()
	apt := t.TempDir()
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(apt, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`Dir::Etc::main "/dev/null"; Dir::Etc::parts "/dev/null"; Dir::Etc::sourceparts "/dev/null";
Dir::Etc::sourcelist "%[1]s/sources.list"; Dir::State "%[1]s"; Dir::State::status "/dev/null"; Dir::Cache "%[1]s/cache";
APT::Sandbox::User ""; Acquire::http::Proxy "DIRECT"; Debug::NoLocking "true";`, apt)
	for name, text := range map[string]string{"conf": config, "sources.list": "deb [trusted=yes] " + server.URL + "/ ./\n"} {
		if err := os.WriteFile(filepath.Join(apt, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"update"}, {"-y", "--download-only", "install", "cat"}} {
		cmd := exec.Command("apt-get", args...)
		cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(apt, "conf"), "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "W:") {
			t.Fatalf("apt-get %v: %v\n%s", args, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(apt, "cache/archives/cat_1.2_all.deb")); err != nil {
		t.Error(err)
	}
	if got, err := http.Get(server.URL + "/../../etc/passwd"); err == nil {
		body, _ := io.ReadAll(got.Body)
		got.Body.Close()
		if got.StatusCode == http.StatusOK {
			t.Errorf("the mirror serves more than its directory: %s", body)
		}
	}
}

func TestEnsureIsCached(t *testing.T) {
	root := filepath.Join(t.TempDir(), "rootfs-1")
	never := func(context.Context) string { t.Error("asked for a mirror"); return "" }
	if err := os.Mkdir(place(root), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := Ensure(t.Context(), root, never, func(string) {})
	if err != nil || dir != place(root) {
		t.Errorf("%q, %v", dir, err)
	}
}

func TestTail(t *testing.T) {
	if got := tail([]byte("E: one\nE: two\n\n")); got != "E: two" {
		t.Errorf("got %q", got)
	}
}
