package firewall

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

var update = flag.Bool("update", false, "write what is rendered now into the goldens")

// read parses a fleet and gives its nodes addresses in their order.
func read(t *testing.T, text []byte) (*fleet.Fleet, *fleet.Lock) {
	t.Helper()
	f, diags := config.Parse([]source.Text{{Name: "fleet.hcl", Content: text}})
	if f == nil {
		t.Fatal(diags)
	}
	l := &fleet.Lock{}
	for i, n := range f.Nodes {
		l.Put(fleet.NodeLock{
			Name: n.Name, V4: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", i+1)), V6: netip.MustParseAddr(fmt.Sprintf("fd77::%d", i+1)),
		})
	}
	return f, l
}

// TestRules renders the rules of each node of the fleets in testdata.
func TestRules(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, l := read(t, archive.Files[0].Data)
			got := &txtar.Archive{Comment: archive.Comment, Files: archive.Files[:1:1]} // appending must not write into what is wanted
			rules := New(f, l)
			for _, n := range f.Nodes {
				part, closed := rules.Part(n, "/usr/local/bin/moggy")
				if !closed {
					continue
				}
				for _, file := range part.Files {
					if file.Path == RulesPath {
						got.Files = append(got.Files, txtar.File{Name: string(n.Name), Data: file.Content})
					}
				}
			}
			if *update {
				if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); diff != "" && !*update {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, file := range got.Files[1:] {
				understood(t, file.Name, file.Data)
			}
		})
	}
}

// understood has nft(8), where it is there, read the rules without loading them.
func understood(t *testing.T, name string, text []byte) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	cmd := exec.Command("nft", "--check", "-f", "-")
	cmd.Stdin = strings.NewReader(string(text))
	if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState != nil {
		t.Errorf("%s: nft: %v\n%s", name, err, out)
	}
}

const head1 = `fleet "f" {}
site "dc" { kind = "datacenter" }
`

// TestOpen says that nothing is added to nodes that no allow leads to.
func TestOpen(t *testing.T) {
	f, l := read(t, []byte(head1+`
node "a" {
  site = site.dc
  public = ["198.51.100.11"]
}
node "b" {
  site = site.dc
  public = ["198.51.100.12"]
}
allow "x" {
  to    = [node.b]
  ports = ["tcp/80"]
}`))
	rules := New(f, l)
	if part, closed := rules.Part(f.Nodes[0], "/bin/moggy"); closed {
		t.Errorf("node a gets %+v", part)
	}
	if _, closed := rules.Part(f.Nodes[1], "/bin/moggy"); !closed {
		t.Error("node b gets nothing")
	}
	f.Allows = nil
	if part, closed := New(f, l).Part(f.Nodes[1], "/bin/moggy"); closed {
		t.Errorf("without an allow node b gets %+v", part)
	}
}

// TestMark says that the check holds for just these rules.
func TestMark(t *testing.T) {
	f, l := read(t, []byte(head1+`
node "a" {
  site = site.dc
  public = ["198.51.100.11"]
}
allow "x" {
  to    = [node.a]
  ports = ["tcp/80"]
}`))
	marks := make(map[string]bool)
	for _, p := range []uint16{80, 81} {
		f.Allows[0].Ports[0].Last = p
		part, _ := New(f, l).Part(f.Nodes[0], "/bin/moggy")
		check := strings.Join(part.Checks[0].Command, " ")
		_, rest, _ := strings.Cut(check, "rules-")
		mark, _, _ := strings.Cut("rules-"+rest, " ")
		if !strings.Contains(string(part.Files[0].Content), "chain "+mark+" {") {
			t.Errorf("%s: no such chain in the rules", mark)
		}
		marks[mark] = true
	}
	if len(marks) != 2 {
		t.Errorf("two sets of rules, marks %v", marks)
	}
}

// BenchmarkPart renders a fleet of 1,000 nodes, each of them with rules.
func BenchmarkPart(b *testing.B) {
	f, l := &fleet.Fleet{Sites: []fleet.Site{{Name: "dc"}}}, &fleet.Lock{}
	for i := range 1000 {
		n := fleet.Node{Name: fleet.NodeName(fmt.Sprintf("n%04d", i)), Site: "dc", SSH: fleet.SSH{Port: 22}}
		f.Nodes = append(f.Nodes, n)
		l.Put(fleet.NodeLock{Name: n.Name, V4: netip.AddrFrom4([4]byte{10, 77, byte(i / 250), byte(i % 250)})})
	}
	f.Allows = []fleet.Allow{{Name: "a", From: []fleet.Party{{Site: "dc"}}, To: []fleet.Party{{Site: "dc"}}}}
	for b.Loop() {
		rules := New(f, l)
		for _, n := range f.Nodes {
			if _, closed := rules.Part(n, "/bin/moggy"); !closed {
				b.Fatal("open")
			}
		}
	}
}
