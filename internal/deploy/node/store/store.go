// Package store keeps content by its digest, each verified when it arrives and
// whenever it is asked for. It does not know which generation needs what.
package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Store is content in a directory: immutable files called <sha256>-<mode>.
type Store struct {
	Disk  *disk.Disk
	Dir   string           // of the content
	Known string           // the file of the cache
	Now   func() time.Time // the clock that stamps the files
}

// Listing is what a store has: for each digest, the modes it is there for.
type Listing map[fleet.Digest][]uint32

// Path is where the store has content for files of that mode. The mode is part
// of the name because a hard link has its inode's mode.
func (s Store) Path(d fleet.Digest, mode uint32) string {
	return s.Dir + "/" + string(d) + "-" + strconv.FormatUint(uint64(mode), 8)
}

// List lists the store. Nothing in it has been verified by this.
func (s Store) List() (Listing, error) {
	entries, err := os.ReadDir(s.Disk.Real(s.Dir))
	if errors.Is(err, fs.ErrNotExist) {
		return Listing{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	out := make(Listing, len(entries))
	for _, e := range entries {
		digest, octal, ok := strings.Cut(e.Name(), "-")
		mode, err := strconv.ParseUint(octal, 8, 32)
		if !ok || err != nil || len(digest) != sha256.Size*2 {
			continue
		}
		out[fleet.Digest(digest)] = append(out[fleet.Digest(digest)], uint32(mode))
	}
	return out, nil
}

// Missing are the digests of the manifest's files that the store lacks, or has
// damaged, sorted.
func (s Store) Missing(m fleet.Manifest) ([]fleet.Digest, error) {
	have, err := s.List()
	if err != nil {
		return nil, err
	}
	c := s.Cache(false)
	out := []fleet.Digest{}
	for _, f := range m.Files {
		if _, ok := s.intact(c, have, f.Digest); !ok {
			out = append(out, f.Digest)
		}
	}
	c.Save() //nolint:errcheck // a full disk makes looking slower, not impossible
	slices.Sort(out)
	return slices.Compact(out), nil
}

// intact returns a mode for which the store has the content, undamaged.
func (s Store) intact(c *Cache, have Listing, d fleet.Digest) (mode uint32, ok bool) {
	for _, mode := range have[d] {
		if got, err := c.Digest(s.Path(d, mode)); err == nil && got == d {
			return mode, true
		}
	}
	return 0, false
}

// Put stores content for files of that mode. It reads r to its end, and leaves
// nothing when the content has another digest or does not fit.
func (s Store) Put(d fleet.Digest, mode uint32, r io.Reader) error {
	err := s.Disk.Fill(s.Path(d, mode), mode, func(w io.Writer) error {
		sum := sha256.New()
		if _, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(r, protocol.MaxBlob+1)); err != nil {
			return err
		}
		if got := fleet.Digest(hex.EncodeToString(sum.Sum(nil))); got != d {
			return fmt.Errorf("arrived with the digest %.12s", got)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("blob %.12s: %w", d, err)
	}
	return nil
}

// Ensure makes sure that the store has the file's content under its mode.
func (s Store) Ensure(c *Cache, have Listing, f fleet.ManifestFile) error {
	if slices.Contains(have[f.Digest], f.Mode) {
		if got, err := c.Digest(s.Path(f.Digest, f.Mode)); err == nil && got == f.Digest {
			return s.Disk.SetMode(s.Path(f.Digest, f.Mode), f.Mode)
		}
	}
	other, ok := s.intact(c, have, f.Digest)
	if !ok {
		return fmt.Errorf("%s: its content %.12s is not in the store", f.Path, f.Digest)
	}
	src, err := os.Open(s.Disk.Real(s.Path(f.Digest, other)))
	if err != nil {
		return err
	}
	defer src.Close()
	if err := s.Put(f.Digest, f.Mode, src); err != nil {
		return err
	}
	have[f.Digest] = append(have[f.Digest], f.Mode)
	return nil
}

// Prune removes what none of the manifests needs.
func (s Store) Prune(kept []fleet.Manifest) error {
	needed := make(map[string]bool)
	for _, m := range kept {
		for _, f := range m.Files {
			needed[s.Path(f.Digest, f.Mode)] = true
		}
	}
	have, err := s.List()
	if err != nil {
		return err
	}
	for d, modes := range have {
		for _, mode := range modes {
			path := s.Path(d, mode)
			if needed[path] {
				continue
			}
			if err := s.Disk.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}
