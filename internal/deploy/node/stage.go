package node

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/node/systemd"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Receive reads the stream of `moggy node stage`, stores its blobs and stages
// its manifest.
func (h *Held) Receive(r io.Reader) (protocol.Staged, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	head, err := protocol.ReadHeader(in)
	if err != nil {
		return protocol.Staged{}, err
	}
	if err := h.ours(head.Manifest); err != nil {
		return protocol.Staged{}, err
	}
	if err := h.room(head.Total()); err != nil {
		return protocol.Staged{}, err
	}
	for _, b := range head.Blobs {
		content := &exactly{r: in, left: b.Size}
		if err := h.PutBlob(b.Digest, head.Mode(b.Digest), content); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("stage: the stream ended %d bytes too early: %w", content.left, err)
			}
			return protocol.Staged{}, err
		}
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return protocol.Staged{}, errors.New("stage: the stream goes on after its last blob")
	}
	// Whoever holds it here is about to kill it: there is no context to end.
	if err := h.Reports().Pause(context.Background(), "stage", func(string) {}); err != nil {
		return protocol.Staged{}, err
	}
	return h.Stage(head.Manifest)
}

// Missing are the digests that must be sent before the manifest can be staged,
// sorted.
func (n *Node) Missing(m fleet.Manifest) ([]fleet.Digest, error) { return n.store.Missing(m) }

// PutBlob stores content for files of that mode. It reads r to its end, and
// leaves nothing when the content has another digest or does not fit.
func (h *Held) PutBlob(d fleet.Digest, mode uint32, r io.Reader) error {
	return readOnlyHint(h.store.Put(d, mode, r))
}

// exactly reads that many bytes, and calls it an error when there are fewer.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// ours refuses what is meant for another fleet or node.
func (n *Node) ours(m fleet.Manifest) error {
	name, node := n.identity()
	if node == "" || name == m.Fleet && node == m.Node {
		return nil
	}
	return hint.New(fmt.Sprintf("this machine is node %s of fleet %s; refused: a generation of node %s of fleet %s",
		node, name, m.Node, m.Fleet),
		"look where the address of %s leads; if this machine shall change its place, `moggy leave` on it first", m.Node)
}

// Stage builds a generation from the store, whole or not at all. Nothing that
// runs is touched. Staging it again changes nothing; staging another content
// under the number of a generation that is or was in force is refused.
func (h *Held) Stage(m fleet.Manifest) (protocol.Staged, error) {
	answer := protocol.Staged{
		Hello: protocol.Hello{Protocol: protocol.Version}, Generation: m.Generation, Digest: protocol.DigestOf(m),
	}
	if err := protocol.CheckManifest(m); err != nil {
		return answer, err
	}
	if err := h.ours(m); err != nil {
		return answer, err
	}
	if err := h.checkParents(m); err != nil {
		return answer, err
	}
	if err := h.supply(m); err != nil {
		return answer, fmt.Errorf("stage: generation %d: %w", m.Generation, err)
	}
	had, err := h.manifest(m.Generation)
	if err == nil && protocol.DigestOf(had) == answer.Digest {
		return answer, nil // its tree is looked at when it is activated
	}
	if err := h.replaceable(m.Generation); err != nil {
		return answer, err
	}
	if err := h.build(m); err != nil {
		return answer, readOnlyHint(fmt.Errorf("stage: generation %d: %w", m.Generation, err))
	}
	return answer, nil
}

// replaceable says whether a generation of that number may be built anew: not
// one that is in force or was, since going back would lead elsewhere then.
func (n *Node) replaceable(generation int) error {
	at, err := n.where()
	if err != nil {
		return err
	}
	p := n.pending()
	if generation == at.Number || generation == at.Previous || n.confirmed(generation) ||
		p != nil && p.Generation == generation {
		return hint.New(fmt.Sprintf("stage: generation %d is on this node with other content", generation),
			"the lock beside the fleet file is older than the node: take the newest (git pull), then apply again")
	}
	return nil
}

// supply sees to it that the store has every file of the manifest under its
// mode, and that programs are for this machine.
func (h *Held) supply(m fleet.Manifest) error {
	have, err := h.store.List()
	if err != nil {
		return err
	}
	v := h.store.Cache(false)
	for _, f := range m.Files {
		if err := h.store.Ensure(v, have, f); err != nil {
			return err
		}
		if err := h.runnable(f); err != nil {
			return err
		}
	}
	for _, u := range m.Units {
		f, ok := m.File(protocol.UnitFile(u.Name))
		if u.Foreign || !ok {
			continue
		}
		content, err := os.ReadFile(h.disk.Real(h.store.Path(f.Digest, f.Mode)))
		if err != nil {
			return err
		}
		if _, err := systemd.InstallLinks(u.Name, content); err != nil {
			return err
		}
	}
	return v.Save()
}

// machines are ELF's names for Go's.
func machines() map[string]elf.Machine {
	return map[string]elf.Machine{
		"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM, "386": elf.EM_386, "riscv64": elf.EM_RISCV,
	}
}

// runnable refuses a program made for another kind of machine.
func (n *Node) runnable(f fleet.ManifestFile) error {
	want, known := machines()[n.arch]
	if f.Mode&0o111 == 0 || !known {
		return nil
	}
	file, err := os.Open(n.disk.Real(n.store.Path(f.Digest, f.Mode)))
	if err != nil {
		return err
	}
	defer file.Close()
	var head [20]byte // the identification, the type, the machine
	if _, err := io.ReadFull(file, head[:]); err != nil || !bytes.HasPrefix(head[:], []byte(elf.ELFMAG)) {
		return nil // a script, or nothing at all
	}
	if got := elf.Machine(uint16(head[18]) | uint16(head[19])<<8); got != want {
		return hint.New(fmt.Sprintf("%s: is for %s, this machine is %s", f.Path, got, n.arch),
			"say arch = %q for this node in fleet.lock.hcl, then apply again", n.arch)
	}
	return nil
}

// build makes the generation's directory beside its place, and moves it there.
func (h *Held) build(m fleet.Manifest) error {
	final := generationDir(m.Generation)
	if err := h.disk.RemoveTree(final); err != nil {
		return err
	}
	tmp := disk.TempName(final)
	if err := h.disk.Mkdir(tmp, 0o711); err != nil {
		return err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := h.disk.Write(tmp+"/manifest.json", append(b, '\n')); err != nil {
		return err
	}
	if err := h.disk.Mkdir(tmp+"/root", 0o755); err != nil {
		return err
	}
	for _, f := range m.Files {
		if err := h.treeFile(f, filepath.Join(tmp, "root", f.Path)); err != nil {
			return err
		}
	}
	return h.disk.Rename(tmp, final)
}

// treeFile makes one file of a generation's tree, over whatever is there.
func (h *Held) treeFile(f fleet.ManifestFile, path string) error {
	for _, dir := range h.disk.MissingDirs(path) {
		if err := h.disk.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	blob := h.store.Path(f.Digest, f.Mode)
	st, err := os.Lstat(h.disk.Real(blob))
	if err != nil {
		return err
	}
	tmp := disk.TempName(path)
	if err := h.disk.Discard(tmp); err != nil {
		return err
	}
	put := h.disk.Copy
	if st.Size() >= h.linkAbove {
		put = h.disk.Link
	}
	if err := put(blob, tmp); err != nil {
		return errors.Join(err, h.disk.Discard(tmp))
	}
	return h.disk.Rename(tmp, path)
}

// checkParents refuses paths whose directory is, through a symbolic link,
// somewhere managed files may not be.
func (n *Node) checkParents(m fleet.Manifest) error {
	seen := make(map[string]bool)
	for _, f := range m.Files {
		dir := filepath.Dir(f.Path)
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if err := n.checkParent(dir); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) checkParent(dir string) error {
	for dir != "/" {
		resolved, err := filepath.EvalSymlinks(n.disk.Real(dir))
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(n.disk.Real(dir)); err == nil {
				return fmt.Errorf("%s: a link that leads nowhere", dir)
			}
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return err
		}
		st, err := os.Stat(resolved)
		switch {
		case err != nil:
			return err
		case !st.IsDir():
			return hint.New(fmt.Sprintf("%s: not a directory, though managed files shall be in it", dir), "move it away on the node")
		}
		return n.inside(dir, resolved)
	}
	return nil
}

// inside says whether a directory that resolved to another is still under a
// root of managed files, each root being taken for what it resolves to itself
// (/opt is a link on some distributions).
func (n *Node) inside(dir, resolved string) error {
	for _, root := range append(protocol.Roots(), Dir) {
		real, err := filepath.EvalSymlinks(n.disk.Real(root))
		if err == nil && (resolved == real || within(resolved, real)) {
			return nil
		}
		if within(root, dir) || root == dir {
			return nil // above the root: the file's own directories do not exist yet
		}
	}
	return fmt.Errorf("%s: is %s, where no managed file may be", dir, resolved)
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && rel != ".." && !filepath.IsAbs(rel) && (len(rel) < 3 || rel[:3] != "../")
}
