package fleet

// ManifestVersion is the format of Manifest this release writes.
const ManifestVersion = 1

// Manifest says what a generation consists of. The node keeps it beside the
// files; it is all a node needs to put the generation in force again.
type Manifest struct {
	Version    int            `json:"version"`
	Fleet      Name           `json:"fleet"`
	Node       NodeName       `json:"node"`
	Generation int            `json:"generation"`
	Files      []ManifestFile `json:"files"` // sorted by path
	Units      []Unit         `json:"units"` // in starting order
	Packages   []string       `json:"packages,omitempty"`
	Images     []string       `json:"images,omitempty"` // of containers, sorted
	// Checks are what the generation says of itself: what must be true of the
	// machine once its units run. Where one is not, the node goes back.
	Checks []Check `json:"checks,omitempty"`
}

// ManifestFile is a File without its content.
type ManifestFile struct {
	Path   string `json:"path"`
	Mode   uint32 `json:"mode"` // permission bits
	Digest Digest `json:"digest"`
	Secret bool   `json:"secret,omitempty"`
}

// File returns the entry of that path.
func (m *Manifest) File(path string) (ManifestFile, bool) {
	for _, f := range m.Files {
		if f.Path == path {
			return f, true
		}
	}
	return ManifestFile{}, false
}
