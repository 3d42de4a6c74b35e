package host

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
)

// Space is the size of the file system that holds, or would hold, a path, and what of
// it is free for us, in bytes.
func Space(d *disk.Disk, path string) (total, free uint64, err error) {
	var st unix.Statfs_t
	path = d.Existing(path)
	if err := unix.Statfs(d.Real(path), &st); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	size := uint64(st.Bsize) //nolint:unconvert // int32 on some architectures
	return st.Blocks * size, st.Bavail * size, nil
}
