package fleet

// CheckKind says what a Check looks at.
type CheckKind string

// The kinds of checks. A kind that a node does not know passes: it was made for
// a newer one.
const (
	// CheckMesh holds when the mesh reaches at least one hub other than the node
	// itself; and where it reached none before the change, either.
	CheckMesh CheckKind = "mesh"
	// CheckSSH holds when an SSH server answers at Address.
	CheckSSH CheckKind = "ssh"
	// CheckTCP holds when Address takes a connection.
	CheckTCP CheckKind = "tcp"
	// CheckHTTP holds when GET of Address, a URL, is answered with a status from
	// 200 to 399.
	CheckHTTP CheckKind = "http"
	// CheckRun holds when Command ends with 0.
	CheckRun CheckKind = "run"
)

// Check is something that must be true of a machine while a generation is in
// force.
type Check struct {
	Name    string    `json:"name"` // for people: "the mesh reaches a hub"
	Kind    CheckKind `json:"kind"`
	Address string    `json:"address,omitempty"` // host:port, for CheckSSH and CheckTCP; a URL for CheckHTTP
	Command []string  `json:"command,omitempty"` // with its absolute path, for CheckRun
	// Unit is the unit that makes it true, "" for the machine as a whole. A check
	// that did not hold before a change is not held against it, unless the change
	// is to its unit.
	Unit string `json:"unit,omitempty"`
	// Seconds is how long it may take to become true; 0 means 20.
	Seconds int `json:"seconds,omitempty"`
}
