package archtest

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/moggyfleet/moggy/"

// floors lists every package, lowest first; docs/architecture.md draws them. A
// package imports only what stands on lower floors, and its own subpackages.
func floors() [][]string {
	return [][]string{
		// 0 vocabulary, in two steps: words, and formats made of them
		{"internal/fleet", "internal/hint", "internal/term"},
		{"internal/mesh/wire", "internal/token", "internal/deploy/node/protocol"},
		// 1 pure logic
		{"internal/config/source", "internal/pki"},
		{
			"internal/config", "internal/config/lock", "internal/plan", "internal/plan/rollout", "internal/status", "internal/doctor",
			"internal/engine/agent", "internal/engine/firewall", "internal/engine/ingress", "internal/engine/operators", "internal/engine/services", "internal/ingress/table",
			"internal/mesh/path", "internal/mesh/relay", "internal/lab/topology",
		},
		{"internal/mesh/sim", "internal/engine/certs"},
		{"internal/engine/nomad"},
		// 2 adapters: they touch the world; those of many uses first
		{"internal/nomad", "internal/deploy/node/command", "internal/deploy/node/disk", "internal/deploy/node/lock", "internal/deploy/node/report", "internal/deploy/node/ledger", "internal/deploy/node/agent", "internal/site"},
		{
			"internal/config/source/sourcetest", "internal/firewall", "internal/mesh/link", "internal/mesh/link/udp", "internal/certs",
			"internal/deploy/node", "internal/deploy/node/examine", "internal/deploy/node/health", "internal/deploy/node/history", "internal/deploy/node/host", "internal/deploy/node/image", "internal/deploy/node/key",
			"internal/deploy/node/store", "internal/deploy/node/systemd",
			"internal/ingress/probe", "internal/ingress/certstore",
			"internal/deploy/ssh", "internal/deploy/cluster", "internal/deploy/node/authority", "internal/deploy/cargo",
			"internal/publicdns", "internal/lab/space", "internal/lab/rootfs", "internal/lab/mirror", "internal/lab/names", "internal/lab/registry", "internal/lab/trust", "internal/lab/hold", "internal/lab/machine", "internal/lab/probe",
		},
		// 3 assemblies
		{"internal/mesh", "internal/deploy", "internal/ingress", "internal/lab"},
		{"internal/lab/labtest", "internal/join", "internal/leave", "internal/supervise", "internal/operate"},
		// 4
		{"cmd/moggy/internal/cli"},
		{"cmd/moggy/internal/ingresscmd", "cmd/moggy/internal/labcmd", "cmd/moggy/internal/nodecmd", "cmd/moggy/internal/nomadcmd"},
		{"cmd/moggy", "cmd/meshbench"},
	}
}

// pure are the floors without the world: what they may not import.
const pureFloors = 6

func impure() []string {
	return []string{"os", "net", "net/http", "os/exec", "log/slog", "syscall", "golang.org/x/sys/unix"}
}

type listed struct {
	path    string
	imports []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []listed
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		path := strings.TrimPrefix(f[0], module)
		if path != "internal/archtest" {
			pkgs = append(pkgs, listed{path, f[1:]})
		}
	}
	return pkgs
}

func TestFloors(t *testing.T) {
	floor := make(map[string]int)
	for i, pkgs := range floors() {
		for _, p := range pkgs {
			floor[p] = i
		}
	}
	standing := make(map[string]bool)
	for _, p := range packages(t) {
		standing[p.path] = true
		from, ok := floor[p.path]
		if !ok {
			t.Errorf("%s has no floor: give it one here and in docs/architecture.md", p.path)
			continue
		}
		for _, imp := range p.imports {
			ours, own := strings.CutPrefix(imp, module)
			switch {
			case !own:
				if from < pureFloors && slices.Contains(impure(), imp) {
					t.Errorf("%s (floor %d) imports %s: it is pure, and takes such things as values", p.path, from, imp)
				}
			case strings.HasPrefix(ours, p.path+"/"):
			default:
				if to, ok := floor[ours]; ok && to >= from {
					t.Errorf("%s (floor %d) imports %s (floor %d): imports go down only", p.path, from, ours, to)
				}
			}
		}
	}
	for p := range floor {
		if !standing[p] {
			t.Errorf("floor %d names %s, which does not exist", floor[p], p)
		}
	}
}

// maxRoom is how many lines a package may have before it needs rooms inside.
const maxRoom = 3000

func TestRooms(t *testing.T) {
	for _, p := range packages(t) {
		files, err := filepath.Glob(filepath.Join("..", "..", p.path, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			lines += bytes.Count(read(t, f), []byte("\n"))
		}
		if lines > maxRoom {
			t.Errorf("%s has %d lines; more than %d want rooms inside", p.path, lines, maxRoom)
		}
	}
}

// TestPure looks for clocks and goroutines where time and order must come in
// as values.
func TestPure(t *testing.T) {
	for _, pkgs := range floors()[:pureFloors] {
		for _, p := range pkgs {
			files, err := filepath.Glob(filepath.Join("..", "..", p, "*.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if !strings.HasSuffix(f, "_test.go") {
					lookForWorld(t, f)
				}
			}
		}
	}
}

func lookForWorld(t *testing.T, file string) {
	t.Helper()
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s: a goroutine in a pure package", fset.Position(n.Pos()))
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && x.Name == "time" && slices.Contains([]string{"Now", "Sleep", "After", "Tick", "NewTimer", "Since", "Until"}, n.Sel.Name) {
				t.Errorf("%s: time.%s in a pure package: take the time as an argument", fset.Position(n.Pos()), n.Sel.Name)
			}
		}
		return true
	})
}
