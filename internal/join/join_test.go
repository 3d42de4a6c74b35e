package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/mesh"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
	"github.com/moggyfleet/moggy/internal/token"
)

const hostKeyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl root@old\n"

func sample() token.Token {
	return token.Token{
		Fleet: "cats", Node: "bianco", Site: "madrid",
		V4: netip.MustParseAddr("10.77.0.6"), V6: netip.MustParseAddr("fd77::6"),
		Mesh: fleet.Ranges{V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd77::/48")},
		Port: 51877, MTU: 1280, Secret: token.Secret{9}, Expires: 1_800_000_000,
		Hubs: []fleet.MeshNode{{
			Name: "cosmo", Hub: true, Key: fleet.Key{9},
			V4: netip.MustParseAddr("10.77.0.1"), V6: netip.MustParseAddr("fd77::1"),
			Public: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.11:51877")},
		}},
	}
}

// fixture is a machine in a directory. What runs on it is told by commands.
type fixture struct {
	Machine
	t         *testing.T
	systemd   *node.FakeSystemd
	commands  map[string]string // by their first words; "!" starts an error
	ran       []string
	asked     []fleet.Key
	questions int
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	root := t.TempDir()
	f := &fixture{t: t, systemd: &node.FakeSystemd{Root: root}, commands: map[string]string{
		"systemctl is-active ssh.service": "active\n",
	}}
	f.Machine = Machine{
		Root: root, Executable: "/bin/true", Systemd: f.systemd, Run: f.run, Version: "test", By: "test",
		Ask: func(string) (bool, error) { f.questions++; return false, nil },
		Say: func(string) {},
		Enter: func(_ context.Context, _ token.Token, key fleet.Key, _ [wire.HostKeySize]byte) ([]mesh.Told, error) {
			f.asked = append(f.asked, key)
			return []mesh.Told{{Hub: "cosmo", Status: wire.JoinOK}}, nil
		},
	}
	f.write("/run/systemd/system/x", "")
	f.write("/dev/net/tun", "")
	f.write("/etc/ssh/ssh_host_ed25519_key.pub", hostKeyLine)
	f.write("/etc/os-release", "ID=debian\nVERSION_ID=12\n")
	f.write("/etc/systemd/system/x", "")
	return f
}

func (f *fixture) write(path, content string) {
	f.t.Helper()
	path = f.real(path)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) run(_ context.Context, _ []string, name string, args ...string) ([]byte, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	f.ran = append(f.ran, line)
	for words, out := range f.commands {
		if strings.HasPrefix(line, words) {
			if msg, bad := strings.CutPrefix(out, "!"); bad {
				return nil, errors.New(msg)
			}
			return []byte(out), nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

// agent answers at the status socket like one that reaches a hub.
func (f *fixture) agent(rtt int64) {
	f.t.Helper()
	path := f.real(fleet.AgentSocket)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		f.t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(fleet.MeshStatus{Version: 1, Peers: []fleet.PeerStatus{{Name: "cosmo", RTTMicro: rtt}}})
	})}
	go s.Serve(l)
	f.t.Cleanup(func() { s.Close() })
}

func TestJoinPutsAFirstGenerationInForce(t *testing.T) {
	f := newFixture(t)
	f.agent(12_000)
	r, err := f.Join(t.Context(), sample())
	if err != nil {
		t.Fatal(err, hint.All(err))
	}
	if len(r.Peers) != 1 || r.Peers[0].Name != "cosmo" {
		t.Errorf("reaches %+v, want cosmo", r.Peers)
	}
	var c fleet.AgentConfig
	b, err := os.ReadFile(f.real(fleet.AgentConfigPath))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Nodes) != 2 || c.Nodes[0].Name != "bianco" || c.Nodes[0].Key != f.asked[0] || c.Nodes[1].Name != "cosmo" {
		t.Errorf("mesh.json has %+v, want bianco with the key the hubs were told, and cosmo", c.Nodes)
	}
	if info, err := os.Stat(f.real(node.MeshKeyPath)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want mode 0600", info, err)
	}
	n := node.New(node.Options{Root: f.Root, Systemd: f.systemd, Run: f.run, Now: time.Now})
	o, err := n.Observe(t.Context(), node.Look{})
	if err != nil {
		t.Fatal(err)
	}
	if o.Current.Number != 1 || !o.Current.Confirmed || len(o.Drift) > 0 {
		t.Errorf("stands at %+v with drift %v, want a confirmed generation 1 without", o.Current, o.Drift)
	}
	if _, err := f.Join(t.Context(), sample()); err != nil {
		t.Errorf("a second time with the same token: %v", err)
	}
}

func TestRefusedJoinLeavesNothing(t *testing.T) {
	f := newFixture(t)
	f.Enter = func(context.Context, token.Token, fleet.Key, [wire.HostKeySize]byte) ([]mesh.Told, error) {
		return []mesh.Told{{Hub: "cosmo", Status: wire.JoinExpired}}, mesh.ErrExpired
	}
	if _, err := f.Join(t.Context(), sample()); !errors.Is(err, mesh.ErrExpired) {
		t.Fatalf("got %v, want %v", err, mesh.ErrExpired)
	}
	for _, path := range []string{node.Dir, "/etc/moggy", "/usr/local/bin/moggy"} {
		if !f.absent(path) {
			t.Errorf("%s is left behind", path)
		}
	}
	if calls := f.systemd.Calls(); len(calls) > 0 {
		t.Errorf("units were touched: %v", calls)
	}
}

func TestAKeyThatWasThereIsKept(t *testing.T) {
	f := newFixture(t)
	f.agent(1)
	if _, err := f.Join(t.Context(), sample()); err != nil {
		t.Fatal(err)
	}
	f.Enter = func(context.Context, token.Token, fleet.Key, [wire.HostKeySize]byte) ([]mesh.Told, error) {
		return nil, mesh.ErrNoAnswer
	}
	if _, err := f.Join(t.Context(), sample()); !errors.Is(err, mesh.ErrNoAnswer) {
		t.Fatalf("got %v, want %v", err, mesh.ErrNoAnswer)
	}
	if f.absent(node.MeshKeyPath) {
		t.Error("the key of a machine that had joined is gone")
	}
}

func TestMachinesThatCannotJoin(t *testing.T) {
	tests := map[string]struct {
		spoil func(*fixture)
		want  string
	}{
		"no systemd": {func(f *fixture) { os.RemoveAll(f.real("/run/systemd")) }, "systemd does not run"},
		"no tun":     {func(f *fixture) { os.Remove(f.real("/dev/net/tun")) }, "/dev/net/tun"},
		"no ssh server, and none wanted": {func(f *fixture) {
			f.commands = map[string]string{"systemctl cat": "!no such unit"}
		}, "no ssh server"},
		"ssh server does not start": {func(f *fixture) {
			f.commands = map[string]string{
				"systemctl cat ssh.service": "[Unit]", "systemctl is-active": "!inactive",
				"systemctl enable --now ssh.service": "!Job for ssh.service failed",
			}
		}, "Job for ssh.service failed"},
		"host key of another type": {func(f *fixture) {
			f.write("/etc/ssh/ssh_host_ed25519_key.pub", "not a key\n")
		}, "ssh_host_ed25519_key.pub"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			tt.spoil(f)
			_, err := f.Join(t.Context(), sample())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want something of %q", err, tt.want)
			}
			if len(f.asked) > 0 {
				t.Error("the hubs were asked all the same")
			}
			if !f.absent(node.Dir) {
				t.Errorf("%s is left behind", node.Dir)
			}
		})
	}
}

func TestMissingServerIsInstalledWhenWanted(t *testing.T) {
	f := newFixture(t)
	f.agent(1)
	installed := false
	f.commands = nil
	f.Run = func(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
		line := strings.Join(append([]string{name}, args...), " ")
		switch {
		case strings.HasPrefix(line, "apt-get") && strings.Contains(line, "install"):
			installed = true
		case strings.HasPrefix(line, "apt-get"):
		case strings.HasPrefix(line, "dpkg-query"):
			if installed {
				return []byte("openssh-server install ok installed\n"), nil
			}
			return nil, errors.New("no packages found")
		case strings.HasPrefix(line, "systemctl is-active ssh.service") && installed:
			return []byte("active\n"), nil
		default:
			return nil, errors.New("no")
		}
		return nil, nil
	}
	f.write("/usr/bin/apt-get", "")
	f.Ask = func(string) (bool, error) { f.questions++; return true, nil }
	_, err := f.Join(t.Context(), sample())
	if !installed || f.questions != 1 {
		t.Errorf("installed %v after %d questions (%v), want yes after one", installed, f.questions, err)
	}
}

func TestMachineOfAnotherFleetIsRefused(t *testing.T) {
	f := newFixture(t)
	f.agent(1)
	if _, err := f.Join(t.Context(), sample()); err != nil {
		t.Fatal(err)
	}
	other := sample()
	other.Node = "ari"
	_, err := f.Join(t.Context(), other)
	if err == nil || !strings.Contains(err.Error(), "node bianco of fleet cats already") {
		t.Errorf("got %v", err)
	}
}
