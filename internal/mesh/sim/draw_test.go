package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// drawn draws what the machines did if the test failed meanwhile: all of it into a
// file among the test's artifacts (go test -artifacts), the end into its log.
//
//	defer c.drawn(t, a, b)()
func (w *World) drawn(t *testing.T, of ...*Node) func() {
	t.Helper()
	before := t.Failed()
	return func() {
		if before || !t.Failed() {
			return
		}
		file := filepath.Join(t.ArtifactDir(), fmt.Sprintf("run-%d.mermaid", w.seed))
		if err := os.WriteFile(file, []byte(w.Draw(w.begin, w.now, keepNotes, of...)), 0o600); err != nil {
			t.Log(err)
		}
		t.Logf("drawn in %s; the end of it:\n%s", file, w.Draw(w.now.Add(-10*time.Second), w.now, 60, of...))
	}
}

// TestDraw: a drawing shows who sent what to whom, what was lost, and who changed
// its path and why.
func TestDraw(t *testing.T) {
	c := newCats(1)
	c.bianco.Ping(c.ari, 50*time.Millisecond)
	c.Run(5 * time.Second)
	hub := c.hubOf(c.bianco, c.ari)
	begin := c.Now()
	hub.Stop()
	c.Run(time.Second)
	got := c.Draw(begin, c.Now(), 500, c.bianco, c.ari)
	for _, want := range []string{
		"sequenceDiagram\n", "    participant bianco\n",
		"    bianco-x" + hub.Name + ": ", "data for ari\n", "answer from ari\n", "ping (primary)",
		"    Note over bianco: ", "goes relayed to ari, by ", ": no answer\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q", want)
		}
	}
	if strings.Contains(got, hub.Name+"->>") {
		t.Error("a dead machine speaks")
	}
	if t.Failed() {
		t.Log(got)
	}
	if lines := strings.Count(c.Draw(c.begin, c.Now(), 7), "\n"); lines > 1+7+6 {
		t.Errorf("%d lines where at most 7 things were asked for", lines)
	}
}
