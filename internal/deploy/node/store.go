package node

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

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// spare is how many bytes a stage leaves free: the machine's own logs and the
// next activation's small files must find room.
const spare = 16 << 20

// blobPath is where the store has content for files of that mode. The mode is
// part of the name because a hard link has its inode's mode.
func blobPath(d fleet.Digest, mode uint32) string {
	return storeDir + "/" + string(d) + "-" + strconv.FormatUint(uint64(mode), 8)
}

// store lists the store: for each digest the modes it is there for. Nothing in
// it has been verified by this.
func (n *Node) store() (map[fleet.Digest][]uint32, error) {
	entries, err := os.ReadDir(n.disk.real(storeDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make(map[fleet.Digest][]uint32, len(entries))
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

// Missing are the digests of the manifest's files that must be sent before it
// can be staged, sorted: those the store lacks, or has damaged.
func (n *Node) Missing(m fleet.Manifest) ([]fleet.Digest, error) {
	store, err := n.store()
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	v := n.verified(false)
	out := []fleet.Digest{}
	for _, f := range m.Files {
		if _, ok := n.intact(v, store, f.Digest); !ok {
			out = append(out, f.Digest)
		}
	}
	if err := v.save(); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ENOSPC) {
		return nil, fmt.Errorf("store: %w", err)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// intact returns a mode for which the store has the content, undamaged.
func (n *Node) intact(v *verified, store map[fleet.Digest][]uint32, d fleet.Digest) (mode uint32, ok bool) {
	for _, mode := range store[d] {
		if got, err := v.digest(blobPath(d, mode)); err == nil && got == d {
			return mode, true
		}
	}
	return 0, false
}

// PutBlob stores content for files of that mode. It reads r to its end, and
// leaves nothing when the content has another digest or does not fit.
func (h *Held) PutBlob(d fleet.Digest, mode uint32, r io.Reader) error {
	err := h.disk.fill(blobPath(d, mode), mode, func(w io.Writer) error {
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
		return readOnlyHint(fmt.Errorf("blob %.12s: %w", d, err))
	}
	return nil
}

// variant makes sure that the store has the file's content under its mode.
func (h *Held) variant(v *verified, store map[fleet.Digest][]uint32, f fleet.ManifestFile) error {
	if slices.Contains(store[f.Digest], f.Mode) {
		if got, err := v.digest(blobPath(f.Digest, f.Mode)); err == nil && got == f.Digest {
			return h.setMode(blobPath(f.Digest, f.Mode), f.Mode)
		}
	}
	other, ok := h.intact(v, store, f.Digest)
	if !ok {
		return fmt.Errorf("%s: its content %.12s is not in the store", f.Path, f.Digest)
	}
	src, err := os.Open(h.disk.real(blobPath(f.Digest, other)))
	if err != nil {
		return err
	}
	defer src.Close()
	if err := h.PutBlob(f.Digest, f.Mode, src); err != nil {
		return err
	}
	store[f.Digest] = append(store[f.Digest], f.Mode)
	return nil
}

// setMode puts a file's permission bits and owner right.
func (h *Held) setMode(path string, mode uint32) error {
	st, err := os.Lstat(h.disk.real(path))
	if err != nil {
		return err
	}
	if uid, gid := owner(st); uid != os.Geteuid() || gid != os.Getegid() {
		if err := h.disk.change("chown", path); err != nil {
			return err
		}
		if err := os.Lchown(h.disk.real(path), os.Geteuid(), os.Getegid()); err != nil {
			return err
		}
	}
	if st.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) == fs.FileMode(mode) {
		return nil
	}
	if err := h.disk.change("chmod", path); err != nil {
		return err
	}
	return os.Chmod(h.disk.real(path), fs.FileMode(mode))
}

// room says whether so many bytes more can be stored.
func (n *Node) room(need int64) error {
	total, free, err := n.space()
	if err != nil {
		return err
	}
	if total > 0 && need > 0 && free < uint64(need)+spare {
		return hint.Wrap(fmt.Errorf("stage: needs %d MB, %s has %d MB free", (need+spare)>>20, Dir, free>>20),
			"make room on the node (df -h %s); nothing that runs was touched", Dir)
	}
	return nil
}

// space is the size of the file system that holds our directory, and what of
// it is free for us, in bytes.
func (n *Node) space() (total, free uint64, err error) {
	var st unix.Statfs_t
	path := n.disk.existing(Dir)
	if err := unix.Statfs(n.disk.real(path), &st); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	size := uint64(st.Bsize) //nolint:unconvert // int32 on some architectures
	return st.Blocks * size, st.Bavail * size, nil
}
