package space_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/space"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

// TestNetns makes namespaces, links and rules, and takes them away.
func TestNetns(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n, err := topology.Build(&fleet.Fleet{
		Sites: []fleet.Site{{Name: "home", Kind: fleet.Home, NAT: fleet.CarrierNAT, IPv6: true}},
		Nodes: []fleet.Node{{Name: "box", Site: "home"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	full := func(s string) string { return fmt.Sprintf("moggy-space-%d-%s", os.Getpid(), s) }
	box := full("node-box")
	t.Cleanup(func() {
		for _, s := range n.Spaces {
			if err := space.Remove(full(s.Name)); err != nil {
				t.Error(err)
			}
			if err := space.Remove(full(s.Name)); err != nil {
				t.Errorf("removed twice: %v", err)
			}
		}
		space.RemoveDirectory()
		if space.Exists(box) {
			t.Error("a namespace is left")
		}
	})
	for _, what := range []string{"wired", "wired again where it stands"} {
		if err := space.Wire(t.Context(), n, full); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		n = n.Beyond(n)
	}
	for _, r := range n.Routers() {
		if err := space.Rules(t.Context(), full(r), n.Rules(r, nil)); err != nil {
			t.Error(err)
		}
	}
	if out := in(t, box, "ip", "-br", "address", "show", "eth0"); !strings.Contains(out, "192.168.1.11/24") || !strings.Contains(out, "2001:db8:f000::11/64") {
		t.Errorf("eth0: %s", out)
	}
	in(t, box, "ping", "-c1", "-W2", "192.0.2.10")
	in(t, box, "ping", "-6", "-c1", "-W2", "2001:db8::10")
	if err := space.Forget(full("site-home")); err != nil {
		t.Error(err)
	}
	if err := space.Rules(t.Context(), box, "no such rule"); err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("rules that are none: %v", err)
	}
	for range 2 {
		if err := space.Unplug(full("site-home"), "n-box"); err != nil {
			t.Error(err)
		}
	}
	if err := space.Do(box, func() error { return exec.Command("ip", "link", "show", "eth0").Run() }); err == nil {
		t.Error("the other end is still plugged in")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := space.Wire(ended, n, full); !errors.Is(err, context.Canceled) {
		t.Errorf("wiring after the end: %v", err)
	}
}

func in(t *testing.T, name string, argv ...string) string {
	t.Helper()
	var out []byte
	if err := space.Do(name, func() (err error) {
		out, err = exec.Command(argv[0], argv[1:]...).CombinedOutput()
		return err
	}); err != nil {
		t.Errorf("%s in %s: %v: %s", strings.Join(argv, " "), name, err, out)
	}
	return string(out)
}

// TestNetnsThreads enters a namespace often and at once: the process, which is
// its first thread to everybody else, must never be seen there, and no later
// code may find itself there.
func TestNetnsThreads(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	name := fmt.Sprintf("moggy-threads-%d", os.Getpid())
	home, err := space.ID("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := space.Make(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := space.Remove(name); err != nil {
			t.Error(err)
		}
		space.RemoveDirectory()
	})
	there, err := space.ID(space.Path(name))
	if err != nil || there == home {
		t.Fatalf("the new namespace is %d, ours %d, %v", there, home, err)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if err := space.Do(name, func() error {
				if id, err := space.ID("/proc/thread-self/ns/net"); err != nil || id != there {
					t.Errorf("in the namespace, the thread is in %d, %v", id, err)
				}
				if id, err := space.ID("/proc/self/ns/net"); err != nil || id != home {
					t.Errorf("the process was seen in %d, %v", id, err)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if id, err := space.ID("/proc/thread-self/ns/net"); err != nil || id != home {
				t.Errorf("after it, a thread is in %d, %v", id, err)
			}
		})
	}
	all.Wait()
	if err := space.Do("no-such-space", func() error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a namespace that is not there: %v", err)
	}
}
