package cli

import (
	"encoding/json"
	"io"
	"os"

	"golang.org/x/term"

	screen "github.com/moggyfleet/moggy/internal/term"
)

// terminal returns the file behind w if it is a terminal.
func terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// Palette colours what goes to w: only on a terminal, never where NO_COLOR is
// set (no-color.org).
func (a *App) Palette(w io.Writer) screen.Palette {
	_, tty := terminal(w)
	return screen.NewPalette(tty && os.Getenv("NO_COLOR") == "")
}

// Board shows progress on stderr for the names.
func (a *App) Board(names ...string) *screen.Board {
	f, live := terminal(a.Stderr)
	columns := 0
	if live {
		columns, _, _ = term.GetSize(int(f.Fd()))
	}
	return screen.NewBoard(a.Stderr, live && !a.Plain, columns, a.Palette(a.Stderr), names...)
}

// PrintJSON writes v on stdout, as one JSON document.
func (a *App) PrintJSON(v any) error {
	enc := json.NewEncoder(a.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Quiet is the Progress of what is over in a moment.
type Quiet struct{}

// Step says nothing.
func (Quiet) Step(string, string) {}

// Done says nothing.
func (Quiet) Done(string, string) {}

// Fail says nothing: the caller has the error, too.
func (Quiet) Fail(string, error) {}
