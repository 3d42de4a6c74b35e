package plan

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
	"github.com/moggyfleet/moggy/internal/term"
)

// Back is the way of nodes to the generation each had before.
type Back struct {
	Version int             `json:"version"` // 1
	Fleet   fleet.Name      `json:"fleet"`
	Nodes   []BackNode      `json:"nodes"`
	Order   []rollout.Group `json:"order,omitempty"`

	Rollout []rollout.Node `json:"-"`
}

// BackNode is one node that is asked to go back. To is 0 where it cannot, and
// Note says why.
type BackNode struct {
	Node fleet.NodeName `json:"node"`
	From int            `json:"from"`
	To   int            `json:"to,omitempty"`
	Note string         `json:"note,omitempty"`
}

// GoBack plans the return of the named nodes, or where none is named of those
// that stand on the fleet's newest generation, to the generation before. The
// error names a node that is not in the file.
func GoBack(f *fleet.Fleet, seen map[fleet.NodeName]Observation, named []fleet.NodeName) (*Back, error) {
	for _, name := range named {
		if _, ok := f.Node(name); !ok {
			return nil, unknown(name)
		}
	}
	newest := 0
	for _, o := range seen {
		if o.Seen != nil {
			newest = max(newest, o.Seen.Current.Number)
		}
	}
	b := &Back{Version: 1, Fleet: f.Name}
	roles := f.Roles()
	for _, n := range f.Nodes {
		o := seen[n.Name]
		wanted := slices.Contains(named, n.Name) ||
			len(named) == 0 && (o.Seen == nil && o.Problem != "" || o.Seen != nil && newest > 0 && o.Seen.Current.Number == newest)
		if !wanted {
			continue
		}
		bn := backNode(n.Name, o)
		b.Nodes = append(b.Nodes, bn)
		if bn.To == 0 {
			continue
		}
		r := roles[n.Name]
		b.Rollout = append(b.Rollout, rollout.Node{
			Name: n.Name, Work: rollout.WorkSwitch, Hub: r.Hub, Server: r.Server,
			From: bn.From, To: bn.To, Named: slices.Contains(named, n.Name),
		})
	}
	b.Order = rollout.Order(b.Rollout, 0) // what ran there before needs no watching
	return b, nil
}

func backNode(name fleet.NodeName, o Observation) BackNode {
	bn := BackNode{Node: name}
	if o.Seen == nil {
		bn.Note = "cannot be reached, left as it is"
		if o.Problem != "" {
			bn.Note += ": " + o.Problem
		}
		return bn
	}
	at := o.Seen.Current
	bn.From = at.Number
	switch {
	case at.Number == 0:
		bn.Note = "nothing is in force on it yet"
	case at.Previous == 0 || !slices.Contains(o.Seen.Kept, at.Previous):
		bn.Note = fmt.Sprintf("has no generation before %d, left as it is", at.Number)
	default:
		bn.To = at.Previous
	}
	return bn
}

// Write draws a line for each node, then the order.
func (b *Back) Write(w io.Writer, c term.Palette) error {
	var out strings.Builder
	for _, n := range b.Nodes {
		if n.To == 0 {
			fmt.Fprintf(&out, "%s %-12s %s\n", c.Bad("?"), n.Node, n.Note)
			continue
		}
		fmt.Fprintf(&out, "%s %-12s generation %d -> %d\n", c.Change("~"), n.Node, n.From, n.To)
	}
	if len(b.Nodes) == 0 {
		out.WriteString("Nothing to take back.\n")
	}
	if _, err := io.WriteString(w, out.String()); err != nil {
		return err
	}
	return writeOrder(w, c, b.Order)
}
