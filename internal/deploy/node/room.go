package node

import (
	"fmt"

	"github.com/moggyfleet/moggy/internal/deploy/node/host"
	"github.com/moggyfleet/moggy/internal/hint"
)

// spare is how many bytes a stage leaves free: the machine's own logs and the
// next activation's small files must find room.
const spare = 16 << 20

// room says whether so many bytes more can be stored.
func (n *Node) room(need int64) error {
	total, free, err := host.Space(n.disk, Dir)
	if err != nil {
		return err
	}
	if total > 0 && need > 0 && free < uint64(need)+spare {
		return hint.Wrap(fmt.Errorf("stage: needs %d MB, %s has %d MB free", (need+spare)>>20, Dir, free>>20),
			"make room on the node (df -h %s); nothing that runs was touched", Dir)
	}
	return nil
}
