// Package cargo is what is too large for a plan and is brought to nodes by its
// digest: builds of moggy, and programs that lie beside the fleet's file. It
// finds the bytes on the operator's machine; carrying them is package deploy's.
package cargo

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Binaries are the builds of moggy at hand, by architecture as Go names it.
type Binaries map[string]Binary

// Binary is one build of moggy.
type Binary struct {
	Path   string
	Digest fleet.Digest
	Size   int64 // bytes
}

// architectures that moggy is built for, as ELF numbers them.
func architectures() map[elf.Machine]string {
	return map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}
}

// FindBinaries looks at the running executable and, beside it, at the builds
// for other architectures: moggy-linux-arm64, moggy-linux-amd64.
func FindBinaries(executable string) (Binaries, error) {
	out := Binaries{}
	dir := filepath.Dir(executable)
	for _, path := range []string{executable, filepath.Join(dir, "moggy-linux-amd64"), filepath.Join(dir, "moggy-linux-arm64")} {
		arch, b, err := inspect(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if _, have := out[arch]; !have {
			out[arch] = b
		}
	}
	return out, nil
}

func inspect(path string) (string, Binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", Binary{}, err
	}
	defer f.Close()
	head, err := elf.NewFile(f)
	if err != nil {
		return "", Binary{}, err
	}
	arch, ok := architectures()[head.Machine]
	if !ok {
		return "", Binary{}, fmt.Errorf("built for %s, which no node can be", head.Machine)
	}
	b, err := sum(path, f)
	return arch, b, err
}

// sum reads all of f.
func sum(path string, f io.ReadSeeker) (Binary, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return Binary{}, err
	}
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return Binary{}, err
	}
	return Binary{path, fleet.Digest(hex.EncodeToString(h.Sum(nil))), size}, nil
}

// For returns the build for an architecture; the error says where to put one.
func (b Binaries) For(arch string) (Binary, error) {
	bin, ok := b[arch]
	if !ok {
		return Binary{}, hint.New("there is no moggy for "+arch+" at hand",
			"put moggy-linux-%s beside the moggy you run (from source: make binaries)", arch)
	}
	return bin, nil
}

// File is our binary as a managed file. For an architecture that is not known
// yet its digest is empty.
func (b Binaries) File(arch string) fleet.File {
	return fleet.File{Path: agent.BinaryPath, Mode: 0o755, Digest: b[arch].Digest}
}

// Open returns the bytes of a digest that is one of ours, and how many there are.
func (b Binaries) Open(d fleet.Digest) (io.ReadCloser, int64, bool) {
	for _, bin := range b {
		if bin.Digest == d {
			f, err := os.Open(bin.Path)
			return f, bin.Size, err == nil
		}
	}
	return nil, 0, false
}
