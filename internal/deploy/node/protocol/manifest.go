package protocol

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// SystemdDir is where unit files are.
const SystemdDir = "/etc/systemd/system"

// maxFiles bounds a generation: a thousand services of a few files each fit.
const maxFiles = 20000

const upgradeNode = "the node's moggy is older than the operator's: " +
	"install the newer one on the node first (moggy apply does), or use the older one"

// Roots is where managed files may be. Everything a generation can need
// is there, and a mistake elsewhere could stop the machine from booting.
func Roots() []string {
	return []string{"/etc", "/usr/local", "/opt", "/srv", "/var/lib/moggy/files"}
}

// forbidden are files that the machine itself rewrites by renaming over them,
// or reads before our directory is mounted: a link of ours there would be lost
// or would stop the boot.
func forbidden() []string {
	return []string{
		"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid",
		"/etc/fstab", "/etc/crypttab", "/etc/machine-id", "/etc/ld.so.cache", "/etc/ld.so.preload",
	}
}

var (
	labelForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // RFC 1123, section 2.1
	digestForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	unitForm    = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.(service|socket|timer|path|mount|automount|swap|target|slice)$`)
	addressForm = regexp.MustCompile(`^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}$`)
	imageForm   = regexp.MustCompile(`^[a-z0-9][a-zA-Z0-9._:/@-]{0,254}$`)
	packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]{1,63}$`) // Debian policy, section 5.6.7
)

// CheckManifest says whether a manifest is one a node may stage: of a version
// this release knows, with clean paths in places where managed files may be,
// no path twice or inside another, no mode that would let others write, and
// for each unit of ours its unit file.
func CheckManifest(m fleet.Manifest) error {
	switch {
	case m.Version > fleet.ManifestVersion:
		return hint.Wrap(fmt.Errorf("manifest: version %d, this moggy knows up to %d: %w",
			m.Version, fleet.ManifestVersion, ErrNewer), upgradeNode)
	case m.Version < 1:
		return fmt.Errorf("manifest: version %d: no such version", m.Version)
	case !labelForm.MatchString(string(m.Fleet)):
		return fmt.Errorf("manifest: fleet %q: not a DNS label", m.Fleet)
	case !labelForm.MatchString(string(m.Node)):
		return fmt.Errorf("manifest: node %q: not a DNS label", m.Node)
	case m.Generation < 1 || m.Generation > 1<<31-1:
		return fmt.Errorf("manifest: generation %d: not a positive number", m.Generation)
	case len(m.Files) > maxFiles:
		return fmt.Errorf("manifest: %d files: the most is %d", len(m.Files), maxFiles)
	}
	if err := checkFiles(m.Files); err != nil {
		return err
	}
	if err := checkUnits(m); err != nil {
		return err
	}
	if err := checkChecks(m.Checks); err != nil {
		return err
	}
	for _, p := range m.Packages {
		if !packageForm.MatchString(p) {
			return fmt.Errorf("manifest: package %q: not a package's name", p)
		}
	}
	for _, image := range m.Images {
		if !imageForm.MatchString(image) {
			return fmt.Errorf("manifest: image %q: not an image's name", image)
		}
	}
	return nil
}

func checkFiles(files []fleet.ManifestFile) error {
	paths := make([]string, 0, len(files))
	for _, f := range files {
		if err := checkPath(f.Path); err != nil {
			return fmt.Errorf("manifest: file %q: %w", f.Path, err)
		}
		switch {
		case !digestForm.MatchString(string(f.Digest)):
			return fmt.Errorf("manifest: file %q: digest %q: not a SHA-256 in hexadecimal", f.Path, f.Digest)
		case f.Mode&^0o777 != 0:
			return fmt.Errorf("manifest: file %q: mode %#o: only permission bits", f.Path, f.Mode)
		case f.Mode&0o022 != 0:
			return fmt.Errorf("manifest: file %q: mode %#o: others could write it", f.Path, f.Mode)
		case f.Mode&0o400 == 0:
			return fmt.Errorf("manifest: file %q: mode %#o: its owner could not read it", f.Path, f.Mode)
		case f.Secret && f.Mode&0o007 != 0:
			return fmt.Errorf("manifest: file %q: mode %#o: everybody could read a secret", f.Path, f.Mode)
		}
		paths = append(paths, f.Path)
	}
	// A path is sorted beside those inside it once "/" is the lowest character.
	slices.SortFunc(paths, func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
	})
	for i := 1; i < len(paths); i++ {
		switch {
		case paths[i] == paths[i-1]:
			return fmt.Errorf("manifest: file %q: there twice", paths[i])
		case strings.HasPrefix(paths[i], paths[i-1]+"/"):
			return fmt.Errorf("manifest: file %q: inside the file %q", paths[i], paths[i-1])
		}
	}
	return nil
}

func checkPath(p string) error {
	switch {
	case !path.IsAbs(p) || path.Clean(p) != p:
		return fmt.Errorf("not a clean absolute path")
	case len(p) > 1024 || slices.ContainsFunc(strings.Split(p, "/"), func(s string) bool { return len(s) > 200 }):
		return fmt.Errorf("too long") // 255 is the kernel's limit of a name; ours carry a prefix while they are made
	case strings.ContainsFunc(p, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\uFFFD' }):
		return fmt.Errorf("has characters that cannot be printed")
	case slices.Contains(forbidden(), p):
		return fmt.Errorf("the machine's own, not to be managed")
	case strings.HasPrefix(path.Base(p), TempPrefix):
		return fmt.Errorf("a name kept for files in the making")
	case strings.HasPrefix(p, SystemdDir+"/"):
		if ext := path.Ext(path.Dir(p)); ext == ".wants" || ext == ".requires" {
			return fmt.Errorf("what starts at boot follows from [Install] in the unit file")
		}
	}
	for _, root := range Roots() {
		if strings.HasPrefix(p, root+"/") {
			return nil
		}
	}
	return fmt.Errorf("managed files are under %s", strings.Join(Roots(), ", "))
}

// TempPrefix begins the names of what is not finished yet.
const TempPrefix = ".moggy-tmp-"

func checkUnits(m fleet.Manifest) error {
	files := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		files[f.Path] = true
	}
	seen := make(map[string]bool, len(m.Units))
	for _, u := range m.Units {
		switch {
		case !unitForm.MatchString(u.Name) || strings.HasPrefix(u.Name, "-") || len(u.Name) > 200:
			return fmt.Errorf("manifest: unit %q: not a unit's name", u.Name)
		case seen[u.Name]:
			return fmt.Errorf("manifest: unit %q: there twice", u.Name)
		case !u.Foreign && !files[UnitFile(u.Name)]:
			return fmt.Errorf("manifest: unit %q: there is no %s", u.Name, UnitFile(u.Name))
		}
		seen[u.Name] = true
	}
	return nil
}

// What a manifest's checks may be: one for each of a thousand services, each
// well within a minute.
const (
	maxChecks  = 1000
	maxSeconds = 60
)

// checkChecks lets kinds be that this release does not know: they pass.
func checkChecks(checks []fleet.Check) error {
	if len(checks) > maxChecks {
		return fmt.Errorf("manifest: %d checks: the most is %d", len(checks), maxChecks)
	}
	for _, c := range checks {
		switch {
		case c.Name == "" || len(c.Name) > 200 || strings.ContainsFunc(c.Name, func(r rune) bool { return r < 0x20 || r == 0x7f }):
			return fmt.Errorf("manifest: check %.200q: not a name", c.Name)
		case c.Seconds < 0 || c.Seconds > maxSeconds:
			return fmt.Errorf("manifest: check %q: %d seconds: from 0 to %d", c.Name, c.Seconds, maxSeconds)
		case c.Kind == fleet.CheckSSH && !addressForm.MatchString(c.Address):
			return fmt.Errorf("manifest: check %q: %q: not host:port", c.Name, c.Address)
		case c.Kind == fleet.CheckRun && (len(c.Command) == 0 || !path.IsAbs(c.Command[0])):
			return fmt.Errorf("manifest: check %q: no command with an absolute path", c.Name)
		}
	}
	return nil
}

// UnitFile is the path of a unit's file: of the template, for an instance.
func UnitFile(unit string) string {
	if name, rest, ok := strings.Cut(unit, "@"); ok {
		return SystemdDir + "/" + name + "@" + path.Ext(rest)
	}
	return SystemdDir + "/" + unit
}

// GuardUnit is the unit that runs `moggy node guard` when a machine starts,
// before anything of ours.
const GuardUnit = "moggy-guard.service"
