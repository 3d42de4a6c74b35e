package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestConfirm says that only a yes is one, and what somebody reads who cannot be
// asked.
func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "YES\n": true, " y": true, "\n": false, "n\n": false, "yesterday\n": false} {
		var out bytes.Buffer
		a := &App{Stdin: strings.NewReader(answer), Stderr: &out}
		if got, err := a.Confirm("Carry it out?", "--yes"); got != want || err != nil {
			t.Errorf("answer %q: %v, %v", answer, got, err)
		}
		if out.String() != "Carry it out? [y/N] " {
			t.Errorf("the question: %q", out.String())
		}
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, a := range map[string]*App{"no terminal": {Stdin: file, Stderr: &bytes.Buffer{}}, "nothing said": {Stdin: strings.NewReader(""), Stderr: &bytes.Buffer{}}} {
		ok, err := a.Confirm("Carry it out?", "--yes")
		var said bytes.Buffer
		Report(&said, err)
		if ok || err == nil || !strings.Contains(said.String(), "say yes beforehand: --yes") {
			t.Errorf("%s: %v, %v\n%s", name, ok, err, said.String())
		}
	}
}

// TestColours says when there are none: away from a terminal, and where the user
// wants none (https://no-color.org).
func TestColours(t *testing.T) {
	a := &App{}
	if got := a.Palette(&bytes.Buffer{}).Bad("x"); got != "x" {
		t.Errorf("into a file: %q", got)
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	t.Setenv("NO_COLOR", "")
	if got := a.Palette(terminal).Bad("x"); !strings.Contains(got, "\x1b[31m") {
		t.Errorf("on a terminal: %q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if got := a.Palette(terminal).Bad("x"); got != "x" {
		t.Errorf("with NO_COLOR: %q", got)
	}
}
