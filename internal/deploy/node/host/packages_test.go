package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/hint"
)

// shop is a package manager in memory.
type shop struct {
	installed map[string]bool
	stale     bool // until the lists are refreshed
	busy      int  // how often it says that another one is at work
	broken    bool
	calls     []string
}

func (s *shop) run(_ context.Context, env []string, name string, args ...string) ([]byte, error) {
	line := name + " " + strings.Join(args, " ")
	after := func(mark string) []string {
		_, rest, _ := strings.Cut(line, mark+" ")
		return strings.Fields(rest)
	}
	switch {
	case name == "dpkg-query", name == "rpm", name == "pacman" && args[0] == "--query":
		var out strings.Builder
		for _, p := range after(" --") {
			if s.installed[p] {
				fmt.Fprintln(&out, p, "installed")
			}
		}
		text := out.String()
		if name != "dpkg-query" {
			text = strings.ReplaceAll(text, " installed", "")
		}
		return []byte(text), errors.New("exit status 1")
	case strings.Contains(line, "apt-get --quiet update"), strings.Contains(line, "--refresh"):
		s.calls = append(s.calls, "refresh")
		s.stale = false
		return nil, nil
	}
	s.calls = append(s.calls, "install")
	if name == "apt-get" && !strings.Contains(strings.Join(env, " "), "DEBIAN_FRONTEND=noninteractive") {
		return nil, errors.New("asks questions")
	}
	if s.busy > 0 {
		s.busy--
		return nil, errors.New("E: Could not get lock /var/lib/dpkg/lock-frontend; unable to lock database; System management is locked")
	}
	if s.stale {
		return nil, errors.New("E: Unable to locate package")
	}
	if s.broken {
		return nil, errors.New("E: the mirror is on fire")
	}
	names := after(" --")
	if name == "dnf" {
		names = after("install")
	}
	for _, p := range names {
		s.installed[p] = true
	}
	return nil, nil
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPackages(t *testing.T) {
	tests := map[string]struct {
		os    string
		lists bool
		shop  shop
		ask   []string
		want  []string
		calls []string
		err   string
	}{
		"all there":     {os: "ID=debian", shop: shop{installed: map[string]bool{"nftables": true}}, ask: []string{"nftables"}},
		"never updated": {os: "ID=debian", ask: []string{"nftables"}, want: []string{"nftables"}, calls: []string{"refresh", "install"}},
		"lists at hand": {os: "ID=ubuntu\nID_LIKE=debian", lists: true, ask: []string{"nftables"}, want: []string{"nftables"}, calls: []string{"install"}},
		"lists too old": {
			os: "ID=debian", lists: true, shop: shop{stale: true}, ask: []string{"nftables"}, want: []string{"nftables"},
			calls: []string{"install", "refresh", "install"},
		},
		"another at work": {
			os: "ID=debian", lists: true, shop: shop{busy: 3}, ask: []string{"nftables"}, want: []string{"nftables"},
			calls: []string{"install", "install", "install", "install"},
		},
		"mirror on fire": {os: "ID=debian", lists: true, shop: shop{broken: true}, ask: []string{"a", "b"}, calls: []string{"install", "refresh", "install"}, err: "packages: a b: E: the mirror is on fire"},
		"half there": {
			os: "ID=debian", lists: true, shop: shop{installed: map[string]bool{"a": true}}, ask: []string{"a", "b"}, want: []string{"b"},
			calls: []string{"install"},
		},
		"fedora":       {os: "ID=fedora", ask: []string{"iproute2"}, want: []string{"iproute2"}, calls: []string{"install"}},
		"rocky":        {os: "ID=rocky\nID_LIKE=\"rhel centos fedora\"", ask: []string{"nftables"}, want: []string{"nftables"}, calls: []string{"install"}},
		"tumbleweed":   {os: "ID=opensuse-tumbleweed\nID_LIKE='opensuse suse'", ask: []string{"nftables"}, want: []string{"nftables"}, calls: []string{"install"}},
		"arch":         {os: "ID=arch", ask: []string{"openssh-server"}, want: []string{"openssh-server"}, calls: []string{"install"}},
		"nobody knows": {os: "ID=plan9", ask: []string{"nftables"}, err: `"plan9" is a distribution moggy cannot install on`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root+"/etc/os-release", tt.os+"\n")
			if tt.lists {
				write(t, root+"/var/lib/apt/lists/deb.debian.org_dists_bookworm_main_binary-amd64_Packages.lz4", "")
			}
			synctest.Test(t, func(t *testing.T) {
				if tt.shop.installed == nil {
					tt.shop.installed = make(map[string]bool)
				}
				h := Host{Root: root, Run: tt.shop.run}
				got, err := h.Install(t.Context(), tt.ask)
				if (tt.err == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), tt.err) || len(hint.All(err)) == 0) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				if diff := cmp.Diff(tt.want, got); err == nil && diff != "" {
					t.Errorf("installed (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tt.calls, tt.shop.calls); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestPackagesBoundTheWait(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/etc/os-release", "ID=debian\n")
	write(t, root+"/var/lib/apt/lists/x_Packages", "")
	synctest.Test(t, func(t *testing.T) {
		s := shop{busy: 1 << 30, installed: map[string]bool{}}
		started := time.Now()
		_, err := Host{Root: root, Run: s.run}.Install(t.Context(), []string{"nftables"})
		if err == nil || !strings.Contains(err.Error(), "another package manager is at work for 5m0s") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(started); took > 2*packagePatience+time.Minute {
			t.Errorf("took %s", took)
		}
	})
}
