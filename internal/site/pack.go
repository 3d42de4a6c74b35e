// Package site is a website as one file: Pack makes the archive of a folder, the
// same bytes for the same folder on any machine, and Open serves it over HTTP. How
// the archive comes to a node is not its business.
package site

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Bounds of a site: every ingress node has all of it, and each apply that changes
// it brings all of it to each.
const (
	MaxFiles = 20_000
	MaxBytes = 512 << 20 // of all files
)

// Folder is a folder that was looked at.
type Folder struct {
	dir    string
	Digest fleet.Digest // of the archive
	Size   int64        // of the archive, in bytes
}

// Look reads a folder and says what its archive is.
func Look(dir string) (Folder, error) {
	sum := sha256.New()
	count := &counter{w: sum}
	if err := pack(count, dir); err != nil {
		return Folder{}, err
	}
	return Folder{dir, fleet.Digest(hex.EncodeToString(sum.Sum(nil))), count.n}, nil
}

// Open is the archive, made while it is read. A folder that changed since Look
// gives another archive, which a node refuses by the digest.
func (f Folder) Open() io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(pack(w, f.dir)) }()
	return r
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// pack writes the archive of dir: files in order, without owner, time or mode,
// not compressed, so that any part of a file can be served from where it lies.
// Each file's digest is its comment, which is its ETag.
func pack(w io.Writer, dir string) error {
	names, err := list(dir)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir) // a link that leads out of the folder is not followed
	if err != nil {
		return err
	}
	defer root.Close()
	z := zip.NewWriter(w)
	for _, name := range names {
		if err := add(z, root, name); err != nil {
			return fmt.Errorf("%s: %w", path.Join(dir, name), err)
		}
	}
	return z.Close()
}

func add(z *zip.Writer, root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	entry, err := z.CreateHeader(&zip.FileHeader{Name: name, Comment: hex.EncodeToString(sum.Sum(nil)[:16]), Method: zip.Store, Modified: time.Time{}})
	if err != nil {
		return err
	}
	_, err = io.Copy(entry, f)
	return err
}

// list names the files of dir that are served, sorted: none whose name, or that of
// a folder above it, begins with a dot (.git, .env), but for .well-known.
func list(dir string) (names []string, err error) {
	st, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, err
	case !st.IsDir():
		return nil, fmt.Errorf("%s: no folder", dir)
	}
	var bytes int64
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name != "." && strings.HasPrefix(d.Name(), ".") && d.Name() != ".well-known" {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		info, err := fs.Stat(os.DirFS(dir), name)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s: no file: %s", name, info.Mode().Type())
		}
		names, bytes = append(names, name), bytes+info.Size()
		if len(names) > MaxFiles || bytes > MaxBytes {
			return errLarge
		}
		return nil
	})
	switch {
	case errors.Is(err, errLarge):
		return nil, hint.Wrap(fmt.Errorf("%s: %w", dir, err), "leave out what is no part of the website, or serve large files by a service of their own")
	case err != nil:
		return nil, fmt.Errorf("%s: %w", dir, err)
	case len(names) == 0:
		return nil, hint.New(dir+": nothing to serve in it", "build the website first; names that begin with a dot are left out")
	}
	slices.Sort(names)
	return names, nil
}

var errLarge = fmt.Errorf("more than %d files, or more than %d MB", MaxFiles, MaxBytes>>20)
