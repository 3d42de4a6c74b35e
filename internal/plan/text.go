package plan

import (
	"fmt"
	"io"
	"strings"

	"github.com/moggyfleet/moggy/internal/plan/rollout"
	"github.com/moggyfleet/moggy/internal/term"
)

// maxDiffLines bounds what is shown of one file's diff.
const maxDiffLines = 40

// Write draws the plan as a tree per node, then what one failure stops, then
// the sum. With diffs off, files are named and their diffs left out.
func (p *Plan) Write(w io.Writer, c term.Palette, diffs bool) error {
	t := &tree{p: p, c: c, diffs: diffs, shown: make(map[string]string)}
	t.head()
	quiet := 0
	for _, n := range p.Nodes {
		if n.Action == ActionNone {
			quiet++
			continue
		}
		t.node(n)
	}
	if quiet > 0 && quiet < len(p.Nodes) {
		t.line(c.Dim(fmt.Sprintf("  %d more as they should be", quiet)))
	}
	t.names()
	t.failures()
	t.sum()
	_, err := io.WriteString(w, t.b.String())
	return err
}

type tree struct {
	b     strings.Builder
	p     *Plan
	c     term.Palette
	diffs bool
	shown map[string]string // diff text -> the node it was shown at
}

func (t *tree) line(s string) { t.b.WriteString(strings.TrimRight(s, " ") + "\n") }

func (t *tree) head() {
	against := "nothing applied yet"
	if t.p.Base > 0 {
		against = fmt.Sprintf("compared with generation %d", t.p.Base)
	}
	t.line(fmt.Sprintf("%s: %s, %s", t.c.Strong(string(t.p.Fleet)), count(len(t.p.Nodes), "node"), against))
	for _, r := range t.p.Rotations {
		t.line("  " + t.c.Bad("!") + fmt.Sprintf(" %s is getting a new mesh key, both are good until then", r.Node) + t.c.Dim("   -> "+r.Next))
	}
	t.line("")
}

func (t *tree) node(n NodePlan) {
	mark, what := t.c.Change("~"), ""
	switch n.Action {
	case ActionContact, ActionJoin:
		mark, what = t.c.Good("+"), n.Note
	case ActionRemove:
		mark, what = t.c.Bad("-"), n.Note
	case ActionUnreachable:
		mark, what = t.c.Bad("?"), "cannot be reached, left as it is: "+n.Note
	case ActionRestore:
		what = fmt.Sprintf("generation %d put right again", n.To)
	case ActionChange:
		what = fmt.Sprintf("generation %d -> %d", n.From, n.To)
		if n.From == 0 {
			mark, what = t.c.Good("+"), fmt.Sprintf("first generation: %d", n.To)
		}
	case ActionBehind:
		mark, what = t.c.Dim("."), n.Note
	case ActionNone:
	}
	t.line(fmt.Sprintf("%s %-12s %s", mark, n.Node, what))
	if n.Newer != "" {
		t.line("    " + t.c.Bad("!") + " its moggy " + n.Newer + " is newer than yours, which would replace it")
	}
	for _, pkg := range n.Packages {
		t.line("    " + t.c.Good("+") + " package " + pkg)
	}
	for _, image := range n.Images {
		t.line("    " + t.c.Good("+") + " image " + image)
	}
	for _, f := range n.Files {
		t.file(n, f)
	}
	for _, u := range n.Units {
		t.line("    " + t.c.Change("~") + " " + u.Name + "  " + string(u.Op))
	}
}

func (t *tree) file(n NodePlan, f FileChange) {
	mark := map[Op]string{OpAdd: t.c.Good("+"), OpChange: t.c.Change("~"), OpRemove: t.c.Bad("-")}[f.Op]
	note := f.Note
	if f.Drift {
		note = strings.TrimPrefix(note+", changed by hand", ", ")
	}
	first, again := t.shown[f.Diff]
	if f.Diff != "" && again {
		note = strings.TrimPrefix(note+", the same as on "+first, ", ")
	}
	line := "    " + mark + " " + f.Path
	if note != "" {
		line += "  " + t.c.Dim("("+note+")")
	}
	t.line(line)
	if f.Diff == "" || again || !t.diffs {
		return
	}
	t.shown[f.Diff] = string(n.Node)
	t.diff(f.Diff)
}

func (t *tree) diff(d string) {
	lines := strings.Split(strings.TrimRight(d, "\n"), "\n")
	for i, l := range lines {
		if i == maxDiffLines {
			t.line(t.c.Dim(fmt.Sprintf("        %d more lines", len(lines)-i)))
			return
		}
		switch {
		case strings.HasPrefix(l, "+"):
			l = t.c.Good(l)
		case strings.HasPrefix(l, "-"):
			l = t.c.Bad(l)
		default:
			l = t.c.Dim(l)
		}
		t.line("        " + l)
	}
}

func (t *tree) failures() {
	r := t.p.Failures
	if len(r.Failures) == 0 {
		return
	}
	t.line("")
	if len(r.Today) > 0 {
		t.line(t.c.Strong("Does not work today:"))
		for _, s := range r.Today {
			t.stop("", s)
		}
	}
	t.line(t.c.Strong("What one failure stops:"))
	label := func(f Failure) string {
		switch f.Kind {
		case LossSite:
			return "site " + enumerate(f.Lost, 4, "or")
		case LossPair:
			if len(f.Lost) == 2 {
				return enumerate(f.Lost, 2, "and")
			}
			return "two of " + enumerate(f.Lost, 4, "and")
		case LossNode:
			if len(f.Lost) == len(t.p.Nodes) && len(f.Lost) > 1 {
				return "any one node"
			}
		}
		return enumerate(f.Lost, 6, "or")
	}
	width := 0
	for _, f := range r.Failures {
		width = max(width, len(label(f)))
	}
	for _, f := range r.Failures {
		head := fmt.Sprintf("%-*s", width, label(f))
		if len(f.Stops) == 0 {
			t.line("  " + head + "   " + t.c.Good("nothing"))
		}
		for _, s := range f.Stops {
			t.stop(head, s)
			head = strings.Repeat(" ", width)
		}
	}
}

func (t *tree) stop(head string, s Stop) {
	indent := strings.Repeat(" ", len(head)+5)
	t.line("  " + head + "   " + t.c.Change(s.What))
	if s.Fix != "" {
		t.line(indent + "fix: " + s.Fix)
	}
}

func (t *tree) sum() {
	t.line("")
	add, change, remove, away := t.p.Count()
	if !t.p.Changes() {
		text := "Nothing to do."
		if away > 0 {
			text = fmt.Sprintf("Nothing to do; %s could not be reached.", count(away, "node"))
		}
		t.line(t.c.Good(text))
		return
	}
	text := fmt.Sprintf("%d to add, %d to change, %d to remove.", add, change, remove)
	if away > 0 {
		text += fmt.Sprintf(" %s could not be reached.", count(away, "node"))
	}
	t.line(t.c.Strong(text) + " moggy apply carries it out.")
}

// WriteOrder draws in which order a rollout takes the nodes: a line for each
// group.
func (p *Plan) WriteOrder(w io.Writer, c term.Palette) error { return writeOrder(w, c, p.Order) }

func writeOrder(w io.Writer, c term.Palette, groups []rollout.Group) error {
	var b strings.Builder
	if len(groups) > 0 {
		b.WriteString("\n" + c.Strong("Order:") + "\n")
	}
	for i, g := range groups {
		fmt.Fprintf(&b, "  %d  %-8s  %s\n", i+1, g.Phase, orderLine(g))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func orderLine(g rollout.Group) string {
	names := make([]string, len(g.Nodes))
	for i, n := range g.Nodes {
		names[i] = string(n)
	}
	line := enumerate(names, 6, "and")
	switch {
	case len(names) == 1:
	case g.Phase == rollout.PhaseHubs:
		line += ", one by one, each when the others can spare it"
	case g.AtOnce < len(names):
		line += fmt.Sprintf(", %d at a time", g.AtOnce)
	case g.Phase != rollout.PhaseForget:
		line += ", side by side"
	}
	switch {
	case g.Soak > 0 && len(names) == 1:
		line += fmt.Sprintf("; its new moggy is watched for %d s", g.Soak)
	case g.Soak > 0:
		line += fmt.Sprintf("; the first one's new moggy is watched for %d s", g.Soak)
	}
	return line
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
