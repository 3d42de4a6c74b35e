// Package mirror is the package mirror of a lab's internet: the few Debian
// packages that moggy installs on a fresh machine, fetched once by the host's
// apt and served to machines that reach nothing else.
package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Packages is what machines can install: what moggy asks for on a first
// contact, and what a service that is a container runs on. What these depend
// on comes along.
func Packages() []string { return []string{"nftables", "wireguard-tools", "docker.io", "iptables"} }

// Host is the mirror's name in the lab's internet.
const Host = "deb.lab"

// Source is the line of a machine's sources.list. The lab's own mirror, on
// the same box, needs no signature.
const Source = "deb [trusted=yes] http://" + Host + "/ ./\n"

// format changes when what is kept in the cache does.
const format = "2 "

// Ensure returns the directory with the packages that the root file system
// lacks, and fetches them first from the Debian mirror at uri if they are not
// there. It is kept beside the root file system.
func Ensure(ctx context.Context, root string, uri func(context.Context) string, say func(string)) (string, error) {
	dir := place(root)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	partial, err := os.MkdirTemp(filepath.Dir(root), "packages-*.partial")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(partial)
	say("fetching " + strings.Join(Packages(), ", "))
	if err := fetch(ctx, root, partial, uri(ctx)); err != nil {
		return "", err
	}
	served := filepath.Join(partial, "served")
	if err := index(ctx, served); err != nil {
		return "", err
	}
	if err := os.Rename(served, dir); err != nil && !errors.Is(err, os.ErrExist) {
		if _, other := os.Stat(dir); other != nil {
			return "", err // else another moggy was first
		}
	}
	return dir, nil
}

// place is where the packages for a root file system are kept.
func place(root string) string {
	sum := sha256.Sum256([]byte(format + strings.Join(Packages(), " ")))
	return root + ".packages-" + hex.EncodeToString(sum[:4])
}

// fetch has apt-get find out what installing the packages into root takes,
// and download it. It has a configuration and state of its own: neither the
// host's package state nor its hooks come into it. It takes no lock: it changes
// nothing in root, and another lab may be doing the same.
func fetch(ctx context.Context, root, work, uri string) error {
	for _, dir := range []string{"lists/partial", "served/partial", "state"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return err
		}
	}
	sources := fmt.Sprintf("deb %s bookworm main\ndeb %s bookworm-updates main\n", uri, uri)
	config := fmt.Sprintf(`Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "%[2]s/etc/apt/trusted.gpg.d";
Dir::State "%[1]s/state";
Dir::State::lists "%[1]s/lists";
Dir::State::status "%[2]s/var/lib/dpkg/status";
Dir::Cache "%[1]s";
Dir::Cache::archives "%[1]s/served";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Debug::NoLocking "true";
Acquire::Languages "none";
%[3]s`, work, root, proxies(ctx))
	for name, text := range map[string]string{"sources.list": sources, "apt.conf": config} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	apt := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "APT_CONFIG="+filepath.Join(work, "apt.conf"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", args[len(args)-1], err, tail(out))
		}
		return nil
	}
	if err := apt("-q", "update"); err != nil {
		return err
	}
	return apt(append([]string{"-qy", "--download-only", "install"}, Packages()...)...)
}

// proxies are the host's apt's own, which a machine at a company may need.
func proxies(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "Acquire::") && strings.Contains(strings.ToLower(line), "proxy") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// index writes the Packages file of a flat repository (deb822, see
// sources.list(5)) over the packages in dir.
func index(ctx context.Context, dir string) error {
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	slices.Sort(debs)
	var list bytes.Buffer
	for _, deb := range debs {
		control, err := exec.CommandContext(ctx, "dpkg-deb", "--field", deb).Output()
		if err != nil {
			return fmt.Errorf("read %s: %w", filepath.Base(deb), err)
		}
		data, err := os.ReadFile(deb)
		if err != nil {
			return err
		}
		list.Write(bytes.TrimSpace(control))
		fmt.Fprintf(&list, "\nFilename: ./%s\nSize: %d\nSHA256: %x\n\n", filepath.Base(deb), len(data), sha256.Sum256(data))
	}
	if err := os.WriteFile(filepath.Join(dir, "Packages"), list.Bytes(), 0o644); err != nil {
		return err
	}
	// apt wants a date, and any will do: nothing here ever grows old.
	release := fmt.Sprintf("Origin: moggy lab\nLabel: moggy lab\nSuite: lab\nDate: Sat, 01 Jan 2000 00:00:00 UTC\nSHA256:\n %x %d Packages\n",
		sha256.Sum256(list.Bytes()), list.Len())
	for _, left := range []string{"lock", "partial"} {
		if err := os.RemoveAll(filepath.Join(dir, left)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "Release"), []byte(release), 0o644)
}

// Handler serves the packages in dir.
func Handler(dir string) http.Handler { return http.FileServerFS(os.DirFS(dir)) }
