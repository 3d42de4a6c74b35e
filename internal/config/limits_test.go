package config

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

func TestExamplesAndTemplatePass(t *testing.T) {
	op := &fleet.Operator{Name: "nico", Key: hostKeyLine + ` a "quoted" ${comment}`}
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
			_, diags := Parse([]Source{{"fleet.hcl", text}})
			var b strings.Builder
			if err := diags.Write(&b, term.NewPalette(false)); err != nil {
				t.Fatal(err)
			}
			if b.Len() > 0 {
				t.Errorf("said of it:\n%s", &b)
			}
			formatted, diags := Format(Source{"fleet.hcl", text})
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
	f, _ := Parse([]Source{{"fleet.hcl", text}})
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
	offered := regexp.MustCompile(`(?m)^( *)# (( *[a-z0-9]+ += |(site|node) "|\}).*)$`)
	op := &fleet.Operator{Name: "nico", Key: hostKeyLine}
	text := offered.ReplaceAll(Template("cats", op), []byte("$1$2"))
	if n := bytes.Count(text, []byte("node \"")); n != 2 {
		t.Fatalf("%d nodes in\n%s", n, text)
	}
	_, diags := Parse([]Source{{"fleet.hcl", text}})
	// The roles it shows are all refused, which a fleet cannot do.
	var left []string
	for _, d := range diags {
		left = append(left, d.Message)
	}
	want := []string{
		`node "first": nodes could not reach each other: no node is a hub`,
		`node "first": no node is left to be a server`,
	}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, text)
	}
}

// garbage is what a file may hold that is none of ours, size bytes of each.
func garbage(size int) map[string][]byte {
	fill := func(s string) []byte { return bytes.Repeat([]byte(s), size/len(s)) }
	random := make([]byte, size)
	state := uint32(1)
	for i := range random {
		state = state*1664525 + 1013904223 // Numerical Recipes' generator
		random[i] = ' ' + byte(state>>24)%95
		if state>>20%80 == 0 {
			random[i] = '\n'
		}
	}
	return map[string][]byte{
		"random": random, "braces": fill("{"), "brackets": fill("[\n"), "quotes": fill("\""), "words": fill("a "),
		"lines": fill("a\n"), "blocks": fill("a \"b\" {}\n"), "open blocks": fill("node \"b\" {\n"), "nodes": fill("node \"b\" {}\n"),
		"attributes": fill("a = 1\n"), "comment": append([]byte("/*"), fill("x")[2:]...), "heredoc": append([]byte("a = <<E\n"), fill("x\n")[8:]...),
		"conflicts": fill("<<<<<<< a\n=======\n>>>>>>> b\n"), "keys": fill("-----BEGIN PRIVATE KEY-----\n"), "half keys": fill("AGE-SECRET-KEY-"),
		"minus": append([]byte("a = "), fill("-")[4:]...), "newlines": fill("\n"), "escapes": fill("\\"), "template": fill("${\""),
		"zeros": make([]byte, size), "latin1": fill("k\xe4tzchen\n"), "question marks": append([]byte("a = 1"), fill("?1")[5:]...),
	}
}

// TestGarbageAnswersSoon holds 10 MB to a second: of a twentieth, a twentieth.
// The machine may be busy, and the race detector is slow.
func TestGarbageAnswersSoon(t *testing.T) {
	const part, slack = 20, 20
	for name, content := range garbage(MaxSize / part) {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, fleetDiags := Parse([]Source{{"fleet.hcl", content}})
			_, lockDiags := ParseLock(Source{"fleet.lock.hcl", content})
			if writeAll(t, fleetDiags) == 0 || writeAll(t, lockDiags) == 0 {
				t.Error("no mistake in it")
			}
			took := time.Since(start) / 2
			t.Logf("took %v", took)
			if took > slack*time.Second/part {
				t.Errorf("took %v", took)
			}
		})
	}
}

func BenchmarkGarbage(b *testing.B) {
	for name, content := range garbage(MaxSize) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, diags := Parse([]Source{{"fleet.hcl", content}}); diags.Mistakes() == 0 {
					b.Fatal("no mistake in it")
				}
			}
		})
	}
}

func writeAll(t *testing.T, d Diagnostics) int {
	t.Helper()
	var b bytes.Buffer
	if err := d.Write(&b, term.NewPalette(true)); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 200_000 {
		t.Errorf("prints %d bytes", b.Len())
	}
	return d.Mistakes()
}

func TestSizeLimit(t *testing.T) {
	_, diags := Parse([]Source{{"fleet.hcl", bytes.Repeat([]byte("#"), MaxSize+1)}})
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

func manyLocked(n int) *fleet.Lock {
	l := sampleLock()
	v4, v6 := l.Mesh.V4.Addr(), l.Mesh.V6.Addr()
	for i := range n {
		v4, v6 = v4.Next(), v6.Next()
		l.Nodes = append(l.Nodes, fleet.NodeLock{
			Name: fleet.NodeName(fmt.Sprintf("node-%06d", i)), V4: v4, V6: v6, MeshKey: fleet.Key{byte(i), byte(i >> 8), 1},
			HostKeys: []string{hostKeyLine}, Arch: "amd64", Generation: 3,
		})
	}
	return l
}

func benchmarkParse(b *testing.B, n int) {
	src := Source{"fleet.hcl", manyNodes(n)}
	b.ReportAllocs()
	b.SetBytes(int64(len(src.Content)))
	for b.Loop() {
		if f, _ := Parse([]Source{src}); f == nil || len(f.Nodes) != n {
			b.Fatal("mistakes")
		}
	}
}

func BenchmarkParse100(b *testing.B)   { benchmarkParse(b, 100) }
func BenchmarkParse1000(b *testing.B)  { benchmarkParse(b, 1000) }
func BenchmarkParse10000(b *testing.B) { benchmarkParse(b, 10000) }

func benchmarkParseLock(b *testing.B, n int) {
	text, err := NewLock("fleet.lock.hcl").Update(manyLocked(n))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if l, _ := ParseLock(Source{"fleet.lock.hcl", text}); l == nil || len(l.nodes) != n {
			b.Fatal("mistakes")
		}
	}
}

func BenchmarkParseLock100(b *testing.B)   { benchmarkParseLock(b, 100) }
func BenchmarkParseLock1000(b *testing.B)  { benchmarkParseLock(b, 1000) }
func BenchmarkParseLock10000(b *testing.B) { benchmarkParseLock(b, 10000) }

// BenchmarkUpdateLock10000 confirms one node of many.
func BenchmarkUpdateLock10000(b *testing.B) {
	l := NewLock("fleet.lock.hcl")
	lock := manyLocked(10000)
	if _, err := l.Update(lock); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		lock.Nodes[5000].Generation++
		if _, err := l.Update(lock); err != nil {
			b.Fatal(err)
		}
	}
}
