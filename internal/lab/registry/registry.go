// Package registry is every container registry of a lab's internet: it answers
// under all their names, with images made of a few small programs. A repository
// whose name ends in a program's has every tag; all others have none. Nobody
// can push to it.
package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The names of Docker Hub: what clients say, where they then go, and where
// they get their tokens.
const (
	Hub      = "docker.io"
	HubData  = "registry-1.docker.io"
	HubToken = "auth.docker.io"
)

// Public are the registries that the internet has whatever a fleet's images are.
func Public() []string { return []string{Hub, "ghcr.io", "quay.io"} }

// Names are the names under which a client looks for a registry.
func Names(host string) []string {
	if host == Hub {
		return []string{Hub, "index." + Hub, HubData, HubToken}
	}
	return []string{host}
}

// Host is the registry in an image's full name: what stands before the first
// slash where it looks like a host, and Docker Hub otherwise.
func Host(image string) string {
	first, _, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return Hub
	}
	if host, _, err := net.SplitHostPort(first); err == nil {
		return host
	}
	return first
}

// Registry is the handler. It is safe for concurrent use.
type Registry struct {
	programs []string // directories

	mu     sync.Mutex
	layers map[string]layer        // by program and what its file was
	hosts  map[string]http.Handler // by name of the registry
	made   map[string]bool         // host/repository:tag
	blobs  registry.BlobHandler
}

// New returns a registry of the programs in some directories. There may be none
// yet.
func New(programs ...string) *Registry {
	return &Registry{
		programs: programs, layers: map[string]layer{}, hosts: map[string]http.Handler{},
		made: map[string]bool{}, blobs: registry.NewInMemoryBlobHandler(),
	}
}

// token is what every client is given, and must show to the registries that
// want one.
const token = "lab"

var reference = regexp.MustCompile(`^/v2/(.+)/manifests/([A-Za-z0-9_][A-Za-z0-9._-]{0,127})$`)

// ServeHTTP answers as the registry that the client asks for by name.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	host := strings.ToLower(req.Host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only")
		return
	}
	if req.URL.Path == "/token" {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, "{\"token\":%q,\"access_token\":%q,\"expires_in\":300}\n", token, token)
		return
	}
	if realm := realm(host); realm != "" && req.Header.Get("Authorization") != "Bearer "+token {
		w.Header().Set("Www-Authenticate", fmt.Sprintf("Bearer realm=%q,service=%q", "https://"+realm+"/token", host))
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	h := r.host(host)
	if m := reference.FindStringSubmatch(req.URL.Path); m != nil {
		if err := r.ensure(req.Context(), h, host, m[1], m[2]); err != nil {
			fail(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
			return
		}
	}
	h.ServeHTTP(w, req)
}

// realm is where a registry sends its clients for a token, even to read what is
// public; "" where it does not.
func realm(host string) string {
	switch host {
	case HubData:
		return HubToken
	case "ghcr.io", "quay.io":
		return host
	}
	return ""
}

// fail answers with an error as registries do (OCI distribution, "Error codes").
func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	_ = json.NewEncoder(w).Encode(map[string][]one{"errors": {{code, message}}}) // to a client that may have gone
}

// most is how many registries are kept apart; the internet has no more names.
const most = 1000

func (r *Registry) host(name string) http.Handler {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[name]
	if h == nil {
		h = registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(r.blobs))
		if len(r.hosts) < most {
			r.hosts[name] = h
		}
	}
	return h
}

// ensure sees to it that a known repository has the tag.
func (r *Registry) ensure(ctx context.Context, h http.Handler, host, repo, tag string) error {
	program := repo[strings.LastIndexByte(repo, '/')+1:]
	full := host + "/" + repo + ":" + tag
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made[full] {
		return nil
	}
	path, st := r.find(program)
	if path == "" {
		return nil // the registry says so as it does
	}
	key := fmt.Sprint(path, st.ModTime().UnixNano(), st.Size())
	l, ok := r.layers[key]
	if !ok {
		var err error
		if l, err = pack(path); err != nil {
			return err
		}
		r.layers[key] = l
	}
	img, err := build(program, tag, l)
	if err != nil {
		return err
	}
	if err := r.put(ctx, h, repo, tag, img); err != nil {
		return err
	}
	r.made[full] = true
	return nil
}

// find looks for a program's file: "" where there is none of that name.
func (r *Registry) find(program string) (string, os.FileInfo) {
	for _, dir := range r.programs {
		path := filepath.Join(dir, program)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, st
		}
	}
	return "", nil
}

// put is a push, from within.
func (r *Registry) put(ctx context.Context, h http.Handler, repo, tag string, img image) error {
	for digest, blob := range img.blobs {
		put := r.blobs.(registry.BlobPutHandler) //nolint:forcetypeassert // the one in memory is
		if err := put.Put(ctx, repo, digest, io.NopCloser(bytes.NewReader(blob))); err != nil {
			return err
		}
	}
	digest, err := hash(img.manifest)
	if err != nil {
		return err
	}
	for _, name := range []string{tag, digest.String()} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, "/v2/"+repo+"/manifests/"+name, bytes.NewReader(img.manifest))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", string(types.OCIManifestSchema1))
		said := &answer{header: http.Header{}}
		h.ServeHTTP(said, req)
		if said.status != http.StatusCreated {
			return fmt.Errorf("%s:%s: %d %s", repo, name, said.status, said.text.String())
		}
	}
	return nil
}

// answer is what a handler says to us.
type answer struct {
	header http.Header
	status int
	text   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(b []byte) (int, error) { return a.text.Write(b) }
func (a *answer) WriteHeader(status int)      { a.status = status }
