package status

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

// Write draws the picture: one line of summary, the problems, then the nodes.
func (s *Fleet) Write(w io.Writer, c term.Palette) error {
	var b strings.Builder
	up := fmt.Sprintf("%d of %d nodes up", s.Up, len(s.Nodes))
	if s.Up == len(s.Nodes) {
		up = c.Good(up)
	} else {
		up = c.Bad(up)
	}
	fmt.Fprintf(&b, "%s   %s   generation %d%s\n", c.Strong(string(s.Name)), up, s.Generation, s.certificatesText(s.now))
	for _, p := range s.Problems {
		line := "  " + c.Bad("!") + " "
		if p.Node != "" {
			line += string(p.Node) + " "
		}
		line += p.What
		if p.Next != "" {
			line += c.Dim("   -> " + p.Next)
		}
		b.WriteString(line + "\n")
	}
	b.WriteString("\n")
	t := term.Table{Indent: "  ", Head: []string{"NODE", "SITE", "UP", "GEN", "LOAD", "MEM", "DISK", "VERSION", "PATHS"}}
	for _, n := range s.Nodes {
		t.Add(row(n, c)...)
	}
	if err := t.Write(&b, c); err != nil {
		return err
	}
	if len(s.Services) > 0 {
		b.WriteString("\n")
		services := serviceTable(s.Services, c)
		if err := services.Write(&b, c); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func row(n Node, c term.Palette) []string {
	switch n.State {
	case Away:
		return []string{c.Bad(string(n.Name)), string(n.Site), c.Bad("away"), fmt.Sprint(n.Generation), "", "", "", "", ""}
	case Absent:
		return []string{c.Dim(string(n.Name)), string(n.Site), c.Dim("-"), "", "", "", "", "", ""}
	case Up:
	}
	return []string{
		string(n.Name), string(n.Site), Span(time.Duration(n.UptimeSec) * time.Second), fmt.Sprint(n.Generation),
		fmt.Sprintf("%.1f", n.Load1), percent(n.MemUsed), percent(n.DiskUsed), n.Moggy, Paths(n.Paths),
	}
}

func percent(part float64) string { return fmt.Sprintf("%.0f %%", part*100) }

// Paths says in a line how a node reaches the others: the ordinary case
// counted, the rest named.
func Paths(peers []fleet.PeerStatus) string {
	direct := make(map[fleet.PathKind][]string)
	relayed := make(map[fleet.NodeName][]string)
	var hubs []fleet.NodeName
	for _, p := range peers {
		name := string(p.Name)
		switch {
		case p.Known():
			name += " " + rtt(p.RTTMicro)
			if p.Loss >= 0.01 {
				name += fmt.Sprintf(" (%.0f %% lost)", 100*p.Loss)
			}
		case p.Path != fleet.PathNone && p.RTTMicro > 0: // it was so then
			name += " (" + Span(time.Duration(p.HeardMs)*time.Millisecond) + " ago)"
		}
		if p.Path == fleet.PathRelayed {
			if len(relayed[p.Via]) == 0 {
				hubs = append(hubs, p.Via)
			}
			relayed[p.Via] = append(relayed[p.Via], name)
			continue
		}
		direct[p.Path] = append(direct[p.Path], name)
	}
	var out []string
	for _, k := range []struct {
		kind fleet.PathKind
		text string
	}{{fleet.PathDirectV6, "v6"}, {fleet.PathDirectV4, "v4"}} {
		if names := direct[k.kind]; len(names) > 0 {
			out = append(out, "direct "+k.text+": "+shorten(names))
		}
	}
	for _, h := range hubs {
		out = append(out, "by "+string(h)+": "+shorten(relayed[h]))
	}
	if names := direct[fleet.PathNone]; len(names) > 0 {
		out = append(out, "none: "+shorten(names))
	}
	return strings.Join(out, "; ")
}

// maxNames is how many peers of one kind of path are named.
const maxNames = 6

func shorten(names []string) string {
	if len(names) > maxNames {
		return fmt.Sprintf("%d nodes", len(names))
	}
	return strings.Join(names, ", ")
}

func rtt(micro int64) string {
	if micro < 10_000 {
		return fmt.Sprintf("%.1fms", float64(micro)/1000)
	}
	return fmt.Sprintf("%dms", micro/1000)
}

// Span is a length of time in one short word or two: "41 d", "2 h", "12 s".
func Span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d d", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}
