package node

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

type unixStat = syscall.Stat_t

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

// verified knows files' digests by their inodes, so that a look at a node does
// not read our binary each time. It is a cache: without it everything is read.
// One goroutine uses it.
type verified struct {
	node  *Node
	deep  bool // believe nothing
	known map[string]stamp
	fresh bool // known has something the file has not
}

func (n *Node) verified(deep bool) *verified {
	v := &verified{node: n, deep: deep, known: make(map[string]stamp)}
	b, err := os.ReadFile(n.disk.real(verifiedFile))
	if err != nil || json.Unmarshal(b, &v.known) != nil {
		v.known = make(map[string]stamp)
	}
	return v
}

// digest returns the digest of the regular file at path.
func (v *verified) digest(path string) (fleet.Digest, error) {
	// A pipe put there by hand must not make us wait for a writer.
	f, err := os.OpenFile(v.node.disk.real(path), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	sys, ok := st.Sys().(*unixStat)
	if !ok || !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s: not a regular file", path)
	}
	key := strconv.FormatUint(uint64(sys.Dev), 16) + ":" + strconv.FormatUint(sys.Ino, 10)
	now := stamp{Size: st.Size(), Mtime: sys.Mtim.Nano(), Ctime: sys.Ctim.Nano()}
	if had, ok := v.known[key]; ok && !v.deep {
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
	if v.node.now().Sub(time.Unix(0, now.Ctime)) > settled {
		v.known[key], v.fresh = now, true
	}
	return now.SHA, nil
}

// save keeps what was learned. Two looks at once may both save: the later one
// wins, and the other's work is done again some day.
func (v *verified) save() error {
	if !v.fresh {
		return nil
	}
	b, err := json.Marshal(v.known)
	if err != nil {
		return err
	}
	dir := v.node.disk.real(Dir)
	f, err := os.CreateTemp(dir, protocol.TempPrefix+filepath.Base(verifiedFile)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), v.node.disk.real(verifiedFile))
	}
	if err != nil {
		os.Remove(f.Name()) // the sweep takes it otherwise
	}
	return err
}

// forget drops all that is not in the store or a generation any more.
func (v *verified) forget() error {
	there := make(map[string]bool)
	for _, dir := range []string{storeDir, generationsDir} {
		err := filepath.WalkDir(v.node.disk.real(dir), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			st, err := e.Info()
			if err != nil {
				return err
			}
			if sys, ok := st.Sys().(*unixStat); ok {
				there[strconv.FormatUint(uint64(sys.Dev), 16)+":"+strconv.FormatUint(sys.Ino, 10)] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	had := len(v.known)
	maps.DeleteFunc(v.known, func(key string, _ stamp) bool { return !there[key] })
	v.fresh = v.fresh || len(v.known) != had
	return v.save()
}
