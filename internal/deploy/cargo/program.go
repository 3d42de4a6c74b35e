package cargo

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Programs are those beside the fleet's file that services run, by what exec says
// of them and the architecture: a script is the same for all.
type Programs map[string]map[string]Binary

// anyArch is the architecture of what runs on all.
const anyArch = ""

// FindPrograms looks at the programs of the services in the fleet file's
// directory: at the one that exec names, and beside it at builds for other
// architectures, NAME-linux-arm64 and NAME-linux-amd64.
func FindPrograms(dir string, services []fleet.Service) (Programs, error) {
	out := Programs{}
	for _, s := range services {
		if !s.Local() || out[s.Exec] != nil {
			continue
		}
		builds, err := findProgram(filepath.Join(dir, s.Exec))
		if err != nil {
			return nil, hint.Wrap(fmt.Errorf("service %q: %w", s.Name, err), "build it, or put it there: exec = %q is beside %s", s.Exec, dir)
		}
		out[s.Exec] = builds
	}
	return out, nil
}

func findProgram(path string) (map[string]Binary, error) {
	out := make(map[string]Binary)
	var missing error
	for _, suffix := range []string{"", "-linux-amd64", "-linux-arm64"} {
		arch, b, err := inspectProgram(path + suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if suffix == "" {
				missing = err
			}
			continue
		case err != nil:
			return nil, err
		}
		if _, have := out[arch]; !have {
			out[arch] = b
		}
	}
	if len(out) == 0 {
		return nil, missing
	}
	return out, nil
}

func inspectProgram(path string) (string, Binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", Binary{}, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "", Binary{}, errors.Join(err, fmt.Errorf("%s: no file", path))
	}
	head := make([]byte, len(elf.ELFMAG))
	if _, err := io.ReadFull(f, head); err != nil {
		return "", Binary{}, fmt.Errorf("%s: too short for a program", path)
	}
	switch {
	case string(head) == elf.ELFMAG:
		arch, b, err := inspect(path)
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
		return arch, b, err
	case bytes.HasPrefix(head, []byte("#!")):
		b, err := sum(path, f)
		return anyArch, b, err
	}
	return "", Binary{}, fmt.Errorf("%s: neither a program for Linux nor a script (#!)", path)
}

// Digest of the program for that architecture; empty where there is none.
func (p Programs) Digest(exec, arch string) fleet.Digest {
	builds := p[exec]
	if b, ok := builds[anyArch]; ok {
		return b.Digest
	}
	return builds[arch].Digest
}

// Lacking says, for people, why a service cannot run on nodes of that
// architecture; nil if it can.
func (p Programs) Lacking(s fleet.Service, arch string) error {
	if arch == "" || !s.Local() || p.Digest(s.Exec, arch) != "" {
		return nil
	}
	var has []string
	for a := range p[s.Exec] {
		has = append(has, a)
	}
	slices.Sort(has)
	return hint.New(fmt.Sprintf("service %q: %s is built for %v, not for %s", s.Name, s.Exec, has, arch),
		"put %s-linux-%s beside it, or keep it off such nodes with on = [...]", filepath.Base(s.Exec), arch)
}

// Open returns the bytes of a digest that is one of theirs, and how many there
// are.
func (p Programs) Open(d fleet.Digest) (io.ReadCloser, int64, bool) {
	for _, builds := range p {
		if r, n, ok := Binaries(builds).Open(d); ok {
			return r, n, ok
		}
	}
	return nil, 0, false
}
