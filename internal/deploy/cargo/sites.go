package cargo

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/site"
)

// Sites are the folders beside the fleet's file that static services serve, by what
// static says of them.
type Sites map[string]site.Folder

// FindSites looks at the folders of the services in the fleet file's directory.
func FindSites(dir string, services []fleet.Service) (Sites, error) {
	out := Sites{}
	for _, s := range services {
		if _, have := out[s.Static]; have || s.Static == "" {
			continue
		}
		folder, err := site.Look(filepath.Join(dir, s.Static))
		if err != nil {
			return nil, fmt.Errorf("service %q: %w", s.Name, err)
		}
		out[s.Static] = folder
	}
	return out, nil
}

// Digest of a folder's archive; empty where there is none.
func (s Sites) Digest(static string) fleet.Digest { return s[static].Digest }

// Open returns the archive of a digest that is one of theirs, and how many bytes it
// has.
func (s Sites) Open(d fleet.Digest) (io.ReadCloser, int64, bool) {
	for _, f := range s {
		if f.Digest == d {
			return f.Open(), f.Size, true
		}
	}
	return nil, 0, false
}
