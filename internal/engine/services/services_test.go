package services

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
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

// programs are all there, for one architecture.
type programs struct{}

func (programs) Digest(exec, arch string) fleet.Digest { return fleet.DigestOf([]byte(exec + arch)) }

// TestParts renders the share of each node of the fleets in testdata.
func TestParts(t *testing.T) {
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
			got := &txtar.Archive{Comment: archive.Comment, Files: archive.Files[:1:1]}
			f, diags := config.Parse([]source.Text{{Name: "fleet.hcl", Content: archive.Files[0].Data}})
			if f == nil {
				t.Fatal(diags)
			}
			l := &fleet.Lock{}
			for i, n := range f.Nodes {
				l.Put(fleet.NodeLock{Name: n.Name, Arch: "amd64", V4: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", i+1))})
			}
			all := New(f, l, programs{})
			for _, n := range f.Nodes {
				if part, some := all.Part(n.Name); some {
					got.Files = append(got.Files, written(t, n.Name, part)...)
				}
			}
			if *update {
				if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// written is a part as files of an archive.
func written(t *testing.T, node fleet.NodeName, p fleet.Part) []txtar.File {
	t.Helper()
	var out []txtar.File
	for _, f := range p.Files {
		data := f.Content
		if data == nil {
			data = []byte("content " + f.Digest[:12] + "\n")
		}
		out = append(out, txtar.File{Name: fmt.Sprintf("%s %s %o", node, f.Path, f.Mode), Data: data})
	}
	p.Files = nil
	rest, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, txtar.File{Name: string(node) + " part", Data: append(rest, '\n')})
}
