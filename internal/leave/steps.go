package leave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/node/systemd"
	"github.com/moggyfleet/moggy/internal/engine/firewall"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// unitPrefix begins the names of all units of moggy's own.
const unitPrefix = "moggy-"

func (l *leaving) stop(ctx context.Context) error {
	out, err := l.Run(ctx, nil, "systemctl", "list-units", "--all", "--plain", "--full", "--no-legend", "--no-pager", unitPrefix+"*")
	if err != nil {
		return err
	}
	l.units = []string{"moggy-agent.service"}
	var running []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line) // name, load, active, sub, description
		if len(fields) < 4 || !strings.HasPrefix(fields[0], unitPrefix) || fields[0] == unit {
			continue
		}
		l.units = append(l.units, fields[0])
		if fields[2] != "inactive" && fields[2] != "failed" {
			running = append(running, fields[0])
		}
	}
	slices.Sort(l.units)
	l.units = slices.Compact(l.units)
	if len(running) == 0 {
		return nil
	}
	l.Say("stopping " + strings.Join(running, ", "))
	return l.Systemd.Do(ctx, systemd.Stop, running...)
}

// giveBack puts the generation before the first in force: nothing of ours. What
// it cannot do, for want of a file that tells it, the steps after it make up
// for.
func (l *leaving) giveBack(ctx context.Context) error {
	const current = node.Dir + "/current"
	if st, err := os.Lstat(l.real(current)); err == nil && st.Mode()&fs.ModeSymlink == 0 {
		if err := l.move(current); err != nil { // no link of ours: somebody's own
			return err
		}
	}
	l.astray = !l.there(node.Dir + "/ledger.json")
	var err error
	if l.held, err = l.node().Lock(ctx, "leave"); err != nil {
		return err
	}
	_, err = l.held.Activate(ctx, node.Target{}, func(e protocol.Event) {
		if e.Text != "" {
			l.Say(e.Text)
		}
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil, errors.Is(err, unix.EROFS), errors.Is(err, unix.ENOSPC):
		return err
	}
	l.Say(fmt.Sprintf("going on without what could not be undone in order: %v", err))
	return nil
}

// swept are the directories that a generation may write to.
func swept() []string { return []string{"/etc", "/usr/local", "/opt", "/srv"} }

// mark is what unit files of ours begin with.
const mark = "# Written by moggy"

// sweep removes links into our directory that no ledger knows, and copies of
// our unit files.
func (l *leaving) sweep(ctx context.Context) error {
	for _, top := range swept() {
		device, ok := deviceOf(l.real(top))
		if !ok {
			continue
		}
		err := filepath.WalkDir(l.real(top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || ctx.Err() != nil {
				return errors.Join(ignoreGone(err), ctx.Err())
			}
			switch {
			case d.IsDir():
				if on, ok := deviceOf(path); ok && on != device {
					return fs.SkipDir // another file system: none of ours
				}
				return nil
			case strings.HasPrefix(d.Name(), protocol.TempPrefix), l.leadsToUs(path, d), l.copyOfOurs(path, d):
				l.Say("removed " + strings.TrimPrefix(path, strings.TrimSuffix(l.Root, "/")))
				l.astray = true
				return ignoreGone(os.Remove(path))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !l.astray {
		return nil
	}
	dirs, err := filepath.Glob(l.real(protocol.SystemdDir) + "/*.wants")
	for _, dir := range dirs {
		os.Remove(dir) // nobody knows whether it was ours: an empty one means nothing to systemd
	}
	return err
}

func (l *leaving) leadsToUs(path string, d fs.DirEntry) bool {
	if d.Type()&fs.ModeSymlink == 0 {
		return false
	}
	target, err := os.Readlink(path)
	if err != nil {
		return false
	}
	// A link that enables a unit of ours leads to its unit file, which is gone.
	enables := strings.HasPrefix(target, l.real(protocol.SystemdDir)+"/"+unitPrefix)
	return l.ours(target) || enables && !l.exists(target)
}

func (l *leaving) exists(real string) bool {
	_, err := os.Stat(real)
	return err == nil
}

func (l *leaving) copyOfOurs(path string, d fs.DirEntry) bool {
	if !d.Type().IsRegular() || !strings.HasPrefix(d.Name(), unitPrefix) || filepath.Dir(path) != l.real(protocol.SystemdDir) {
		return false
	}
	content, err := os.ReadFile(path)
	return err == nil && bytes.HasPrefix(content, []byte(mark))
}

func deviceOf(path string) (uint64, bool) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return st.Dev, err == nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// keep moves what is the owner's out of our directories: what a hand had put
// into managed paths, and what a path held before us but somebody has filled
// since.
func (l *leaving) keep(context.Context) error {
	for _, dir := range []string{node.Dir + "/replaced", node.Dir + "/original", "/etc/moggy"} {
		if !l.hasFiles(dir) {
			continue
		}
		if err := l.move(dir); err != nil {
			return err
		}
	}
	return ignoreGone(os.RemoveAll(l.real("/etc/moggy"))) // empty directories
}

func (l *leaving) hasFiles(dir string) bool {
	found := false
	err := filepath.WalkDir(l.real(dir), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			found = true
			return fs.SkipAll
		}
		return nil
	})
	return found || ignoreGone(err) != nil
}

// move puts something where the owner finds it, in a directory that no other
// leave has used.
func (l *leaving) move(path string) error {
	if l.kept == "" {
		stamp := "/root/moggy-replaced-" + l.Now().UTC().Format("20060102T150405Z")
		for i := 1; ; i++ {
			l.kept = stamp
			if i > 1 {
				l.kept = fmt.Sprintf("%s-%d", stamp, i)
			}
			if !l.there(l.kept) {
				break
			}
		}
	}
	to := filepath.Join(l.kept, strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", "-"))
	if err := os.MkdirAll(l.real(l.kept), 0o700); err != nil {
		return err
	}
	err := os.Rename(l.real(path), l.real(to))
	if errors.Is(err, unix.EXDEV) { // mv(1) keeps modes, owners and attributes
		_, err = l.Run(context.Background(), nil, "mv", "-T", "--", l.real(path), l.real(to))
	}
	if err == nil {
		l.Say(fmt.Sprintf("moved %s to %s", path, to))
	}
	return err
}

// state removes what systemd and the agent keep outside our directory.
func (l *leaving) state(ctx context.Context) error {
	gone := []string{"/run/moggy", "/run/moggy-node", "/run/wireguard/" + fleet.MeshInterface + ".sock"}
	for _, u := range l.units {
		name := strings.TrimSuffix(u, filepath.Ext(u))
		for _, dir := range []string{"/var/lib", "/var/cache", "/var/log", "/run"} {
			gone = append(gone, filepath.Join(dir, "private", name), filepath.Join(dir, name))
		}
		gone = append(gone, "/var/lib/systemd/timers/stamp-"+u)
	}
	for _, path := range gone {
		if err := os.RemoveAll(l.real(path)); err != nil {
			return err
		}
	}
	if slices.Contains(l.units, firewall.Unit) {
		// The unit took its table with it, unless it had been killed.
		l.Run(ctx, nil, "nft", "delete", "table", "inet", firewall.Table) //nolint:errcheck // there is none, as a rule
	}
	os.Remove(l.real("/run/wireguard")) // stays where another interface has its socket
	if l.there("/sys/class/net/" + fleet.MeshInterface) {
		// A TUN goes with its process: somebody has made this one last.
		if _, err := l.Run(ctx, nil, "ip", "link", "delete", "dev", fleet.MeshInterface); err != nil {
			return err
		}
	}
	return nil
}

// forget lets systemd and sshd see the machine as it is now.
func (l *leaving) forget(ctx context.Context) error {
	if err := l.Systemd.DaemonReload(ctx); err != nil {
		return err
	}
	for _, u := range l.units {
		l.Run(ctx, nil, "systemctl", "reset-failed", "--", u) //nolint:errcheck // one that did not fail has nothing to forget
	}
	states, err := l.Systemd.Show(ctx, "ssh.service", "sshd.service")
	if err != nil {
		return err
	}
	for _, s := range states {
		if s.Active == "active" {
			return l.Systemd.Do(ctx, systemd.Reload, s.Name)
		}
	}
	return nil
}

// remove takes our directory away, the binary that could go on last of all.
func (l *leaving) remove(context.Context) error {
	entries, err := os.ReadDir(l.real(node.Dir))
	if err != nil {
		return ignoreGone(err)
	}
	for _, e := range entries {
		if e.Name() == filepath.Base(filepath.Dir(spare)) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(l.real(node.Dir), e.Name())); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(l.real(filepath.Dir(spare))); err != nil {
		return err
	}
	err = os.Remove(l.real(node.Dir))
	if errors.Is(err, unix.EBUSY) {
		l.Say(node.Dir + " is a mount of its own: it is empty, and stays")
		return nil
	}
	return ignoreGone(err)
}
