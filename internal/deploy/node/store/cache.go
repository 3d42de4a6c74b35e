package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// stamp is what changes whenever a file's content may have. The change time is
// the kernel's own, no program can set it.
type stamp struct {
	Size  int64        `json:"size"`
	Mtime int64        `json:"mtime"` // ns
	Ctime int64        `json:"ctime"` // ns
	SHA   fleet.Digest `json:"sha256"`
}

// settled is how old a change must be before a stamp is believed: within one
// tick of the kernel's clock, a second change would leave the same times (git's
// "racily clean" entries). Ticks are 10 ms at the longest.
const settled = 50 * time.Millisecond

// Cache knows files' digests by their inodes, so that a look at a node does not
// read our binary each time. Without it everything is read. One goroutine uses
// it.
type Cache struct {
	store Store
	deep  bool // believe nothing
	known map[string]stamp
	fresh bool // known has something the file has not
}

// Cache is what is known by now. A deep one believes nothing of it, and learns
// it anew.
func (s Store) Cache(deep bool) *Cache {
	c := &Cache{store: s, deep: deep, known: make(map[string]stamp)}
	b, err := os.ReadFile(s.Disk.Real(s.Known))
	if err != nil || json.Unmarshal(b, &c.known) != nil || c.known == nil {
		c.known = make(map[string]stamp)
	}
	return c
}

// Digest returns the digest of the regular file at path.
func (c *Cache) Digest(path string) (fleet.Digest, error) {
	// A pipe put there by hand must not make us wait for a writer.
	f, err := os.OpenFile(c.store.Disk.Real(path), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s: not a regular file", path)
	}
	key := strconv.FormatUint(uint64(sys.Dev), 16) + ":" + strconv.FormatUint(sys.Ino, 10)
	now := stamp{Size: st.Size(), Mtime: sys.Mtim.Nano(), Ctime: sys.Ctim.Nano()}
	if had, ok := c.known[key]; ok && !c.deep {
		now.SHA = had.SHA
		if now == had {
			return had.SHA, nil
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	now.SHA = fleet.Digest(hex.EncodeToString(h.Sum(nil)))
	if c.store.Now().Sub(time.Unix(0, now.Ctime)) > settled {
		c.known[key], c.fresh = now, true
	}
	return now.SHA, nil
}

// Save keeps what was learned. Two looks at once may both save: the later one
// wins, and the other's work is done again some day.
func (c *Cache) Save() error {
	if !c.fresh {
		return nil
	}
	b, err := json.Marshal(c.known)
	if err != nil {
		return err
	}
	dir := filepath.Dir(c.store.Disk.Real(c.store.Known))
	f, err := os.CreateTemp(dir, protocol.TempPrefix+filepath.Base(c.store.Known)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), c.store.Disk.Real(c.store.Known))
	}
	if err != nil {
		os.Remove(f.Name()) // the sweep takes it otherwise
	}
	return err
}

// Forget drops all that is in none of the directories any more, and saves.
func (c *Cache) Forget(dirs ...string) error {
	there := make(map[string]bool)
	for _, dir := range dirs {
		err := filepath.WalkDir(c.store.Disk.Real(dir), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			st, err := e.Info()
			if err != nil {
				return err
			}
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				there[strconv.FormatUint(uint64(sys.Dev), 16)+":"+strconv.FormatUint(sys.Ino, 10)] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	had := len(c.known)
	maps.DeleteFunc(c.known, func(key string, _ stamp) bool { return !there[key] })
	c.fresh = c.fresh || len(c.known) != had
	return c.Save()
}
