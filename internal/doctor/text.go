package doctor

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

// maxColumns is how many nodes stand side by side; of more, those with
// something to say come first, and the others are counted.
const maxColumns = 12

// Write draws the report: what was probed, node beside node, then what failed
// and what wants a look, then the verdict. Of one node alone every probe has a
// line.
func (r *Report) Write(w io.Writer, p term.Palette) error {
	var b strings.Builder
	r.head(&b, p)
	if len(r.Nodes) == 1 {
		r.lines(&b, p)
	} else {
		if err := r.matrix(&b, p); err != nil {
			return err
		}
		for _, c := range r.Causes {
			c.write(&b, p.Bad("!"), p)
		}
		for _, c := range r.Warnings {
			c.write(&b, p.Change("~"), p)
		}
		if len(r.Causes)+len(r.Warnings) > 0 {
			b.WriteByte('\n')
		}
	}
	paint := p.Good
	if !r.Healthy {
		paint = p.Bad
	}
	fmt.Fprintf(&b, "%s %s\n", paint("verdict:"), r.Verdict.Text)
	if r.Verdict.Next != "" {
		fmt.Fprintf(&b, "%s %s\n", p.Strong("next:   "), r.Verdict.Next)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) head(b *strings.Builder, p term.Palette) {
	n := make(map[Status]int)
	for _, l := range r.Probes {
		n[l.Status]++
	}
	var parts []string
	if n[Failed] > 0 {
		parts = append(parts, p.Bad(fmt.Sprintf("%d failed", n[Failed])))
	}
	if n[Skipped] > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", n[Skipped]))
	}
	if n[Warned] > 0 {
		parts = append(parts, p.Change(count(n[Warned], "warning")))
	}
	parts = append(parts, p.Good(fmt.Sprintf("%d passed", n[Passed])))
	title := cmp.Or(string(r.Fleet), "no fleet")
	fmt.Fprintf(b, "%s   %s\n\n", p.Strong(title), strings.Join(parts, ", "))
}

// lines lists every probe with what it found.
func (r *Report) lines(b *strings.Builder, p term.Palette) {
	width := 0
	for _, l := range r.Probes {
		width = max(width, term.Width(string(l.subject(r.Nodes[0]))))
	}
	for _, l := range r.Probes {
		if l.Status == Unneeded || l.Status == Passed && l.Node != "" && l.Node != r.Nodes[0] {
			continue // the way through a hub works: what that took is no news
		}
		text := l.Text
		switch l.Status {
		case Skipped:
			text = p.Dim("skipped because of " + l.Because)
		case Passed, Warned, Failed, Unneeded:
		}
		fmt.Fprintf(b, "  %s %-*s  %s\n", mark(l.Status, p), width, l.subject(r.Nodes[0]), text)
		for _, c := range r.Causes {
			if l.Status == Failed && c.Probe == l.Probe {
				for _, d := range c.Details {
					fmt.Fprintf(b, "    %*s  %s\n", width, "", p.Dim("| "+d))
				}
			}
		}
	}
	b.WriteByte('\n')
}

// subject is the probe's name, with its node where that is not the one asked
// for.
func (l Line) subject(asked fleet.NodeName) string {
	if l.Node == asked || l.Node == "" {
		return string(l.Probe)
	}
	return string(l.Node) + " " + string(l.Probe)
}

func mark(s Status, p term.Palette) string {
	switch s {
	case Passed:
		return p.Good("+")
	case Warned:
		return p.Change("~")
	case Failed:
		return p.Bad("!")
	case Skipped:
		return p.Dim(".")
	case Unneeded:
	}
	return " "
}

// matrix has a row for each thing looked at and a column for each node. What is
// about the operator or the fleet stands in a line above and one below.
func (r *Report) matrix(b *strings.Builder, p term.Palette) error {
	cells := make(map[ID]Status)
	for _, l := range r.Probes {
		id := ID{l.Node, l.Probe}
		if strings.HasPrefix(string(l.Probe), viaPrefix) {
			id.Name = viaPrefix
			l.Status = better(cells[id], l.Status)
		}
		cells[id] = l.Status
	}
	single := func(title string, names ...Name) {
		fmt.Fprintf(b, "  %-11s", title)
		for _, n := range names {
			if s, ok := cells[ID{"", n}]; ok {
				fmt.Fprintf(b, "  %s %s", mark(s, p), n)
			}
		}
		b.WriteByte('\n')
	}
	single("you", Client, Files, Config, Keys, Network, YourClock)
	if _, ok := cells[ID{"", AllHubs}]; ok {
		single("the fleet", AllHubs, Quorum, Pairs, Versions)
	}
	b.WriteByte('\n')
	if len(r.Nodes) == 0 { // the file could not be read
		return nil
	}
	nodes, rest := r.columns()
	t := term.Table{Indent: "  ", Head: []string{""}}
	for _, n := range nodes {
		t.Head = append(t.Head, string(n))
	}
	for _, name := range chain() {
		row, some := []string{strings.TrimSpace(string(name))}, false
		for _, n := range nodes {
			s := cells[ID{n, name}]
			some = some || s != "" && s != Unneeded
			row = append(row, mark(s, p))
		}
		if some {
			t.Add(row...)
		}
	}
	if err := t.Write(b, p); err != nil {
		return err
	}
	if rest > 0 {
		fmt.Fprintf(b, "  and %d nodes more, of which there is nothing to say\n", rest)
	}
	b.WriteByte('\n')
	return nil
}

// better is what stands for several ways to one node: the best of them.
func better(a, b Status) Status {
	for _, s := range []Status{Passed, Warned, Failed, Skipped, Unneeded} {
		if a == s || b == s {
			return s
		}
	}
	return b
}

// columns are the nodes that are shown, and how many are not.
func (r *Report) columns() (shown []fleet.NodeName, rest int) {
	if len(r.Nodes) <= maxColumns {
		return r.Nodes, 0
	}
	bad := make(map[fleet.NodeName]bool)
	for _, l := range r.Probes {
		if l.Status != Passed && l.Status != Unneeded {
			bad[l.Node] = true
		}
	}
	for _, n := range r.Nodes {
		if bad[n] && len(shown) < maxColumns {
			shown = append(shown, n)
		}
	}
	for n := range bad {
		if n != "" {
			rest--
		}
	}
	rest += len(r.Nodes)
	return shown, rest
}

func (c Cause) write(b *strings.Builder, mark string, p term.Palette) {
	text := c.sentence()
	if c.Skipped > 0 {
		text += p.Dim(fmt.Sprintf("   (%d skipped)", c.Skipped))
	}
	fmt.Fprintf(b, "  %s %s\n", mark, text)
	for _, d := range c.Details {
		fmt.Fprintf(b, "      %s\n", p.Dim("| "+d))
	}
}
