package fleet

import "time"

// ExaminationVersion is the format of Examination this release writes.
const ExaminationVersion = 1

// Examination is what a node finds when it looks at itself: `moggy node
// examine`. Each fact is learned by itself, so that a machine that is half
// broken still says the other half; what could not be learned is in Unknown.
type Examination struct {
	Protocol int `json:"protocol"` // that the node's moggy answers in
	Version  int `json:"version"`
	// Observed is nil where our own directory on the node makes no sense.
	Observed *Observed `json:"observed,omitempty"`
	Kernel   Kernel    `json:"kernel"`
	Systemd  string    `json:"systemd"` // "running", "degraded", ... (systemctl(1), is-system-running)
	NTP      Verity    `json:"ntp"`     // whether a time server keeps the clock
	Mounts   []Mount   `json:"mounts,omitempty"`
	// MeshPort is the UDP port of the node's agent, and Ports who holds it and
	// where an SSH server listens.
	MeshPort uint16    `json:"mesh_port,omitempty"`
	Ports    []Port    `json:"ports,omitempty"`
	Logs     []UnitLog `json:"logs,omitempty"`   // of units of ours that do not run as they should
	Echoes   []Echo    `json:"echoes,omitempty"` // of the mesh's peers, after each was probed
	// Unknown says, by the name of a fact, why it could not be learned.
	Unknown map[string]string `json:"unknown,omitempty"`
	Clock   time.Time         `json:"clock"` // the node's, when all else was written down
}

// Verity is yes, no, or not known.
type Verity string

// The verities.
const (
	Yes       Verity = "yes"
	No        Verity = "no"
	Uncertain Verity = ""
)

// Kernel is what moggy needs of a kernel.
type Kernel struct {
	TUN      string `json:"tun"`      // "" where /dev/net/tun can be used, else why not
	NFTables string `json:"nftables"` // "" where nftables can be used, else why not
	Cgroup   int    `json:"cgroup"`   // 1 or 2: the hierarchy that systemd uses; 0 where neither is found
	NoIPv6   bool   `json:"no_ipv6"`  // the machine has no IPv6, or it is switched off
}

// Mount is a path that moggy writes to, and the file system there.
type Mount struct {
	Path       string `json:"path"`
	ReadOnly   bool   `json:"read_only,omitempty"`
	Total      uint64 `json:"total"` // bytes
	Free       uint64 `json:"free"`  // bytes
	Inodes     uint64 `json:"inodes"`
	InodesFree uint64 `json:"inodes_free"` // both 0 where the file system does not count them
}

// Port is a socket that waits for others.
type Port struct {
	Protocol string `json:"protocol"` // "udp", "tcp"
	Number   uint16 `json:"number"`
	Owner    string `json:"owner"` // the systemd unit, or the program's name; "" where unknown
}

// UnitLog is the end of a unit's log.
type UnitLog struct {
	Unit  string   `json:"unit"`
	Lines []string `json:"lines"`
}

// Echo says when a peer answered last over whatever path: the agent probes
// every peer right before.
type Echo struct {
	Peer NodeName `json:"peer"`
	Ms   int64    `json:"ms"` // milliseconds ago; -1 for not since it was asked
}
