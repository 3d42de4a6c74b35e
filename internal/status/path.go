package status

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

// PathVersion is the format of Path this release writes as JSON.
const PathVersion = 1

// Path is how one node reaches another, as the first sees it. Within a version
// of the document, names are only added.
type Path struct {
	Version int              `json:"version"`
	From    fleet.NodeName   `json:"from"`
	At      time.Time        `json:"at"` // when it answered
	To      fleet.PeerStatus `json:"to"` // with all ways
}

// Write draws it: the path in use, then every way there is, or why there is
// none.
func (p Path) Write(w io.Writer, c term.Palette) error {
	var b strings.Builder
	since := ""
	if p.To.Path != fleet.PathNone {
		since = "   since " + clock(p.At.Add(-time.Duration(p.To.SinceSec)*time.Second), p.At)
	}
	fmt.Fprintf(&b, "%s -> %s    %s%s%s\n", c.Strong(string(p.From)), c.Strong(string(p.To.Name)), p.used(c), p.quality(), since)
	if p.To.Path != fleet.PathNone && p.To.Why != "" {
		b.WriteString(c.Dim("  why            "+p.To.Why) + "\n")
	}
	for _, way := range p.To.Ways {
		fmt.Fprintf(&b, "  %-15s%s\n", wayName(way), p.wayText(way, c))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p Path) used(c term.Palette) string {
	switch p.To.Path {
	case fleet.PathDirectV6:
		return c.Good("direct, IPv6")
	case fleet.PathDirectV4:
		return c.Good("direct, IPv4")
	case fleet.PathRelayed:
		return "relayed by " + string(p.To.Via)
	case fleet.PathNone:
	}
	return c.Bad("no path")
}

// quality is how good the path in use is, or how long nothing is known of it.
func (p Path) quality() string {
	switch {
	case p.To.Path == fleet.PathNone:
		return ""
	case p.To.RTTMicro == 0:
		return "   no answer yet"
	case !p.To.Known():
		return "   last heard " + Span(time.Duration(p.To.HeardMs)*time.Millisecond) + " ago"
	}
	return fmt.Sprintf("   %s   %.1f %% loss", milliseconds(p.To.RTTMicro), 100*p.To.Loss)
}

func wayName(w fleet.Way) string {
	switch w.Path {
	case fleet.PathDirectV6:
		return "direct IPv6"
	case fleet.PathDirectV4:
		return "direct IPv4"
	case fleet.PathRelayed, fleet.PathNone:
	}
	return "via " + string(w.Via)
}

func (p Path) wayText(w fleet.Way, c term.Palette) string {
	heard := time.Duration(w.HeardMs) * time.Millisecond
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch w.State {
	case fleet.WayUsed:
		add("%s", c.Good("in use"))
	case fleet.WaySpare:
		add("proven %s ago, next in line", ago(heard))
	case fleet.WayProven:
		add("proven %s ago", ago(heard))
	case fleet.WayNarrow:
		add("passes small packets only, large ones are lost")
	case fleet.WayLost:
		add("lost, last answer %s ago", ago(heard))
	case fleet.WayUntold, fleet.WayNone:
	}
	if w.Why != "" {
		add("%s", w.Why)
	}
	if w.State == fleet.WayUntold || w.State == fleet.WayLost {
		switch {
		case w.Path != fleet.PathRelayed && w.Tried > 0:
			add("punching tried %s, no answer", clock(time.Unix(w.Tried, 0), p.At))
		case w.State == fleet.WayUntold:
			add("no answer yet")
		}
	}
	if w.HeldSec > 0 && w.State != fleet.WayUsed {
		add("held back for another %s", Span(time.Duration(w.HeldSec)*time.Second))
	}
	if w.TxBytes+w.RxBytes > 0 {
		add("relayed %s there, %s back", volume(w.TxBytes), volume(w.RxBytes))
	}
	text := strings.Join(parts, "; ")
	if w.RTTMicro > 0 {
		loss := ""
		if w.Loss > 0 {
			loss = fmt.Sprintf("%.1f %% loss   ", 100*w.Loss)
		}
		text = fmt.Sprintf("%-9s%s%s", milliseconds(w.RTTMicro), loss, text)
	}
	return text
}

func milliseconds(micro int64) string {
	if micro < 10_000 {
		return fmt.Sprintf("%.1f ms", float64(micro)/1000)
	}
	return fmt.Sprintf("%d ms", micro/1000)
}

// volume is a number of bytes.
func volume(n uint64) string {
	size, unit := float64(n), "B"
	for _, next := range []string{"kB", "MB", "GB", "TB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1000, next
	}
	if unit == "B" || size >= 100 {
		return fmt.Sprintf("%.0f %s", size, unit)
	}
	return fmt.Sprintf("%.1f %s", size, unit)
}

func ago(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return Span(d)
}

// clock is a time of the last day as such, an older one with its date.
func clock(t, now time.Time) string {
	t = t.In(now.Location())
	if now.Sub(t) < 24*time.Hour {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}
