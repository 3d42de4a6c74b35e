package sourcetest

import (
	"bytes"
	"syscall"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/term"
)

// Garbage is what a file may hold that is none of ours, size bytes of each.
func Garbage(size int) map[string][]byte {
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

// AnswersSoon holds a parser to a second for 10 MB of any garbage: of a
// twentieth, a twentieth. The race detector is slow, so there is slack. What is
// measured is processor time: the machine may be busy with something else.
func AnswersSoon(t *testing.T, parse func([]byte) source.Diagnostics) {
	t.Helper()
	const part, slack = 20, 10
	for name, content := range Garbage(source.MaxSize / part) {
		t.Run(name, func(t *testing.T) {
			start := processorTime(t)
			diags := parse(content)
			if Write(t, diags) == 0 {
				t.Error("no mistake in it")
			}
			took := processorTime(t) - start
			t.Logf("took %v", took)
			if took > slack*time.Second/part {
				t.Errorf("took %v", took)
			}
		})
	}
}

// processorTime is what this process has used of all processors so far.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Write prints diagnostics, holds what is printed to what a screen may have to
// scroll through, and returns how many of them are mistakes.
func Write(t *testing.T, d source.Diagnostics) int {
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
