// Package space makes network namespaces and what is in them: devices,
// addresses, routes, nftables rules. It is told what to make by a
// topology.Network, and never makes anything in the host's own namespace, not
// even for a moment.
package space

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// dir is where ip-netns(8) looks for namespaces.
const dir = "/run/netns"

// Path is the file that holds the namespace of that name.
func Path(name string) string { return filepath.Join(dir, name) }

// Exists says whether there is a namespace of that name.
func Exists(name string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(Path(name), &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// Make makes an empty namespace, known to ip-netns(8) by that name. One that
// is there already is left as it is.
func Make(name string) error {
	if Exists(name) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(Path(name), os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", Path(name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", Path(name), err)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, os.Remove(Path(name)))
	}
	return nil
}

// Remove forgets the namespace; it goes when its last process does. That there
// is none is no error.
func Remove(name string) error {
	for {
		err := unix.Unmount(Path(name), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // no mount is left
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", Path(name), err)
		}
	}
	if err := os.Remove(Path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveDirectory takes away the place of all namespaces if it is empty and
// nobody has mounted anything there.
func RemoveDirectory() { _ = os.Remove(dir) }

// Do runs f with its thread in the namespace. A socket that f opens and a
// process that it starts stay there.
func Do(name string, f func() error) error {
	ns, err := os.Open(Path(name))
	if err != nil {
		return err
	}
	defer ns.Close()
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", name, err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own that ends with it, so that whatever
// f does to its thread never meets other code. It is never the process's first
// thread: that one cannot end, and is what others see of the process.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onThread(f) // not here, as long as this is locked
			return
		}
		done <- f() // never unlocked: the runtime ends the thread
	}()
	return <-done
}

// ID is what the kernel calls the namespace: two names of one namespace have
// the same.
func ID(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}
