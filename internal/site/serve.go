package site

import (
	"archive/zip"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

// Site serves an archive.
type Site struct {
	file  *os.File
	files map[string]*zip.File
	dirs  map[string]bool // with an index.html
}

// Open opens an archive that Pack made.
func Open(name string) (*Site, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	z, err := zip.NewReader(f, st.Size())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s := &Site{file: f, files: make(map[string]*zip.File, len(z.File)), dirs: make(map[string]bool)}
	for _, e := range z.File {
		if e.Method != zip.Store {
			f.Close()
			return nil, fmt.Errorf("%s: %s is compressed", name, e.Name)
		}
		s.files[e.Name] = e
		if dir, base := path.Split(e.Name); base == "index.html" {
			s.dirs[strings.TrimSuffix(dir, "/")] = true
		}
	}
	return s, nil
}

// Close ends it; what is being served breaks off.
func (s *Site) Close() error { return s.file.Close() }

// ServeHTTP answers GET and HEAD. A folder is answered by its index.html, with a
// "/" at the end of its name; what is not there by 404.html, if there is one; a name
// without its ".html" by the page.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	slash := strings.HasSuffix(r.URL.Path, "/")
	switch e := s.files[name]; {
	case e != nil && !slash:
		s.serve(w, r, e)
	case s.dirs[name] && (slash || name == ""):
		s.serve(w, r, s.files[path.Join(name, "index.html")])
	case s.dirs[name]:
		s.redirect(w, r, "/"+name+"/")
	case e != nil: // a file is no folder
		s.redirect(w, r, "/"+name)
	case s.files[name+".html"] != nil && !slash:
		s.serve(w, r, s.files[name+".html"])
	default:
		s.missing(w, r)
	}
}

func (s *Site) redirect(w http.ResponseWriter, r *http.Request, to string) {
	u := *r.URL
	u.Scheme, u.Host, u.Path, u.RawPath = "", "", to, ""
	http.Redirect(w, r, u.String(), http.StatusMovedPermanently)
}

func (s *Site) missing(w http.ResponseWriter, r *http.Request) {
	e := s.files["404.html"]
	if e == nil {
		http.Error(w, "404 not found", http.StatusNotFound)
		return
	}
	offset, err := e.DataOffset()
	if err != nil {
		http.Error(w, "500 broken archive", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	if r.Method == http.MethodGet {
		_, _ = io.Copy(w, io.NewSectionReader(s.file, offset, int64(e.UncompressedSize64))) // the client may be gone
	}
}

func (s *Site) serve(w http.ResponseWriter, r *http.Request, e *zip.File) {
	offset, err := e.DataOffset()
	if err != nil {
		http.Error(w, "500 broken archive", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("ETag", `"`+e.Comment+`"`)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache") // asked again by the ETag, which costs no bytes
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", contentType(e.Name))
	http.ServeContent(w, r, e.Name, time.Time{}, io.NewSectionReader(s.file, offset, int64(e.UncompressedSize64)))
}

// contentType is by the name alone, and the same on every machine for what websites
// consist of (the system's table differs from one to the next).
func contentType(name string) string {
	ext := strings.ToLower(path.Ext(name))
	switch ext {
	case ".html", ".htm":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".json", ".map":
		return "application/json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".xml":
		return "text/xml; charset=utf-8"
	case ".txt", ".md":
		return "text/plain; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".ico":
		return "image/x-icon"
	case ".woff":
		return "font/woff"
	case ".woff2":
		return "font/woff2"
	case ".wasm":
		return "application/wasm"
	case ".webp":
		return "image/webp"
	case ".avif":
		return "image/avif"
	}
	if t := mime.TypeByExtension(ext); t != "" {
		return t
	}
	return "application/octet-stream"
}
