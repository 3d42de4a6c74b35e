package node

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// set gives a file of the generation other content.
func (g *generation) set(path, content string) {
	i := slices.IndexFunc(g.Files, func(f fleet.ManifestFile) bool { return f.Path == path })
	f := fleet.NewFile(path, g.Files[i].Mode, []byte(content))
	g.Files[i].Digest = f.Digest
	g.content[f.Digest] = f.Content
}

// snapshot is all that is on the machine, but for caches and locks: each path
// with its mode, inode and content or target.
func (m *machine) snapshot() map[string]string {
	m.t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(m.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		at := path[len(m.root):]
		switch {
		case at == verifiedFile || at == lockFile:
		case st.IsDir():
			out[at] = st.Mode().String()
		case st.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			out[at] = "-> " + target
		default:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out[at] = fmt.Sprintf("%s %s", st.Mode(), fleet.DigestOf(b))
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// Back puts the generation before in force again.
func (h *Held) Back(ctx context.Context, report func(protocol.Event)) (generation int, err error) {
	generation, err = h.Previous()
	if err != nil {
		return 0, err
	}
	_, err = h.Activate(ctx, Target{Generation: generation}, report)
	return generation, err
}
