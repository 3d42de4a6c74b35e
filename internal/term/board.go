package term

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// Board shows how long work goes on: one line per name, rewritten in place on
// a terminal; without one, a plain line each time a name finishes a step. Its
// methods may be called from any goroutine.
type Board struct {
	mu      sync.Mutex
	w       io.Writer
	live    bool
	columns int
	palette Palette
	width   int // of the widest name
	lines   []boardLine
	drawn   int
}

type boardLine struct {
	name, mark, text string
}

// NewBoard returns a board for the names, in that order. Live boards rewrite
// their lines and cut them at the given number of columns.
func NewBoard(w io.Writer, live bool, columns int, p Palette, names ...string) *Board {
	b := &Board{w: w, live: live, columns: columns, palette: p}
	for _, n := range names {
		b.line(n)
	}
	return b
}

// Step says what name is doing now. What stands after a colon is detail, which
// only a live board shows.
func (b *Board) Step(name, text string) {
	if !b.live {
		text, _, _ = strings.Cut(text, ": ")
	}
	b.set(name, b.palette.Change("~"), text)
}

// Done says that name is ready.
func (b *Board) Done(name, text string) { b.set(name, b.palette.Good("+"), text) }

// Fail says that name has stopped, and why.
func (b *Board) Fail(name string, err error) { b.set(name, b.palette.Bad("!"), err.Error()) }

func (b *Board) set(name, mark, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.line(name)
	text, _, _ = strings.Cut(text, "\n")
	if l.mark == mark && l.text == text {
		return
	}
	l.mark, l.text = mark, text
	if !b.live {
		fmt.Fprintf(b.w, "%s %-*s  %s\n", mark, b.width, name, text)
		return
	}
	b.draw()
}

// line returns the entry of that name, made at the end where there is none.
func (b *Board) line(name string) *boardLine {
	for i := range b.lines {
		if b.lines[i].name == name {
			return &b.lines[i]
		}
	}
	b.width = max(b.width, Width(name))
	b.lines = append(b.lines, boardLine{name: name})
	return &b.lines[len(b.lines)-1]
}

func (b *Board) draw() {
	var out strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", b.drawn)
	}
	for _, l := range b.lines {
		mark := l.mark
		if mark == "" {
			mark = " "
		}
		text := l.text
		if room := b.columns - b.width - 5; room > 0 && Width(text) > room {
			text = string([]rune(text)[:room])
		}
		fmt.Fprintf(&out, "\r\x1b[K%s %-*s  %s\n", mark, b.width, l.name, text)
	}
	b.drawn = len(b.lines)
	io.WriteString(b.w, out.String()) //nolint:errcheck // a board that cannot be drawn is no reason to stop the work
}
