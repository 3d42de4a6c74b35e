package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// note is one thing that happened: a packet on its way, or what a machine did.
type note struct {
	at   time.Time
	from *Node
	to   *Node // nil: nobody is known by that address, or it is no packet
	text string
	dst  netip.AddrPort // of a packet
	got  bool
}

// keepNotes is how many things a world remembers, for a drawing.
const keepNotes = 4000

func (w *World) note(n note) *note {
	if len(w.notes) >= 2*keepNotes {
		w.notes = slices.Delete(w.notes, 0, keepNotes)
	}
	w.notes = append(w.notes, &n)
	return &n
}

// notePacket remembers a packet that n sends; who gets it says so by got.
func (w *World) notePacket(n *Node, p Packet) *note {
	return w.note(note{at: w.now, from: n, to: w.owners[p.Dst.Addr()], dst: p.Dst, text: w.describe(p.Data)})
}

// going says how a machine sends to another from now on.
func (w *World) going(to *Node, u path.Use) string {
	by := ""
	if h := w.byID[u.Route.Hub]; h != nil {
		by = ", by " + h.Name
	}
	return fmt.Sprintf("goes %s to %s%s: %s", u.Route.Kind(), to.Name, by, u.Why)
}

// describe names a datagram for people.
func (w *World) describe(b []byte) string {
	name := func(at int) string {
		if o := w.byID[wire.ID(b[at:])]; o != nil {
			return o.Name
		}
		return "?"
	}
	kind := wire.Classify(b)
	switch kind {
	case wire.Forward:
		return w.describe(b[wire.RelaySize:]) + " for " + name(20)
	case wire.Deliver:
		return w.describe(b[wire.RelaySize:]) + " from " + name(12)
	case wire.Ping, wire.Pong:
		text := map[wire.Kind]string{wire.Ping: "ping", wire.Pong: "pong"}[kind]
		if len(b) > wire.ProbeSize {
			text = "full " + text
		}
		if wire.Flags(b[22])&wire.Primary != 0 {
			text += " (primary)"
		}
		return text
	case wire.Call:
		return "call"
	case wire.Notice:
		return "notice"
	case wire.WireGuard:
		return [...]string{question: "data", answer: "answer", oneWay: "data"}[b[20]]
	case wire.Foreign, wire.JoinRequest, wire.JoinReply:
	}
	return fmt.Sprintf("%d bytes", len(b))
}

// Draw returns what happened between two times as a mermaid sequence diagram: at
// most the last so many things, lost packets with a cross. Of all machines, or of
// those named and who they dealt with.
func (w *World) Draw(from, to time.Time, most int, of ...*Node) string {
	var shown []*note
	for _, n := range w.notes {
		ours := len(of) == 0 || slices.Contains(of, n.from) || n.to != nil && slices.Contains(of, n.to)
		if ours && !n.at.Before(from) && !n.at.After(to) {
			shown = append(shown, n)
		}
	}
	shown = shown[max(len(shown)-most, 0):]
	var b strings.Builder
	b.WriteString("sequenceDiagram\n")
	var seen []*Node
	for _, n := range shown {
		for _, who := range []*Node{n.from, n.to} {
			if who != nil && !slices.Contains(seen, who) {
				seen = append(seen, who)
				fmt.Fprintf(&b, "    participant %s\n", who.Name)
			}
		}
	}
	for _, n := range shown {
		at := fmt.Sprintf("%.3f s", n.at.Sub(w.begin).Seconds())
		switch {
		case n.to == nil && n.dst.IsValid():
			fmt.Fprintf(&b, "    Note over %s: %s %s to %v, lost\n", n.from.Name, at, n.text, n.dst)
		case n.to == nil:
			fmt.Fprintf(&b, "    Note over %s: %s %s\n", n.from.Name, at, n.text)
		case n.got:
			fmt.Fprintf(&b, "    %s->>%s: %s %s\n", n.from.Name, n.to.Name, at, n.text)
		default:
			fmt.Fprintf(&b, "    %s-x%s: %s %s\n", n.from.Name, n.to.Name, at, n.text)
		}
	}
	return b.String()
}
