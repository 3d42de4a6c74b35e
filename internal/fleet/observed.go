package fleet

import "time"

// ObservedVersion is the format of Observed this release writes.
const ObservedVersion = 1

// Observed is what a node says of itself: `moggy node observe`.
type Observed struct {
	Version int    `json:"version"`
	Moggy   string `json:"moggy"` // version of the binary that answered
	// Protocol is the newest that the node's moggy speaks with its operator's; 0
	// in answers of those that spoke only the first.
	Protocol int    `json:"protocol,omitempty"`
	System   System `json:"system"`
	// Current is the generation in force, zero before the first.
	Current  GenerationState `json:"current"`
	Manifest *Manifest       `json:"manifest,omitempty"` // of Current
	Drift    []Drift         `json:"drift,omitempty"`    // managed files that are not as Current says
	Units    []UnitState     `json:"units,omitempty"`
	// Failing says, by unit, what was seen instead of a check of Manifest that is
	// the unit's own and does not hold.
	Failing  map[string]string `json:"failing,omitempty"`
	MeshKey  Key               `json:"mesh_key"`
	HostKeys []string          `json:"host_keys,omitempty"` // SSH host keys, authorized_keys format
	Mesh     *MeshStatus       `json:"mesh,omitempty"`      // nil when the agent does not answer
	Ingress  *IngressStatus    `json:"ingress,omitempty"`   // nil where there is none, or it does not answer
	Missing  []string          `json:"missing,omitempty"`   // packages of Manifest that are not installed
	Kept     []int             `json:"kept,omitempty"`      // generations still on disk, ascending
	// Activation is one that has begun and has not ended: somebody is at it, or
	// it was killed and the next apply must finish it.
	Activation *Activation `json:"activation,omitempty"`
	// Probation is there while the generation in force waits for its
	// confirmation: without one the node goes back.
	Probation *Probation `json:"probation,omitempty"`
	// Contents are the managed files that were asked for, by path, as they are
	// now: no secrets, nothing that is not text.
	Contents map[string]string `json:"contents,omitempty"`
}

// Activation is a generation on its way into force.
type Activation struct {
	Generation int       `json:"generation"`
	From       int       `json:"from"` // in force when it began
	Step       string    `json:"step"` // the one that began last
	By         string    `json:"by,omitempty"`
	Since      time.Time `json:"since"`
	Running    bool      `json:"running"` // false: whoever was at it is dead
}

// Probation is a generation in force that nobody has confirmed yet.
type Probation struct {
	Generation int       `json:"generation"`
	Previous   int       `json:"previous"` // what the node goes back to
	Until      time.Time `json:"until"`    // by the node's clock, for people: the node itself counts seconds
	By         string    `json:"by,omitempty"`
}

// System is the machine itself.
type System struct {
	Arch      string        `json:"arch"` // as Go names it
	OS        string        `json:"os"`   // ID of os-release
	OSVersion string        `json:"os_version,omitempty"`
	Kernel    string        `json:"kernel"`
	Uptime    time.Duration `json:"uptime_ns"`
	Load1     float64       `json:"load1"`
	CPUs      int           `json:"cpus"`
	DiskTotal uint64        `json:"disk_total"` // bytes, of the file system that holds our state
	DiskFree  uint64        `json:"disk_free"`  // bytes
	MemTotal  uint64        `json:"mem_total"`  // bytes
	MemFree   uint64        `json:"mem_free"`   // bytes that are available
	Clock     time.Time     `json:"clock"`
}

// GenerationState is where a node stands.
type GenerationState struct {
	Number    int       `json:"number"`
	Previous  int       `json:"previous,omitempty"` // what going back returns to
	Confirmed bool      `json:"confirmed"`
	At        time.Time `json:"at,omitzero"` // when it was put in force
}

// DriftKind says how a managed file differs from its generation.
type DriftKind string

// The kinds of drift.
const (
	DriftChanged DriftKind = "changed" // other content, or no longer our link
	DriftMissing DriftKind = "missing"
	DriftMode    DriftKind = "mode"
)

// Drift is one managed file changed by hand, or a link that enables a unit of
// ours at boot.
type Drift struct {
	Path string    `json:"path"`
	Kind DriftKind `json:"kind"`
	// Content is what is there now, where it is small, text, and no secret.
	Content string `json:"content,omitempty"`
}

// UnitState is what systemd says of one of our units.
type UnitState struct {
	Name     string    `json:"name"`
	Active   string    `json:"active"` // ActiveState: "active", "failed", ...
	Sub      string    `json:"sub"`    // SubState
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since,omitzero"`
}
