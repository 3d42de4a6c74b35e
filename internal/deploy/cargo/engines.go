package cargo

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// FindEngine looks for the builds of an engine in directories, as
// scripts/engine.sh leaves them: DIR/NAME-ARCH/NAME. The first directory that has
// one for an architecture wins; there may be none.
func FindEngine(name string, dirs ...string) (Binaries, error) {
	out := Binaries{}
	for _, dir := range dirs {
		for _, arch := range architectures() {
			path := filepath.Join(dir, name+"-"+arch, name)
			is, b, err := inspect(path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				continue
			case err != nil:
				return nil, fmt.Errorf("%s: %w", path, err)
			case is != arch:
				return nil, fmt.Errorf("%s: built for %s", path, is)
			}
			if _, have := out[arch]; !have {
				out[arch] = b
			}
		}
	}
	return out, nil
}

// Digest is that of the build for an architecture, empty where there is none.
func (b Binaries) Digest(arch string) fleet.Digest { return b[arch].Digest }
