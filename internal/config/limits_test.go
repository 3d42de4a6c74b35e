package config

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/config/source/sourcetest"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

const operatorKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

func TestExamplesAndTemplatePass(t *testing.T) {
	op := &fleet.Operator{Name: "nico", Key: operatorKey + ` a "quoted" ${comment}`}
	texts := map[string][]byte{
		"template":                  Template("cats", op),
		"template without operator": Template("cats", nil),
	}
	for _, name := range []string{"cats", "one"} {
		text, err := os.ReadFile("../../examples/" + name + "/fleet.hcl")
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = text
	}
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			_, diags := Parse([]source.Text{{Name: "fleet.hcl", Content: text}})
			var b strings.Builder
			if err := diags.Write(&b, term.NewPalette(false)); err != nil {
				t.Fatal(err)
			}
			if b.Len() > 0 {
				t.Errorf("said of it:\n%s", &b)
			}
			formatted, diags := Format(source.Text{Name: "fleet.hcl", Content: text})
			if len(diags) > 0 || !bytes.Equal(formatted, text) {
				t.Errorf("moggy fmt makes of it %v:\n%s", diags, formatted)
			}
		})
	}
}

func TestReferenceFleetRoles(t *testing.T) {
	text, err := os.ReadFile("../../examples/cats/fleet.hcl")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := Parse([]source.Text{{Name: "fleet.hcl", Content: text}})
	if f == nil {
		t.Fatal("no fleet")
	}
	all := fleet.Roles{Hub: true, Server: true, Ingress: true}
	for name, got := range f.Roles() {
		want := fleet.Roles{}
		switch name {
		case "cosmo", "maco", "miki":
			want = all
		}
		if got != want {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	if site, _ := f.Site("madrid"); site != (fleet.Site{Name: "madrid", Kind: fleet.Home, NAT: fleet.CarrierNAT}) {
		t.Errorf("madrid is %+v", site)
	}
}

// TestTemplateComments takes the comment signs off what the template offers:
// that must be right too.
func TestTemplateComments(t *testing.T) {
	offered := regexp.MustCompile(`(?m)^( *)# (( *[a-z0-9]+ += |(site|node|allow|service) "|\}).*)$`)
	op := &fleet.Operator{Name: "nico", Key: operatorKey}
	text := offered.ReplaceAll(Template("cats", op), []byte("$1$2"))
	if n := bytes.Count(text, []byte("node \"")); n != 2 {
		t.Fatalf("%d nodes in\n%s", n, text)
	}
	_, diags := Parse([]source.Text{{Name: "fleet.hcl", Content: text}})
	// The roles it shows are all refused, which a fleet cannot do.
	var left []string
	for _, d := range diags {
		left = append(left, d.Message)
	}
	want := []string{
		`node "first": nodes could not reach each other: no node is a hub`,
		`node "first": no node is left to be a server`,
		`service "web": no node takes requests from outside`,
	}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, text)
	}
}

func TestGarbageAnswersSoon(t *testing.T) {
	sourcetest.AnswersSoon(t, diagsOf)
}

func BenchmarkGarbage(b *testing.B) {
	for name, content := range sourcetest.Garbage(source.MaxSize) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, diags := Parse([]source.Text{{Name: "fleet.hcl", Content: content}}); diags.Mistakes() == 0 {
					b.Fatal("no mistake in it")
				}
			}
		})
	}
}

func TestSizeLimit(t *testing.T) {
	_, diags := Parse([]source.Text{{Name: "fleet.hcl", Content: bytes.Repeat([]byte("#"), source.MaxSize+1)}})
	if len(diags) == 0 || !strings.Contains(diags[0].Message, "larger than 10 MB") {
		t.Errorf("got %v", diags)
	}
}

func manyNodes(n int) []byte {
	var b strings.Builder
	b.WriteString("fleet \"big\" {\n}\n\nsite \"rack\" { kind = \"datacenter\" }\n")
	for i := range n {
		fmt.Fprintf(&b, "\nnode \"node-%d\" {\n  site   = site.rack\n  public = [\"198.51.%d.%d\", \"2001:db8::%x\"]\n  os     = \"debian\"\n}\n", i, i/256, i%256, i+1)
	}
	return []byte(b.String())
}

func benchmarkParse(b *testing.B, n int) {
	src := source.Text{Name: "fleet.hcl", Content: manyNodes(n)}
	b.ReportAllocs()
	b.SetBytes(int64(len(src.Content)))
	for b.Loop() {
		if f, _ := Parse([]source.Text{src}); f == nil || len(f.Nodes) != n {
			b.Fatal("mistakes")
		}
	}
}

func BenchmarkParse100(b *testing.B)   { benchmarkParse(b, 100) }
func BenchmarkParse1000(b *testing.B)  { benchmarkParse(b, 1000) }
func BenchmarkParse10000(b *testing.B) { benchmarkParse(b, 10000) }
