package ssh

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// trio is two hubs and a machine at home.
func trio() (*fleet.Fleet, *fleet.Lock) {
	root := fleet.SSH{User: "root"}
	f := &fleet.Fleet{
		Name: "trio", Port: fleet.DefaultPort,
		Sites: []fleet.Site{{Name: "dc", Kind: fleet.Datacenter, IPv6: true}, {Name: "home", Kind: fleet.Home, NAT: fleet.CarrierNAT}},
		Nodes: []fleet.Node{
			{Name: "one", Site: "dc", Public: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, SSH: root},
			{Name: "two", Site: "dc", Public: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, SSH: fleet.SSH{User: "admin", Host: "two.example", Port: 2222}},
			{Name: "den", Site: "home", SSH: root},
			{Name: "new", Site: "home", SSH: root},
		},
	}
	l := &fleet.Lock{}
	for i, n := range f.Nodes[:3] {
		l.Put(fleet.NodeLock{
			Name: n.Name, V4: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}), MeshKey: fleet.Key{byte(i + 1)},
			HostKeys: []string{"ssh-ed25519 KEY" + string(n.Name)},
		})
	}
	return f, l
}

func TestConfig(t *testing.T) {
	f, l := trio()
	got := config(Routes(f, l), "/run/user/1000/moggy-0123456789") + "\n-- known_hosts --\n" + knownHosts(l)
	file := filepath.Join("testdata", "config.txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestConfigAsSSHReadsIt asks the system's ssh what it makes of the file.
func TestConfigAsSSHReadsIt(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("no ssh here")
	}
	f, l := trio()
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config(Routes(f, l), filepath.Dir(file))), 0o600); err != nil {
		t.Fatal(err)
	}
	for alias, want := range map[string][]string{
		"one":     {"hostname 192.0.2.1", "user root", "stricthostkeychecking true", "hostkeyalias one", "forwardagent no"},
		"two":     {"hostname two.example", "port 2222", "user admin"},
		"den+two": {"hostname 10.77.0.3", "proxyjump two", "hostkeyalias den", "batchmode yes"},
	} {
		out, err := exec.Command("ssh", "-F", file, "-G", alias).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains("\n"+string(out), "\n"+line+"\n") {
				t.Errorf("ssh -G %s does not say %q:\n%s", alias, line, out)
			}
		}
	}
}

func TestRoutes(t *testing.T) {
	f, l := trio()
	routes := Routes(f, l)
	aliases := func(n fleet.NodeName) []string {
		var out []string
		for _, r := range routes[n] {
			out = append(out, r.Alias)
		}
		return out
	}
	for node, want := range map[fleet.NodeName][]string{
		"one": {"one", "one+2", "one+two"},
		"two": {"two", "two+2", "two+one"},
		"den": {"den+one", "den+two"},
		"new": nil, // not on the mesh yet
	} {
		if diff := cmp.Diff(want, aliases(node)); diff != "" {
			t.Errorf("ways to %s (-want +got):\n%s", node, diff)
		}
	}
}

func TestQuote(t *testing.T) {
	words := []string{"plain", "", "a b", "it's", `"$HOME" \ ; | &`, "*", "~", "a\nb", "ünïcode"}
	out, err := exec.Command("sh", "-c", "printf '%s\\0' "+Quote(words...)).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if diff := cmp.Diff(words, got); diff != "" {
		t.Errorf("through a shell (-want +got):\n%s", diff)
	}
}
