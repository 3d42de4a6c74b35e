package lock

import (
	"fmt"
	"testing"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/config/source/sourcetest"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func TestGarbageAnswersSoon(t *testing.T) {
	sourcetest.AnswersSoon(t, func(content []byte) source.Diagnostics {
		_, diags := Parse(source.Text{Name: "fleet.lock.hcl", Content: content})
		return diags
	})
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
	text, err := New("fleet.lock.hcl").Update(manyLocked(n))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if l, _ := Parse(source.Text{Name: "fleet.lock.hcl", Content: text}); l == nil || len(l.nodes) != n {
			b.Fatal("mistakes")
		}
	}
}

func BenchmarkParse100(b *testing.B)   { benchmarkParse(b, 100) }
func BenchmarkParse1000(b *testing.B)  { benchmarkParse(b, 1000) }
func BenchmarkParse10000(b *testing.B) { benchmarkParse(b, 10000) }

// BenchmarkUpdate10000 confirms one node of many.
func BenchmarkUpdate10000(b *testing.B) {
	l := New("fleet.lock.hcl")
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
