package site

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func cats() map[string]string {
	return map[string]string{
		"index.html": "<h1>cats</h1>", "404.html": "no such cat", "style.css": "body{}", "cats/index.html": "all cats",
		"about.html": "about", "big.bin": strings.Repeat("0123456789", 1000),
		".env": "SECRET=1", ".git/config": "x", ".well-known/security.txt": "mail us",
	}
}

func archive(t *testing.T, dir string) (Folder, string) {
	t.Helper()
	f, err := Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f.Open())
	if err != nil {
		t.Fatal(err)
	}
	if f.Digest != fleet.DigestOf(b) || f.Size != int64(len(b)) {
		t.Errorf("looked like %.8s of %d bytes, is %.8s of %d", f.Digest, f.Size, fleet.DigestOf(b), len(b))
	}
	file := filepath.Join(t.TempDir(), "site.zip")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return f, file
}

func TestSameBytes(t *testing.T) {
	a, b := write(t, t.TempDir(), cats()), write(t, t.TempDir(), cats())
	old := time.Unix(1, 0)
	if err := os.Chtimes(filepath.Join(b, "index.html"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(b, "style.css"), 0o755); err != nil {
		t.Fatal(err)
	}
	fa, _ := archive(t, a)
	fb, _ := archive(t, b)
	if fa.Digest != fb.Digest {
		t.Error("the same files, two archives")
	}
	write(t, b, map[string]string{"style.css": "body{ }"})
	if fc, _ := archive(t, b); fc.Digest == fa.Digest {
		t.Error("another file, the same archive")
	}
}

func TestServe(t *testing.T) {
	_, file := archive(t, write(t, t.TempDir(), cats()))
	s, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		path, header  string
		status        int
		body, kind    string
		location, etc string
	}{
		{path: "/", status: 200, body: "<h1>cats</h1>", kind: "text/html; charset=utf-8"},
		{path: "/index.html", status: 200, body: "<h1>cats</h1>", kind: "text/html; charset=utf-8"},
		{path: "/style.css", status: 200, body: "body{}", kind: "text/css; charset=utf-8"},
		{path: "/style.css/", status: 301, location: "/style.css"},
		{path: "/cats", status: 301, location: "/cats/"},
		{path: "/cats?x=1", status: 301, location: "/cats/?x=1"},
		{path: "//evil.example/cats/..", status: 404, body: "no such cat"},
		{path: "/cats/", status: 200, body: "all cats", kind: "text/html; charset=utf-8"},
		{path: "/about", status: 200, body: "about", kind: "text/html; charset=utf-8"},
		{path: "/.well-known/security.txt", status: 200, body: "mail us", kind: "text/plain; charset=utf-8"},
		{path: "/.env", status: 404, body: "no such cat"},
		{path: "/.git/config", status: 404, body: "no such cat"},
		{path: "/../../etc/passwd", status: 404, body: "no such cat"},
		{path: "/%2e%2e/etc/passwd", status: 404, body: "no such cat"},
		{path: "/nothing", status: 404, body: "no such cat"},
		{path: "/big.bin", header: "bytes=10-14", status: 206, body: "01234", kind: "application/octet-stream"},
		{path: "/big.bin", header: "bytes=99999-", status: 416},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://cats.example"+c.path, nil)
		if c.header != "" {
			r.Header.Set("Range", c.header)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != c.status || c.body != "" && w.Body.String() != c.body || w.Header().Get("Location") != c.location ||
			c.kind != "" && w.Header().Get("Content-Type") != c.kind {
			t.Errorf("%s: %d %q %v", c.path, w.Code, w.Body, w.Header())
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("If-None-Match", w.Header().Get("ETag"))
	w = httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("asked by its ETag: %d", w.Code)
	}
	w = httptest.NewRecorder()
	if s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil)); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestRefused(t *testing.T) {
	out := t.TempDir()
	write(t, out, map[string]string{"secret": "s"})
	leads := write(t, t.TempDir(), map[string]string{"index.html": "x"})
	if err := os.Symlink(filepath.Join(out, "secret"), filepath.Join(leads, "link.html")); err != nil {
		t.Fatal(err)
	}
	many := t.TempDir()
	for i := range MaxFiles + 1 {
		if err := os.Link(filepath.Join(leads, "index.html"), filepath.Join(many, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ dir, want string }{
		"empty":         {write(t, t.TempDir(), map[string]string{".env": "x"}), "nothing to serve"},
		"missing":       {filepath.Join(out, "nowhere"), "no such file"},
		"file":          {filepath.Join(out, "secret"), "no folder"},
		"link that out": {leads, "link.html"},
		"too many":      {many, "more than 20000 files"},
	} {
		if _, err := Look(c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	file := filepath.Join(t.TempDir(), "x.zip")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("opened what is no archive")
	}
}
