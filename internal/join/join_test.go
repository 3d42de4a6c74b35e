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
	knocked   []fleet.Key
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
		Knock: func(_ context.Context, _ token.Token, key fleet.Key) ([]mesh.Told, error) {
			f.knocked = append(f.knocked, key)
			return []mesh.Told{{Hub: "cosmo", Status: wire.JoinOK}}, nil
		},
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
	f.write("/var/lib/x", "")
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

// listing is every path on the machine.
func (f *fixture) listing() string {
	f.t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(f.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && d.Name() != "verified.json" { // a cache that looking may fill
			fmt.Fprintln(&out, path, info.Mode())
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return out.String()
}

func TestRefusedJoinLeavesNothing(t *testing.T) {
	refused := []error{mesh.ErrUsed, mesh.ErrExpired, mesh.ErrTaken, mesh.ErrNoAnswer, context.Canceled}
	for _, want := range refused {
		t.Run("at the knock: "+want.Error(), func(t *testing.T) {
			f := newFixture(t)
			f.commands = map[string]string{"systemctl cat": "!no such unit"} // it would have to be installed
			f.Knock = func(context.Context, token.Token, fleet.Key) ([]mesh.Told, error) { return nil, want }
			f.leavesNothing(want)
			if len(f.asked)+f.questions > 0 {
				t.Errorf("keys told %v, questions %d: nothing was to be done", f.asked, f.questions)
			}
		})
	}
	for _, want := range refused[:3] { // changed its mind since
		t.Run("after the knock: "+want.Error(), func(t *testing.T) {
			f := newFixture(t)
			f.Enter = func(context.Context, token.Token, fleet.Key, [wire.HostKeySize]byte) ([]mesh.Told, error) {
				return []mesh.Told{{Hub: "cosmo", Status: wire.JoinOK}}, want // one of them agreed
			}
			f.leavesNothing(want)
		})
	}
}

func (f *fixture) leavesNothing(want error) {
	f.t.Helper()
	before := f.listing()
	if _, err := f.Join(f.t.Context(), sample()); !errors.Is(err, want) {
		f.t.Fatalf("got %v, want %v", err, want)
	}
	if after := f.listing(); after != before {
		f.t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if calls := f.systemd.Calls(); len(calls) > 0 {
		f.t.Errorf("units were touched: %v", calls)
	}
}

// TestInterruptedJoinGoesOn stops a join at each of its steps, and runs it again
// with the same token.
func TestInterruptedJoinGoesOn(t *testing.T) {
	steps := 0
	for stop := 1; ; stop++ {
		f := newFixture(t)
		f.agent(1)
		at := 0
		ctx, cancel := context.WithCancel(t.Context())
		step := func() {
			if at++; at == stop {
				cancel()
			}
			steps = max(steps, at)
		}
		f.Say = func(string) { step() }
		enter, run := f.Enter, f.Run
		f.Enter = func(ctx context.Context, tok token.Token, key fleet.Key, hostKey [wire.HostKeySize]byte) ([]mesh.Told, error) {
			told, err := enter(ctx, tok, key, hostKey) // it arrives
			if step(); ctx.Err() != nil {
				return nil, mesh.ErrNoAnswer // and the answer does not
			}
			return told, err
		}
		f.Run = func(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
			step()
			return run(ctx, env, name, args...)
		}
		_, err := f.Join(ctx, sample())
		cancel()
		if err == nil && at < stop {
			break
		}
		if _, err := f.Join(t.Context(), sample()); err != nil {
			t.Errorf("interrupted at %d, then again: %v", stop, err)
		}
		for _, key := range f.asked {
			if key != f.asked[0] {
				t.Errorf("interrupted at %d: the hubs were told two keys", stop)
			}
		}
	}
	if steps < 5 {
		t.Errorf("stopped at %d steps only", steps)
	}
}

// TestTheMachinesClockDoesNotMatter: by its own clock this token expired in
// 1970, or does so in the year 2100; the hub decides.
func TestTheMachinesClockDoesNotMatter(t *testing.T) {
	for _, expires := range []int64{1, 4_102_444_800} {
		f := newFixture(t)
		f.agent(1)
		tok := sample()
		tok.Expires = expires
		if _, err := f.Join(t.Context(), tok); err != nil {
			t.Errorf("expires %d: %v", expires, err)
		}
	}
}

func TestMachineOfAnotherFleetIsTold(t *testing.T) {
	for name, change := range map[string]func(*token.Token){
		"fleet dogs": func(tok *token.Token) { tok.Fleet = "dogs" },
		"node ziggy": func(tok *token.Token) { tok.Node = "ziggy" },
	} {
		f := newFixture(t)
		f.agent(1)
		if _, err := f.Join(t.Context(), sample()); err != nil {
			t.Fatal(err)
		}
		f.knocked = nil
		before := f.listing()
		tok := sample()
		change(&tok)
		_, err := f.Join(t.Context(), tok)
		if err == nil || !strings.Contains(err.Error(), "this machine is node bianco of fleet cats already") ||
			!strings.Contains(fmt.Sprint(hint.All(err)), name[strings.Index(name, " ")+1:]) {
			t.Errorf("%s: got %v with hints %q", name, err, hint.All(err))
		}
		if len(f.knocked) > 0 || f.listing() != before {
			t.Errorf("%s: the hubs were asked, or something changed", name)
		}
	}
}

func TestAKeyThatWasThereIsKept(t *testing.T) {
	f := newFixture(t)
	f.agent(1)
	if _, err := f.Join(t.Context(), sample()); err != nil {
		t.Fatal(err)
	}
	f.Enter = func(context.Context, token.Token, fleet.Key, [wire.HostKeySize]byte) ([]mesh.Told, error) {
		return nil, mesh.ErrUsed
	}
	if _, err := f.Join(t.Context(), sample()); !errors.Is(err, mesh.ErrUsed) {
		t.Fatalf("got %v, want %v", err, mesh.ErrUsed)
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
