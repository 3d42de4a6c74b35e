// Package term draws on a terminal: colours, tables, and the live line per
// node. It writes to what it is given and decides nothing; whether there is a
// terminal, and how wide, it is told.
package term

// Palette colours text, or leaves it alone.
type Palette struct{ on bool }

// NewPalette returns a palette that colours if on.
func NewPalette(on bool) Palette { return Palette{on} }

func (p Palette) paint(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Good is for what is added or well.
func (p Palette) Good(s string) string { return p.paint("32", s) }

// Bad is for what is removed or broken.
func (p Palette) Bad(s string) string { return p.paint("31", s) }

// Change is for what is altered or wants attention.
func (p Palette) Change(s string) string { return p.paint("33", s) }

// Strong is for headings and names.
func (p Palette) Strong(s string) string { return p.paint("1", s) }

// Dim is for what matters less.
func (p Palette) Dim(s string) string { return p.paint("2", s) }
