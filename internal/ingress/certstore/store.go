// Package certstore is where certificates, their keys and the state of ACME are
// kept, the same on all ingress nodes, and the locks that let one node at a time
// ask for a certificate. It is certmagic's Storage. What certificates there should
// be, and when to renew them, is certmagic's.
//
// Each node has all entries in files of its own. A write goes to all peers that can
// be reached before it returns, so that whichever node a challenge arrives at knows
// the answer; what a peer missed it gets by comparing (sync.go), some seconds after
// it is back. Of two writes to a key the later wins: by a clock that never goes
// back behind what it has seen, then by name.
//
// A lock is held when every reachable node granted it, asked in the order of their
// names: two that want it meet at the first node that both reach. Cut off from each
// other, both get it; then a certificate is issued twice, which is better than
// none.
package certstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/renameio/v2"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// forget is how long a deletion is remembered, in case that a node which missed it
// comes back with what was deleted.
const forget = 60 * 24 * time.Hour

// entry is one key's value, or that it was deleted.
type entry struct {
	Key   string         `json:"key"`
	At    int64          `json:"at"` // Unix nanoseconds of the write
	By    fleet.NodeName `json:"by"` // the node that wrote it
	Gone  bool           `json:"gone,omitempty"`
	Value []byte         `json:"value,omitempty"`
}

// after says whether e is the later write of the two.
func (e entry) after(o entry) bool {
	if e.At != o.At {
		return e.At > o.At
	}
	return e.By > o.By
}

// Store keeps the entries.
type Store struct {
	dir  string
	self fleet.NodeName
	log  *slog.Logger

	client http.Client
	poke   chan struct{}

	mu      sync.Mutex // of all below
	entries map[string]entry
	peers   []*peer // sorted by name
	grants  map[string]grant
	held    map[string]hold
}

// Open reads the entries in dir, which must be there.
func Open(dir string, self fleet.NodeName, log *slog.Logger) (*Store, error) {
	s := &Store{
		dir: dir, self: self, log: log, poke: make(chan struct{}, 1),
		entries: make(map[string]entry), grants: make(map[string]grant), held: make(map[string]hold),
	}
	s.client = http.Client{Transport: transport(), Timeout: callTimeout}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		var e entry
		if err := json.Unmarshal(text, &e); err != nil || s.file(e.Key) != file {
			log.Warn("not an entry of the certificate store", "file", file) // the other nodes have it
			continue
		}
		if e.Gone && time.Since(time.Unix(0, e.At)) > forget {
			os.Remove(file)
			continue
		}
		s.entries[e.Key] = e
	}
	return s, nil
}

// file is where a key's entry is.
func (s *Store) file(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16])+".json")
}

// take keeps those of the entries that are later than what is known, on disk first.
func (s *Store) take(entries ...entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if have, ok := s.entries[e.Key]; ok && !e.after(have) {
			continue
		}
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := renameio.WriteFile(s.file(e.Key), text, 0o600); err != nil {
			return fmt.Errorf("certificates: %w", err)
		}
		s.entries[e.Key] = e
	}
	return nil
}

// stamp is an entry written now, later than any for its key that was seen here.
func (s *Store) stamp(key string, value []byte, gone bool) entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return entry{Key: key, At: max(time.Now().UnixNano(), s.entries[key].At+1), By: s.self, Gone: gone, Value: value}
}

// Store puts value at key, here and on every peer that can be reached.
func (s *Store) Store(ctx context.Context, key string, value []byte) error {
	return s.write(ctx, s.stamp(clean(key), slices.Clone(value), false))
}

func (s *Store) write(ctx context.Context, entries ...entry) error {
	if err := s.take(entries...); err != nil {
		return err
	}
	s.spread(ctx, entries)
	return nil
}

// Load returns the value at key, or fs.ErrNotExist.
func (s *Store) Load(_ context.Context, key string) ([]byte, error) {
	e, ok := s.get(clean(key))
	if !ok {
		return nil, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return slices.Clone(e.Value), nil
}

func (s *Store) get(key string) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	return e, ok && !e.Gone
}

// below are the keys at or below a path, sorted.
func (s *Store) below(path string) (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, e := range s.entries {
		if !e.Gone && (path == "" || key == path || strings.HasPrefix(key, path+"/")) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Delete removes key, and what is below it.
func (s *Store) Delete(ctx context.Context, key string) error {
	var gone []entry
	for _, k := range s.below(clean(key)) {
		gone = append(gone, s.stamp(k, nil, true))
	}
	if len(gone) == 0 {
		return nil
	}
	return s.write(ctx, gone...)
}

// Exists says whether key is there, or something below it.
func (s *Store) Exists(_ context.Context, key string) bool { return len(s.below(clean(key))) > 0 }

// List returns what is in path; with recursive, at any depth.
func (s *Store) List(_ context.Context, path string, recursive bool) ([]string, error) {
	path = clean(path)
	below := s.below(path)
	if len(below) == 0 {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	var out []string
	for _, key := range below {
		rest := strings.TrimPrefix(strings.TrimPrefix(key, path), "/")
		for i := range rest {
			if rest[i] == '/' {
				out = append(out, join(path, rest[:i]))
				if !recursive {
					rest = ""
					break
				}
			}
		}
		if rest != "" {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Stat says how large the value at key is, and when it was written.
func (s *Store) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	key = clean(key)
	if e, ok := s.get(key); ok {
		return certmagic.KeyInfo{Key: key, Modified: time.Unix(0, e.At), Size: int64(len(e.Value)), IsTerminal: true}, nil
	}
	if len(s.below(key)) > 0 {
		return certmagic.KeyInfo{Key: key}, nil
	}
	return certmagic.KeyInfo{}, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
}

func clean(key string) string { return strings.Trim(key, "/") }

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

var _ certmagic.Storage = (*Store)(nil)

var errDenied = errors.New("held by another")
