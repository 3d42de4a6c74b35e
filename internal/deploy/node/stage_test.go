package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

func (m *machine) receive(stream []byte) error {
	m.t.Helper()
	return m.locked(func(h *Held) error {
		_, err := h.Receive(bytes.NewReader(stream))
		return err
	})
}

func TestStageRefuses(t *testing.T) {
	other := func(change func(*fleet.Manifest)) func(*generation) []byte {
		return func(g *generation) []byte {
			change(&g.Manifest)
			return nil
		}
	}
	tests := map[string]struct {
		change func(*generation) []byte // a stream, nil for the ordinary one
		want   string
	}{
		"another node":  {other(func(m *fleet.Manifest) { m.Node = "ari" }), "this machine is node ziggy of fleet cats; refused: a generation of node ari"},
		"another fleet": {other(func(m *fleet.Manifest) { m.Fleet = "dogs" }), "refused: a generation of node ziggy of fleet dogs"},
		"newer manifest": {
			other(func(m *fleet.Manifest) { m.Version = 2 }),
			"version 2, this moggy knows up to 1",
		},
		"Alias in [Install]": {func(g *generation) []byte {
			g.unit(fleet.Unit{Name: "b.service"}, "[Install]\nAlias=c.service\n")
			return nil
		}, "only WantedBy, RequiredBy and UpheldBy are understood"},
		"another architecture": {func(g *generation) []byte {
			head := append([]byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00"), 0, 0)
			binary.LittleEndian.PutUint16(head[18:], 243) // RISC-V
			g.file("/usr/local/bin/other", 0o755, string(head))
			return nil
		}, "/usr/local/bin/other: is for EM_RISCV, this machine is"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.apply(ordinary(1, "a"))
			before := m.snapshot()
			g := ordinary(2, "b")
			in := tt.change(g)
			if in == nil {
				in = m.stream(g)
			}
			err := m.receive(in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			after := m.snapshot()
			for path := range before {
				if before[path] != after[path] {
					t.Errorf("%s changed", path)
				}
			}
			if g := m.generations(); !slices.Equal(g, []int{1}) {
				t.Errorf("generations %v", g)
			}
		})
	}
}

func TestReceiveBrokenStreams(t *testing.T) {
	m := newMachine(t)
	g := ordinary(1, "a")
	good := m.stream(g)
	head := bytes.IndexByte(good, '\n') + 1
	last := len(good) - 1
	flipped := bytes.Clone(good)
	flipped[last] ^= 1
	tests := map[string]struct {
		in   []byte
		want string
	}{
		"nothing":           {nil, "unexpected EOF"},
		"half a header":     {good[:head/2], "unexpected EOF"},
		"header alone":      {good[:head], "the stream ended"},
		"last byte missing": {good[:last], "the stream ended 1 bytes too early"},
		"last byte wrong":   {flipped, "arrived with the digest"},
		"a byte too many":   {append(bytes.Clone(good), 'x'), "goes on after its last blob"},
		"no JSON":           {[]byte("ssh: hello\n"), "header: invalid character"},
		"no newline":        {bytes.Repeat([]byte("{"), protocol.MaxHeader+10), "longer than"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := m.receive(tt.in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if g := m.generations(); len(g) > 0 {
				t.Errorf("generations %v", g)
			}
			for path := range m.snapshot() {
				if strings.Contains(path, protocol.TempPrefix) {
					t.Errorf("left: %s", path)
				}
			}
		})
	}
	if err := m.receive(m.stream(g)); err != nil {
		t.Errorf("after all that, the good stream: %v", err)
	}
	m.activate(1)
	m.whole(g)
}

// TestMissing sees damage in the store, and sends again only what is damaged.
func TestMissing(t *testing.T) {
	m := newMachine(t)
	g := ordinary(1, "a")
	m.apply(g)
	if missing, err := m.Missing(g.Manifest); err != nil || len(missing) > 0 {
		t.Fatalf("missing %v, %v", missing, err)
	}
	f, _ := g.File("/etc/moggy/mesh.json")
	blob := m.store.Path(f.Digest, f.Mode)
	m.write(blob, "mesh X\n")
	missing, err := m.Missing(g.Manifest)
	if err != nil || !slices.Equal(missing, []fleet.Digest{f.Digest}) {
		t.Fatalf("missing %v, %v; want the damaged one", missing, err)
	}
	m.apply(g)
	if got := m.read(blob); got != "mesh a\n" {
		t.Errorf("the store has %q", got)
	}
	m.whole(g)
}

func TestSameContentUnderTwoModes(t *testing.T) {
	m := newMachine(t)
	g := newGeneration(1).file("/etc/a", 0o644, "same\n").file("/etc/b", 0o600, "same\n")
	if missing, err := m.Missing(g.Manifest); err != nil || len(missing) != 1 {
		t.Fatalf("missing %v, %v; want it once", missing, err)
	}
	m.apply(g)
	m.whole(g)
	g = newGeneration(2).file("/etc/a", 0o640, "same\n")
	if missing, err := m.Missing(g.Manifest); err != nil || len(missing) > 0 {
		t.Fatalf("missing %v, %v; want nothing for another mode", missing, err)
	}
	m.apply(g)
	m.whole(g)
}

func TestStageTakesNumbersOnce(t *testing.T) {
	m := newMachine(t)
	m.apply(ordinary(1, "a"))
	if _, err := m.tryStage(ordinary(1, "b")); err == nil || !strings.Contains(err.Error(), "generation 1 is on this node with other content") {
		t.Errorf("over the one in force: %v", err)
	}
	m.stage(ordinary(2, "b"))
	m.stage(ordinary(2, "c")) // never in force: an apply that was given up
	m.activate(2)
	m.whole(ordinary(2, "c"))
}

func TestParentsMayNotLeadOut(t *testing.T) {
	m := newMachine(t)
	for link, target := range map[string]string{
		"/etc/out": "/home/user", "/etc/in": m.root + "/etc/real", "/etc/nowhere": "/nonexistent", "/opt": m.root + "/var/opt",
	} {
		if err := os.Symlink(target, m.root+link); err != nil {
			t.Fatal(err)
		}
	}
	m.write("/home/user/file", "")
	if err := os.Remove(m.root + "/etc/out"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(m.root+"/home/user", m.root+"/etc/out"); err != nil {
		t.Fatal(err)
	}
	m.write("/etc/real/file", "")
	m.write("/var/opt/file", "")
	m.write("/etc/plain", "")
	for path, want := range map[string]string{
		"/etc/out/x": "where no managed file may be", "/etc/out/deep/x": "where no managed file may be",
		"/etc/nowhere/x": "a link that leads nowhere", "/etc/plain/x": "not a directory",
		"/etc/in/x": "", "/opt/x": "", "/opt/deep/x": "", "/srv/x": "", "/etc/new/x": "",
	} {
		_, err := m.tryStage(newGeneration(1).file(path, 0o644, "x"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}

// TestDiskReallyFull fills a small file system of its own.
func TestDiskReallyFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system, which needs root")
	}
	m := newMachine(t)
	if err := os.MkdirAll(m.root+Dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", m.root+Dir, "tmpfs", 0, "size=20m"); err != nil {
		t.Skipf("mounts a file system: %v", err)
	}
	defer func() {
		if err := unix.Unmount(m.root+Dir, 0); err != nil {
			t.Error(err)
		}
	}()
	one := ordinary(1, "a")
	m.apply(one)
	if !m.apart() {
		t.Error("a file system of its own is not seen as one")
	}
	m.whole(one)
	two := ordinary(2, "b").file("/usr/local/bin/big", 0o755, strings.Repeat("x", 6<<20))
	err := m.receive(m.stream(two))
	if err == nil || !strings.Contains(err.Error(), "has 19 MB free") || len(hint.All(err)) == 0 {
		t.Errorf("too large to begin with: %v", err)
	}
	// Room by the header, but something else takes it meanwhile.
	fill, err := os.Create(m.root + Dir + "/filler")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(fill, zeros{}, 1<<30); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	fill.Close()
	f, _ := two.File("/usr/local/bin/big")
	err = m.locked(func(h *Held) error {
		return h.PutBlob(f.Digest, f.Mode, bytes.NewReader(two.content[f.Digest]))
	})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(strings.Join(hint.All(err), ""), "disk is full") {
		t.Errorf("full while a blob arrives: %v", err)
	}
	os.Remove(m.root + Dir + "/filler")
	m.whole(one)
	m.nothingHalf()
}

// TestReadOnlyEtc: what must change there is found out before anything does.
func TestReadOnlyEtc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system, which needs root")
	}
	m := newMachine(t)
	m.Node.apart = func() bool { return false } // as if the whole disk were read-only
	one, two := ordinary(1, "a"), ordinary(2, "b")
	three := ordinary(3, "b").file("/etc/new.conf", 0o644, "new\n")
	m.apply(one)
	m.stage(two)
	m.stage(three)
	etc := m.root + "/etc"
	if err := unix.Mount(etc, etc, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mounts a file system: %v", err)
	}
	defer func() {
		if err := unix.Unmount(etc, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Mount("", etc, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := m.tryActivate(3)
	if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "generation 3: verify: /etc") || !strings.Contains(strings.Join(hint.All(err), ""), "mount it writable") {
		t.Errorf("error %v, hints %v", err, hint.All(err))
	}
	if at := m.observe().Current.Number; at != 1 {
		t.Errorf("generation %d is in force, want 1", at)
	}
	m.activate(2) // changes nothing in /etc: its links are there
	m.whole(two)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// nothingHalf fails if something in the making was left.
func (m *machine) nothingHalf() {
	m.t.Helper()
	for path := range m.snapshot() {
		if strings.Contains(path, protocol.TempPrefix) {
			m.t.Errorf("left: %s", path)
		}
	}
}
