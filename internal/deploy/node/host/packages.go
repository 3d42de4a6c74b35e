package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/command"
	"github.com/moggyfleet/moggy/internal/hint"
)

// packageManager is how a family of distributions installs software.
type packageManager struct {
	name string
	// installed lists, of the packages it is asked for, those that are there.
	installed func(ctx context.Context, run command.Runner, names []string) ([]string, error)
	// refresh fetches the lists of what can be had; nil where install does.
	refresh []string
	install []string
	env     []string
	// names are this family's names, by Debian's, where they differ.
	names map[string]string
	// busy is what it says while another one is at work.
	busy string
}

// packagePatience bounds the wait for another package manager at work, such as
// the nightly upgrade; retryAfter is how often it is tried meanwhile.
const (
	packagePatience = 5 * time.Minute
	retryAfter      = 3 * time.Second
)

func apt() packageManager {
	return packageManager{
		name: "apt-get",
		installed: func(ctx context.Context, run command.Runner, names []string) ([]string, error) {
			// It exits with 1 when it does not know one of them.
			out, err := run(ctx, nil, "dpkg-query", append([]string{"--show", "--showformat=${Package} ${db:Status-Status}\n", "--"}, names...)...)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			var have []string
			for line := range strings.Lines(string(out)) {
				if name, status, _ := strings.Cut(strings.TrimSpace(line), " "); status == "installed" {
					have = append(have, name)
				}
			}
			return have, nil
		},
		refresh: []string{"apt-get", "--quiet", "update"},
		install: []string{
			"apt-get", "--quiet", "--yes", "--no-install-recommends",
			"--option=Dpkg::Options::=--force-confdef", "--option=Dpkg::Options::=--force-confold", "install", "--",
		},
		// needrestart would restart the machine's services as it sees fit.
		env:  []string{"DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"},
		busy: "Could not get lock",
	}
}

// rpmInstalled asks rpm, which all of its families have.
func rpmInstalled(ctx context.Context, run command.Runner, names []string) ([]string, error) {
	out, err := run(ctx, nil, "rpm", append([]string{"--query", "--queryformat=%{NAME}\n", "--"}, names...)...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var have []string
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimSpace(line); slices.Contains(names, name) {
			have = append(have, name)
		}
	}
	return have, nil
}

func dnf() packageManager {
	return packageManager{
		name: "dnf", installed: rpmInstalled,
		install: []string{"dnf", "--assumeyes", "--quiet", "--setopt=install_weak_deps=False", "install"},
		names:   map[string]string{"iproute2": "iproute"},
		busy:    "waiting for process with pid",
	}
}

func zypper() packageManager {
	return packageManager{
		name: "zypper", installed: rpmInstalled,
		install: []string{"zypper", "--non-interactive", "--quiet", "install", "--no-recommends", "--"},
		busy:    "System management is locked",
	}
}

func pacman() packageManager {
	return packageManager{
		name: "pacman",
		installed: func(ctx context.Context, run command.Runner, names []string) ([]string, error) {
			out, err := run(ctx, nil, "pacman", append([]string{"--query", "--quiet", "--"}, names...)...)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			return strings.Fields(string(out)), nil
		},
		refresh: []string{"pacman", "--sync", "--refresh", "--noconfirm"},
		install: []string{"pacman", "--sync", "--noconfirm", "--needed", "--"},
		names:   map[string]string{"openssh-server": "openssh", "openssh-client": "openssh"},
		busy:    "unable to lock database",
	}
}

// packageManager finds the machine's by os-release(5), the nearest relative
// first.
func (h Host) packageManager() (packageManager, bool) {
	release := h.osRelease()
	for _, id := range append([]string{release["ID"]}, strings.Fields(release["ID_LIKE"])...) {
		switch id {
		case "debian", "ubuntu":
			return apt(), true
		case "fedora", "rhel", "centos":
			return dnf(), true
		case "suse", "opensuse", "sles":
			return zypper(), true
		case "arch":
			return pacman(), true
		}
	}
	return packageManager{}, false
}

// call is a package by this family's name.
func (p packageManager) call(debian string) string {
	if name, ok := p.names[debian]; ok {
		return name
	}
	return debian
}

// missing are those of the packages, by their names in Debian, that are not
// installed.
func (p packageManager) missing(ctx context.Context, run command.Runner, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	called := make([]string, len(names))
	for i, name := range names {
		called[i] = p.call(name)
	}
	have, err := p.installed(ctx, run, called)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		if !slices.Contains(have, p.call(name)) {
			out = append(out, name)
		}
	}
	return out, nil
}

// Missing are those that are not installed; none where that cannot be
// known.
func (h Host) Missing(ctx context.Context, names []string) []string {
	p, ok := h.packageManager()
	if !ok {
		return nil
	}
	missing, err := p.missing(ctx, h.Run, names)
	if err != nil {
		return nil
	}
	return missing
}

// Install installs those that are not there, by their names in Debian, with
// the machine's own package manager, and says which they were. Another package
// manager at work is waited for.
func (h Host) Install(ctx context.Context, names []string) ([]string, error) {
	p, ok := h.packageManager()
	if !ok {
		return nil, hint.New(fmt.Sprintf("packages: %q is a distribution moggy cannot install on", h.osRelease()["ID"]),
			"install on the node by hand: %s", strings.Join(names, " "))
	}
	missing, err := p.missing(ctx, h.Run, names)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	called := make([]string, len(missing))
	for i, name := range missing {
		called[i] = p.call(name)
	}
	refreshed := p.refresh == nil
	if p.name == "apt-get" && !h.aptLists() {
		if err := h.patiently(ctx, p, p.refresh); err != nil {
			return nil, packageError(p, missing, err)
		}
		refreshed = true
	}
	err = h.patiently(ctx, p, append(slices.Clone(p.install), called...))
	if err != nil && !refreshed && ctx.Err() == nil {
		// The lists may be older than what the mirror has.
		if err = h.patiently(ctx, p, p.refresh); err == nil {
			err = h.patiently(ctx, p, append(slices.Clone(p.install), called...))
		}
	}
	if err != nil {
		return nil, packageError(p, missing, err)
	}
	left, err := p.missing(ctx, h.Run, missing)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s said it went well, but %s is not there", p.name, strings.Join(left, ", "))
	}
	return missing, err
}

func packageError(p packageManager, names []string, err error) error {
	return hint.Wrap(fmt.Errorf("packages: %s: %w", strings.Join(names, " "), err),
		"try it on the node: %s %s", strings.TrimSuffix(strings.Join(p.install, " "), " --"), strings.Join(names, " "))
}

// aptLists says whether apt has ever been told what can be had.
func (h Host) aptLists() bool {
	lists, err := filepath.Glob(h.real("/var/lib/apt/lists/*_Packages*"))
	return err == nil && len(lists) > 0
}

// patiently runs a command of the package manager's, again and again while
// another one is at work.
func (h Host) patiently(ctx context.Context, p packageManager, command []string) error {
	deadline := time.NewTimer(packagePatience)
	defer deadline.Stop()
	again := time.NewTicker(retryAfter)
	defer again.Stop()
	for {
		_, err := h.Run(ctx, p.env, command[0], command[1:]...)
		if err == nil || !strings.Contains(err.Error(), p.busy) {
			return err
		}
		select {
		case <-again.C:
		case <-deadline.C:
			return fmt.Errorf("another package manager is at work for %s: %w", packagePatience, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
