package protocol

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

const digest = fleet.Digest("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")

func manifest(files ...fleet.ManifestFile) fleet.Manifest {
	return fleet.Manifest{Version: 1, Fleet: "cats", Node: "ziggy", Generation: 1, Files: files}
}

func file(path string) fleet.ManifestFile {
	return fleet.ManifestFile{Path: path, Mode: 0o644, Digest: digest}
}

func TestCheckManifest(t *testing.T) {
	with := func(change func(*fleet.Manifest)) fleet.Manifest {
		m := manifest(file("/etc/moggy/mesh.json"))
		change(&m)
		return m
	}
	mode := func(mode uint32, secret bool) fleet.Manifest {
		return with(func(m *fleet.Manifest) { m.Files[0].Mode, m.Files[0].Secret = mode, secret })
	}
	unit := func(units ...fleet.Unit) fleet.Manifest {
		return with(func(m *fleet.Manifest) {
			m.Files = append(m.Files, file("/etc/systemd/system/a.service"), file("/etc/systemd/system/t@.service"))
			m.Units = units
		})
	}
	check := func(c fleet.Check) fleet.Manifest {
		return with(func(m *fleet.Manifest) { m.Checks = []fleet.Check{c} })
	}
	tests := map[string]struct {
		m    fleet.Manifest
		want string // "" for a good one
	}{
		"ordinary":            {manifest(file("/etc/moggy/mesh.json"), file("/usr/local/bin/moggy"), file("/opt/x/y"), file("/srv/z"), file("/var/lib/moggy/files/f")), ""},
		"empty":               {manifest(), ""},
		"siblings":            {manifest(file("/etc/a"), file("/etc/a-b"), file("/etc/a.d/x")), ""},
		"newer":               {with(func(m *fleet.Manifest) { m.Version = 2 }), "version 2, this moggy knows up to 1"},
		"no version":          {with(func(m *fleet.Manifest) { m.Version = 0 }), "version 0"},
		"no generation":       {with(func(m *fleet.Manifest) { m.Generation = 0 }), "generation 0"},
		"huge generation":     {with(func(m *fleet.Manifest) { m.Generation = 1 << 40 }), "generation 1099511627776"},
		"fleet no label":      {with(func(m *fleet.Manifest) { m.Fleet = "../x" }), `fleet "../x"`},
		"node no label":       {with(func(m *fleet.Manifest) { m.Node = "" }), `node ""`},
		"relative":            {manifest(file("etc/x")), "not a clean absolute path"},
		"dots":                {manifest(file("/etc/../root/.ssh/authorized_keys")), "not a clean absolute path"},
		"double slash":        {manifest(file("/etc//x")), "not a clean absolute path"},
		"trailing slash":      {manifest(file("/etc/x/")), "not a clean absolute path"},
		"the root itself":     {manifest(file("/etc")), "managed files are under"},
		"outside":             {manifest(file("/root/.ssh/authorized_keys")), "managed files are under"},
		"boot":                {manifest(file("/boot/grub/grub.cfg")), "managed files are under"},
		"like a root":         {manifest(file("/etcetera/x")), "managed files are under"},
		"our own":             {manifest(file("/var/lib/moggy/keys/mesh.key")), "managed files are under"},
		"newline":             {manifest(file("/etc/a\nb")), "cannot be printed"},
		"NUL":                 {manifest(file("/etc/a\x00b")), "cannot be printed"},
		"invalid UTF-8":       {manifest(file("/etc/a\xffb")), "cannot be printed"},
		"long name":           {manifest(file("/etc/" + strings.Repeat("x", 201))), "too long"},
		"long path":           {manifest(file("/etc/" + strings.Repeat("x/", 600) + "y")), "too long"},
		"passwd":              {manifest(file("/etc/passwd")), "the machine's own"},
		"in the making":       {manifest(file("/etc/.moggy-tmp-x")), "kept for files in the making"},
		"wants by hand":       {manifest(file("/etc/systemd/system/multi-user.target.wants/a.service")), "[Install]"},
		"twice":               {manifest(file("/etc/x"), file("/etc/x")), "there twice"},
		"inside a file":       {manifest(file("/etc/x"), file("/etc/x-y"), file("/etc/x/y")), `inside the file "/etc/x"`},
		"setuid":              {mode(0o4755, false), "only permission bits"},
		"group-writable":      {mode(0o664, false), "others could write it"},
		"unreadable":          {mode(0o200, false), "could not read it"},
		"secret for all":      {mode(0o644, true), "everybody could read a secret"},
		"secret":              {mode(0o640, true), ""},
		"digest short":        {with(func(m *fleet.Manifest) { m.Files[0].Digest = "abc" }), "not a SHA-256"},
		"digest a path":       {with(func(m *fleet.Manifest) { m.Files[0].Digest = "../" + digest[3:] }), "not a SHA-256"},
		"units":               {unit(fleet.Unit{Name: "a.service"}, fleet.Unit{Name: "t@x.service"}, fleet.Unit{Name: "sshd.service", Foreign: true}), ""},
		"unit twice":          {unit(fleet.Unit{Name: "a.service"}, fleet.Unit{Name: "a.service"}), "there twice"},
		"unit without a file": {unit(fleet.Unit{Name: "b.service"}), "there is no /etc/systemd/system/b.service"},
		"unit an option":      {unit(fleet.Unit{Name: "--now.service", Foreign: true}), "not a unit's name"},
		"unit a path":         {unit(fleet.Unit{Name: "../x.service", Foreign: true}), "not a unit's name"},
		"unit no type":        {unit(fleet.Unit{Name: "sshd", Foreign: true}), "not a unit's name"},
		"package an option":   {with(func(m *fleet.Manifest) { m.Packages = []string{"-o"} }), `package "-o"`},
		"package":             {with(func(m *fleet.Manifest) { m.Packages = []string{"g++", "libc6.1-dev"} }), ""},
		"check of ssh":        {check(fleet.Check{Name: "sshd answers", Kind: fleet.CheckSSH, Address: "[::1]:22", Seconds: 60}), ""},
		"ssh of nowhere":      {check(fleet.Check{Name: "sshd answers", Kind: fleet.CheckSSH, Address: "22"}), "not host:port"},
		"check of a command":  {check(fleet.Check{Name: "sound", Kind: fleet.CheckRun, Command: []string{"/bin/true"}}), ""},
		"no command":          {check(fleet.Check{Name: "sound", Kind: fleet.CheckRun}), "no command with an absolute path"},
		"relative command":    {check(fleet.Check{Name: "sound", Kind: fleet.CheckRun, Command: []string{"true"}}), "no command with an absolute path"},
		"check of the mesh":   {check(fleet.Check{Name: "the mesh reaches a hub", Kind: fleet.CheckMesh}), ""},
		"check of the future": {check(fleet.Check{Name: "tea is hot", Kind: "tea"}), ""},
		"check without name":  {check(fleet.Check{Kind: fleet.CheckMesh}), "not a name"},
		"check for an hour":   {check(fleet.Check{Name: "x", Kind: fleet.CheckMesh, Seconds: 3600}), "3600 seconds: from 0 to 60"},
		"check of the past":   {check(fleet.Check{Name: "x", Kind: fleet.CheckMesh, Seconds: -1}), "-1 seconds"},
		"too many checks":     {with(func(m *fleet.Manifest) { m.Checks = make([]fleet.Check, maxChecks+1) }), "1001 checks"},
		"too many files":      {with(func(m *fleet.Manifest) { m.Files = make([]fleet.ManifestFile, maxFiles+1) }), "20001 files"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := CheckManifest(tt.m)
			if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	if err := CheckManifest(fleet.Manifest{Version: 2}); !errors.Is(err, ErrNewer) || len(hint.All(err)) == 0 {
		t.Errorf("a newer manifest: %v, want ErrNewer with a hint", err)
	}
}

func opener(content map[fleet.Digest]string) func(fleet.Digest) (io.ReadCloser, error) {
	return func(d fleet.Digest) (io.ReadCloser, error) {
		c, ok := content[d]
		if !ok {
			return nil, os.ErrNotExist
		}
		return io.NopCloser(strings.NewReader(c)), nil
	}
}

func TestStreamRoundTrip(t *testing.T) {
	m := manifest(file("/etc/x"))
	var b bytes.Buffer
	blobs := []Blob{{digest, 4}}
	if err := WriteStream(&b, m, blobs, opener(map[fleet.Digest]string{digest: "test"})); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReaderSize(&b, 16)
	h, err := ReadHeader(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Header{Hello{Version}, m, blobs}, h); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "test" {
		t.Errorf("what follows: %q, %v", rest, err)
	}
	if h.Total() != 4 || h.Mode(digest) != 0o644 {
		t.Errorf("total %d, mode %o", h.Total(), h.Mode(digest))
	}
}

func TestWriteStreamShort(t *testing.T) {
	err := WriteStream(io.Discard, manifest(file("/etc/x")), []Blob{{digest, 5}}, opener(map[fleet.Digest]string{digest: "test"}))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("content shorter than announced: %v", err)
	}
	err = WriteStream(io.Discard, manifest(file("/etc/x")), []Blob{{digest, 5}}, opener(nil))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("content that is not there: %v", err)
	}
}

func TestReadHeaderRefuses(t *testing.T) {
	line := func(protocol int, blobs ...Blob) string {
		b, err := json.Marshal(Header{Hello{protocol}, manifest(file("/etc/x")), blobs})
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	for name, tt := range map[string]struct{ in, want string }{
		"newer":        {line(3), "speaks protocol 3, this moggy knows up to 2"},
		"none":         {line(0), "protocol 0"},
		"foreign blob": {line(1, Blob{"x", 1}), "not in the manifest"},
		"blob twice":   {line(1, Blob{digest, 1}, Blob{digest, 1}), "sent twice"},
		"huge blob":    {line(1, Blob{digest, MaxBlob + 1}), "a size of"},
		"less than 0":  {line(1, Blob{digest, -1}), "a size of -1"},
		"a long line":  {strings.Repeat(" ", MaxHeader+1) + "\n", "longer than"},
		"cut":          {strings.TrimSpace(line(1)), "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadHeader(bufio.NewReader(strings.NewReader(tt.in)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	_, err := ReadHeader(bufio.NewReader(strings.NewReader(line(3))))
	if !errors.Is(err, ErrNewer) || len(hint.All(err)) != 1 {
		t.Errorf("a newer operator: %v with hints %v", err, hint.All(err))
	}
}

func TestDecode(t *testing.T) {
	got, err := Decode[Staged]([]byte(`{"protocol":1,"generation":7,"digest":"d","later":true}`))
	if err != nil || got.Generation != 7 {
		t.Errorf("%+v, %v; want names that are not known passed over", got, err)
	}
	if _, err := Decode[Staged]([]byte(`{"protocol":3,"generation":"a string now"}`)); !errors.Is(err, ErrNewer) || len(hint.All(err)) == 0 {
		t.Errorf("a newer answer: %v", err)
	}
	for _, in := range []string{"", "no", "{}", `{"protocol":1,"generation":"x"}`} {
		if _, err := Decode[Staged]([]byte(in)); err == nil {
			t.Errorf("%q: no error", in)
		}
	}
}

func TestReadManifestBounded(t *testing.T) {
	if _, err := ReadManifest(strings.NewReader(strings.Repeat(" ", MaxHeader+1))); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("error %v", err)
	}
}

func TestUnitFile(t *testing.T) {
	for unit, want := range map[string]string{"a.service": "a.service", "a@b.c.timer": "a@.timer", "a@.service": "a@.service"} {
		if got := UnitFile(unit); got != SystemdDir+"/"+want {
			t.Errorf("%s: %s, want %s", unit, got, want)
		}
	}
}

// FuzzReadHeader: whatever comes in, what is let through is safe to act on.
func FuzzReadHeader(f *testing.F) {
	for _, m := range []fleet.Manifest{
		manifest(file("/etc/x"), file("/etc/y/z")),
		{Version: 1, Fleet: "a", Node: "b", Generation: 3, Units: []fleet.Unit{{Name: "sshd.service", Foreign: true}}, Packages: []string{"nftables"}},
	} {
		b, err := json.Marshal(Header{Hello{1}, m, []Blob{{digest, 3}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(b, "\nabc"...))
	}
	f.Add([]byte("{\"protocol\":9}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		h, err := ReadHeader(r)
		if err != nil {
			return
		}
		if err := safe(h.Manifest); err != nil {
			t.Error(err)
		}
		rest, err := io.ReadAll(r)
		if err != nil || !bytes.HasSuffix(in, rest) {
			t.Errorf("what follows the header is not what is read next")
		}
		var again bytes.Buffer
		if err := WriteStream(&again, h.Manifest, nil, nil); err != nil {
			t.Errorf("let through, but not to be written: %v", err)
		}
		back, err := ReadHeader(bufio.NewReader(&again))
		if err != nil || DigestOf(back.Manifest) != DigestOf(h.Manifest) {
			t.Errorf("written and read again it is another: %v", err)
		}
	})
}

// safe is what every manifest that passed must be, said in another way than
// CheckManifest does.
func safe(m fleet.Manifest) error {
	seen := make(map[string]bool)
	for _, f := range m.Files {
		top := "/" + strings.SplitN(f.Path, "/", 3)[1]
		switch {
		case seen[f.Path]:
			return fmt.Errorf("%q twice", f.Path)
		case path.Clean(f.Path) != f.Path || !slices.Contains([]string{"/etc", "/usr", "/opt", "/srv", "/var"}, top):
			return fmt.Errorf("%q let through", f.Path)
		case strings.Contains(f.Path, "/store/") && top == "/var", strings.Contains(f.Path, "/keys/") && strings.HasPrefix(f.Path, "/var/lib/moggy/keys"):
			return fmt.Errorf("%q let through", f.Path)
		case f.Mode > 0o755 || len(f.Digest) != 64 || strings.ContainsAny(string(f.Digest), "/."):
			return fmt.Errorf("%+v let through", f)
		}
		seen[f.Path] = true
	}
	for p := range seen {
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if seen[dir] {
				return fmt.Errorf("%q is inside %q", p, dir)
			}
		}
	}
	for _, u := range m.Units {
		if strings.ContainsAny(u.Name, "/ \n") || strings.HasPrefix(u.Name, "-") || !u.Foreign && !seen[UnitFile(u.Name)] {
			return fmt.Errorf("unit %q let through", u.Name)
		}
	}
	return nil
}
