// Package status makes one picture of what every node said of itself: who is
// up, on which generation, over which paths, and first of all what is wrong.
// It is pure; asking the nodes is package deploy's business.
package status

import (
	"fmt"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// DocumentVersion is the format of Fleet this release writes as JSON.
const DocumentVersion = 1

// Answer is what asking one node gave.
type Answer struct {
	Seen    *fleet.Observed // nil where it did not answer
	Problem string          // why not
	Via     fleet.NodeName  // the hub that led to it, "" for none
}

// Fleet is the picture. Within a version of the document, names are only
// added.
type Fleet struct {
	Version    int        `json:"version"`
	Name       fleet.Name `json:"fleet"`
	Generation int        `json:"generation"` // the highest confirmed
	Up         int        `json:"up"`         // nodes that answered
	Problems   []Problem  `json:"problems"`
	Nodes      []Node     `json:"nodes"`              // in the file's order
	Services   []Service  `json:"services,omitempty"` // in the file's order

	Certificates []Certificate `json:"certificates,omitempty"` // sorted by host

	now time.Time
}

// Problem is one thing that wants attention, and the command that mends it.
type Problem struct {
	Node fleet.NodeName `json:"node,omitempty"`
	What string         `json:"what"`
	Next string         `json:"next,omitempty"`
}

// Node is one node's line.
type Node struct {
	Name       fleet.NodeName     `json:"name"`
	Site       fleet.SiteName     `json:"site"`
	State      State              `json:"state"`
	Via        fleet.NodeName     `json:"via,omitempty"` // the hub ssh went through
	V4         string             `json:"v4,omitempty"`
	V6         string             `json:"v6,omitempty"`
	Generation int                `json:"generation"`
	Moggy      string             `json:"moggy,omitempty"` // version of its agent
	UptimeSec  int64              `json:"uptime_s,omitempty"`
	Load1      float64            `json:"load1"`
	CPUs       int                `json:"cpus,omitempty"`
	DiskUsed   float64            `json:"disk_used"` // 0 to 1
	MemUsed    float64            `json:"mem_used"`  // 0 to 1
	Drift      []string           `json:"drift,omitempty"`
	Paths      []fleet.PeerStatus `json:"paths,omitempty"`
}

// State says how a node stands.
type State string

// The states of a node.
const (
	Up     State = "up"
	Away   State = "away"   // known, did not answer
	Absent State = "absent" // in the file, never seen
)

// Limits from which a resource is a problem, as parts of the whole. A disk
// that is nine tenths full leaves little time; ext4 keeps 5 % for root.
const (
	diskFull = 0.90
	memFull  = 0.95
)

// maxClockSkew is from where a node's clock is called wrong: certificates and
// logs suffer long before the mesh does.
const maxClockSkew = 30 * time.Second

// Summarise draws the picture from the answers. now is the operator's clock.
func Summarise(f *fleet.Fleet, l *fleet.Lock, answers map[fleet.NodeName]Answer, now time.Time) Fleet {
	s := Fleet{Version: DocumentVersion, Name: f.Name, Problems: []Problem{}, Nodes: []Node{}}
	locks := make(map[fleet.NodeName]fleet.NodeLock, len(l.Nodes))
	for _, n := range l.Nodes {
		locks[n.Name] = n
	}
	for _, n := range f.Nodes {
		node, problems := summarise(n, locks[n.Name], answers[n.Name], now)
		if node.State == Up {
			s.Up++
		}
		s.Generation = max(s.Generation, node.Generation)
		s.Nodes = append(s.Nodes, node)
		s.Problems = append(s.Problems, problems...)
		if locks[n.Name].Rotating() {
			s.Problems = append(s.Problems, Problem{n.Name, "is getting a new mesh key, both are good until then", "moggy rotate " + string(n.Name)})
		}
	}
	s.Problems = append(s.Problems, paths(s.Nodes)...)
	s.services(f, answers, now)
	s.certificates(f, answers, now)
	s.now = now
	return s
}

func summarise(n fleet.Node, l fleet.NodeLock, a Answer, now time.Time) (Node, []Problem) {
	out := Node{Name: n.Name, Site: n.Site, State: Away, Via: a.Via, Generation: l.Generation}
	if l.V4.IsValid() {
		out.V4, out.V6 = l.V4.String(), l.V6.String()
	}
	switch {
	case a.Seen != nil:
	case l.MeshKey.IsZero():
		out.State = Absent
		next := "moggy apply"
		if !n.Reachable() {
			next = "moggy token " + string(n.Name)
		}
		return out, []Problem{{n.Name, "is in the file, but not in the fleet yet", next}}
	default:
		return out, []Problem{{n.Name, "does not answer: " + a.Problem, "moggy ssh " + string(n.Name)}}
	}
	seen, sys := a.Seen, a.Seen.System
	out.State, out.Generation, out.Moggy = Up, seen.Current.Number, seen.Moggy
	out.UptimeSec, out.Load1, out.CPUs = int64(sys.Uptime.Seconds()), sys.Load1, sys.CPUs
	out.DiskUsed, out.MemUsed = used(sys.DiskTotal, sys.DiskFree), used(sys.MemTotal, sys.MemFree)
	for _, d := range seen.Drift {
		out.Drift = append(out.Drift, d.Path)
	}
	if seen.Mesh != nil {
		out.Moggy, out.Paths = seen.Mesh.Agent, seen.Mesh.Peers
	}
	return out, problems(out, seen, now)
}

func problems(n Node, seen *fleet.Observed, now time.Time) []Problem {
	var out []Problem
	add := func(next, format string, args ...any) {
		out = append(out, Problem{n.Name, fmt.Sprintf(format, args...), next})
	}
	if !seen.Current.Confirmed && seen.Current.Number > 0 {
		add("moggy apply", "generation %d was never confirmed", seen.Current.Number)
	}
	for _, u := range seen.Units {
		if _, is := fleet.ServiceOf(u.Name); is {
			continue // its service's line tells
		}
		if u.Active != "active" && u.Active != "reloading" {
			add(fmt.Sprintf("moggy ssh %s -- journalctl -u %s -n 50", n.Name, u.Name), "%s is %s", u.Name, u.Active)
		}
	}
	if seen.Mesh == nil && seen.Current.Number > 0 && len(out) == 0 {
		add(fmt.Sprintf("moggy ssh %s -- journalctl -u moggy-agent -n 50", n.Name), "its agent does not answer")
	}
	for _, d := range seen.Drift {
		add("moggy apply", "%s %s", d.Path, driftText(d.Kind))
	}
	if n.DiskUsed > diskFull {
		add("", "disk %.0f %% full", n.DiskUsed*100)
	}
	if n.MemUsed > memFull {
		add("", "memory %.0f %% used", n.MemUsed*100)
	}
	if skew := seen.System.Clock.Sub(now); !seen.System.Clock.IsZero() && skew.Abs() > maxClockSkew {
		way := "ahead of"
		if skew < 0 {
			way = "behind"
		}
		add("", "its clock is %s %s yours", Span(skew.Abs()), way)
	}
	return out
}

func driftText(k fleet.DriftKind) string {
	switch k {
	case fleet.DriftMissing:
		return "was removed by hand"
	case fleet.DriftMode:
		return "has other permissions than it was given"
	case fleet.DriftChanged:
	}
	return "was changed by hand"
}

func used(total, free uint64) float64 {
	if total == 0 {
		return 0
	}
	return 1 - float64(free)/float64(total)
}

// paths is what the nodes' views of each other say: who of those that answered
// has no path to whom, and who still reaches one that did not.
func paths(nodes []Node) []Problem {
	state := make(map[fleet.NodeName]State, len(nodes))
	for _, n := range nodes {
		state[n.Name] = n.State
	}
	cut := make(map[fleet.NodeName][]string)
	reached := make(map[fleet.NodeName][]string)
	for _, n := range nodes {
		for _, p := range n.Paths {
			switch {
			case state[p.Name] == Up && p.Path == fleet.PathNone:
				cut[p.Name] = append(cut[p.Name], string(n.Name))
			case state[p.Name] == Away && p.Known():
				reached[p.Name] = append(reached[p.Name], string(n.Name))
			}
		}
	}
	var out []Problem
	for _, n := range nodes {
		if by := cut[n.Name]; len(by) > 0 {
			out = append(out, Problem{n.Name, "has no path from " + strings.Join(by, ", "), "moggy ssh " + string(n.Name) + " -- journalctl -u moggy-agent -n 50"})
		}
		if by := reached[n.Name]; len(by) > 0 {
			out = append(out, Problem{n.Name, "is still on the mesh, as seen from " + strings.Join(by, ", "), ""})
		}
	}
	return out
}
