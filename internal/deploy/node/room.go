package node

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/hint"
)

// spare is how many bytes a stage leaves free: the machine's own logs and the
// next activation's small files must find room.
const spare = 16 << 20

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
	path := n.disk.Existing(Dir)
	if err := unix.Statfs(n.disk.Real(path), &st); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	size := uint64(st.Bsize) //nolint:unconvert // int32 on some architectures
	return st.Blocks * size, st.Bavail * size, nil
}
