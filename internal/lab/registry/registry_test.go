package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func registryOf(t *testing.T, programs ...string) *Registry {
	t.Helper()
	dir := t.TempDir()
	for _, p := range programs {
		if err := os.WriteFile(filepath.Join(dir, p), []byte("#!program "+p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return New(dir)
}

func ask(t *testing.T, r *Registry, method, url, token string) *http.Response {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, url, nil)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) []byte {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestPull goes the way of a client: from a tag to the program in the layer.
func TestPull(t *testing.T) {
	r := registryOf(t, "whoami")
	const base = "https://registry.cats.example/v2/"
	head := ask(t, r, http.MethodHead, base+"team/whoami/manifests/1.1", "")
	digest := head.Header.Get("Docker-Content-Digest")
	if head.StatusCode != http.StatusOK || !strings.HasPrefix(digest, "sha256:") {
		t.Fatalf("HEAD of a tag: %s, digest %q", head.Status, digest)
	}
	var m v1.Manifest
	if err := json.Unmarshal(body(t, ask(t, r, http.MethodGet, base+"team/whoami/manifests/"+digest, "")), &m); err != nil {
		t.Fatal(err)
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(body(t, ask(t, r, http.MethodGet, base+"team/whoami/blobs/"+m.Config.Digest.String(), "")), &config); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(config.Config.Env, "VERSION=1.1") || config.Config.User != "65534:65534" {
		t.Errorf("config: %+v", config.Config)
	}
	packed := body(t, ask(t, r, http.MethodGet, base+"team/whoami/blobs/"+m.Layers[0].Digest.String(), ""))
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if diff, err := hash(plain); err != nil || config.RootFS.DiffIDs[0] != diff {
		t.Errorf("diff ID %s, the layer has %s (%v)", config.RootFS.DiffIDs[0], diff, err)
	}
	var names []string
	for tr := tar.NewReader(bytes.NewReader(plain)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if diff := cmp.Diff([]string{"data/", "etc/", "etc/passwd", "tmp/", "whoami"}, names); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
}

// TestSame makes the same image of the same program, and another of each tag.
func TestSame(t *testing.T) {
	digest := func(r *Registry, name, tag string) string {
		return ask(t, r, http.MethodHead, "https://r.example/v2/"+name+"/manifests/"+tag, "").Header.Get("Docker-Content-Digest")
	}
	a, b := registryOf(t, "whoami", "counter"), registryOf(t, "whoami", "counter")
	if x, y := digest(a, "whoami", "1.0"), digest(b, "whoami", "1.0"); x != y || x == "" {
		t.Errorf("two digests of the same: %q, %q", x, y)
	}
	if x, y := digest(a, "whoami", "1.0"), digest(a, "whoami", "1.1"); x == y {
		t.Errorf("one digest of two versions: %q", x)
	}
	if x, y := digest(a, "whoami", "1.0"), digest(a, "counter", "1.0"); x == y {
		t.Errorf("one digest of two programs: %q", x)
	}
}

// TestRefusals are those that clients know from real registries.
func TestRefusals(t *testing.T) {
	r := registryOf(t, "whoami")
	for _, c := range []struct {
		method, url, token string
		status             int
		code               string
	}{
		{"GET", "https://registry.cats.example/v2/", "", 200, ""},
		{"GET", "https://registry.cats.example/v2/nope/manifests/1.0", "", 404, "NAME_UNKNOWN"},
		{"GET", "https://registry.cats.example/v2/../../etc/passwd/manifests/1.0", "", 404, "NAME_UNKNOWN"},
		{"GET", "https://registry.cats.example/v2/x/../manifests/1.0", "", 404, "NAME_UNKNOWN"},
		{"PUT", "https://registry.cats.example/v2/mine/manifests/1.0", "", 405, "UNSUPPORTED"},
		{"GET", "https://registry-1.docker.io/v2/", "", 401, "UNAUTHORIZED"},
		{"GET", "https://registry-1.docker.io/v2/traefik/whoami/manifests/v1", "guess", 401, "UNAUTHORIZED"},
		{"GET", "https://registry-1.docker.io/v2/traefik/whoami/manifests/v1", token, 200, ""},
		{"GET", "https://ghcr.io:443/v2/traefik/whoami/manifests/v1", "", 401, "UNAUTHORIZED"},
		{"GET", "https://auth.docker.io/token?service=registry.docker.io", "", 200, ""},
	} {
		resp := ask(t, r, c.method, c.url, c.token)
		text := string(body(t, resp))
		if resp.StatusCode != c.status || c.code != "" && !strings.Contains(text, `"code":"`+c.code+`"`) {
			t.Errorf("%s %s with token %q: %d %s, want %d %s", c.method, c.url, c.token, resp.StatusCode, text, c.status, c.code)
		}
	}
	if challenge := ask(t, r, "GET", "https://registry-1.docker.io/v2/", "").Header.Get("Www-Authenticate"); challenge != `Bearer realm="https://auth.docker.io/token",service="registry-1.docker.io"` {
		t.Errorf("challenge: %s", challenge)
	}
}

func TestHost(t *testing.T) {
	for image, want := range map[string]string{
		"nginx":                          Hub,
		"nginx:1.27":                     Hub,
		"traefik/whoami:v1.10":           Hub,
		"docker.io/library/nginx":        "docker.io",
		"ghcr.io/cats/web@sha256:00":     "ghcr.io",
		"registry.cats.example/web:1.0":  "registry.cats.example",
		"registry.cats.example:443/web":  "registry.cats.example",
		"localhost/web":                  "localhost",
		"registry.cats.example/a/b/c:1":  "registry.cats.example",
		"registry-without-dot:5000/x/y ": "registry-without-dot",
	} {
		if got := Host(image); got != want {
			t.Errorf("%q: %q, want %q", image, got, want)
		}
	}
}
