package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// DocumentVersion is the format of Report this release writes as JSON.
const DocumentVersion = 1

// Report is all that was found, and what it means. Within a version of the
// document, names are only added.
type Report struct {
	Version  int              `json:"version"`
	Fleet    fleet.Name       `json:"fleet"`
	Healthy  bool             `json:"healthy"` // nothing failed
	Verdict  Verdict          `json:"verdict"`
	Causes   []Cause          `json:"causes"`   // all that failed, the verdict's first
	Warnings []Cause          `json:"warnings"` // what does not fail, but wants a look
	Nodes    []fleet.NodeName `json:"nodes"`    // that were asked for, in the file's order
	Probes   []Line           `json:"probes"`
	TookMs   int64            `json:"took_ms"`
}

// Verdict is the first cause, in plain words, and the one next command.
type Verdict struct {
	Text string `json:"text"`
	Next string `json:"next,omitempty"`
}

// Cause is one thing that failed or wants a look, on however many nodes.
type Cause struct {
	Probe   Name             `json:"probe"`
	Nodes   []fleet.NodeName `json:"nodes,omitempty"` // none where it is about the operator or the whole fleet
	Text    string           `json:"text"`
	Next    string           `json:"next,omitempty"`
	Details []string         `json:"details,omitempty"`
	Skipped int              `json:"skipped,omitempty"` // probes skipped because of it
}

// Line is one probe of a report.
type Line struct {
	Node    fleet.NodeName `json:"node,omitempty"`
	Probe   Name           `json:"probe"`
	Status  Status         `json:"status"`
	Text    string         `json:"text,omitempty"`
	Because string         `json:"because,omitempty"` // the probe that failed: "cosmo: login"
	TookMs  int64          `json:"took_ms"`
}

// Conclude makes the report of a round that is over. Nodes are those that were
// asked for.
func (f *Fleet) Conclude(nodes []fleet.NodeName, outcomes []Outcome, took time.Duration) Report {
	r := Report{
		Version: DocumentVersion, Fleet: f.Fleet.Name, Nodes: nodes, TookMs: took.Milliseconds(),
		Causes: []Cause{}, Warnings: []Cause{}, Probes: []Line{},
	}
	skipped := make(map[ID]int)
	for _, o := range outcomes {
		if o.Status == Skipped {
			skipped[o.Because]++
		}
	}
	blocked := make(map[fleet.NodeName]bool) // of whose ways the first that failed has been named
	for _, o := range outcomes {
		line := Line{Node: o.Node, Probe: o.Name, Status: o.Status, Text: o.Text, TookMs: o.Took.Milliseconds()}
		switch o.Status {
		case Failed:
			if way := isWay(o.Name); way && blocked[o.Node] {
				break
			} else if way && f.Results(ID{o.Node, HostKey}).Status == Skipped {
				blocked[o.Node] = true
			}
			r.Causes = gather(r.Causes, o, skipped[o.ID])
		case Warned:
			r.Warnings = gather(r.Warnings, o, 0)
		case Skipped:
			line.Because = o.Because.String()
		case Passed, Unneeded:
		}
		r.Probes = append(r.Probes, line)
	}
	if own, ok := f.ownNetwork(outcomes); ok { // one thing explains them all
		r.Causes = slices.DeleteFunc(r.Causes, func(c Cause) bool { return isWay(c.Probe) })
		r.Causes = slices.Insert(r.Causes, 0, own)
	}
	r.Healthy = len(r.Causes) == 0
	r.Verdict = f.verdict(&r, outcomes)
	return r
}

func isWay(n Name) bool { return n == TCP || strings.HasPrefix(string(n), viaPrefix) }

// gather adds an outcome to the causes: what is the same on several nodes is
// one of them.
func gather(causes []Cause, o Outcome, skipped int) []Cause {
	text := strings.ReplaceAll(o.Text, string(o.Node), "NODE")
	for i := range causes {
		c := &causes[i]
		if c.Probe == o.Name && len(c.Nodes) > 0 && o.Node != "" && strings.ReplaceAll(c.Text, string(c.Nodes[0]), "NODE") == text {
			c.Nodes = append(c.Nodes, o.Node)
			c.Skipped += skipped
			return causes
		}
	}
	c := Cause{Probe: o.Name, Text: o.Text, Next: o.Next, Details: o.Details, Skipped: skipped}
	if o.Node != "" {
		c.Nodes = []fleet.NodeName{o.Node}
	}
	return append(causes, c)
}

func (f *Fleet) verdict(r *Report, outcomes []Outcome) Verdict {
	if len(r.Causes) == 0 {
		if len(r.Warnings) > 0 {
			return Verdict{Text: "nothing is broken; " + count(len(r.Warnings), "warning"), Next: r.Warnings[0].Next}
		}
		return Verdict{Text: "all is well"}
	}
	first := r.Causes[0]
	v := Verdict{Text: first.sentence(), Next: first.Next}
	if isWay(first.Probe) {
		v = f.unreachable(first, outcomes)
		r.Causes[0].Next = v.Next
	}
	if first.Skipped > 0 {
		v.Text += fmt.Sprintf(" (%s skipped because of it)", count(first.Skipped, "probe"))
	}
	return v
}

// ownNetwork looks whether one thing explains that nobody answers: what all
// silent nodes have in common is the operator.
func (f *Fleet) ownNetwork(outcomes []Outcome) (Cause, bool) {
	silent := 0
	for _, o := range outcomes {
		switch {
		case o.Node == "" && o.Status == Failed && rank(o.Name) <= rank(Network):
			return Cause{}, false // it has been found already
		case o.Name != TCP || o.Status == Unneeded || o.Status == Skipped:
		case o.Status == Failed && o.Silent:
			silent++
		default:
			return Cause{}, false
		}
	}
	if silent < 2 {
		return Cause{}, false
	}
	return Cause{
		Probe: Network,
		Text:  fmt.Sprintf("none of the %d public nodes answers: it is your own network, or a firewall on the way out", silent),
		Next:  "try another line (a phone's), then: moggy doctor",
	}, true
}

// unreachable says of a node that does not answer what the others know of it.
func (f *Fleet) unreachable(c Cause, outcomes []Outcome) Verdict {
	v := Verdict{Text: c.sentence(), Next: c.Next}
	if len(c.Nodes) != 1 {
		return v
	}
	name := c.Nodes[0]
	i := slices.IndexFunc(outcomes, func(o Outcome) bool { return o.Node == name && o.Name == c.Probe })
	hubs := f.reachedBy(name)
	switch {
	case len(hubs) > 0:
		v.Text += "; the machine is up: " + list(hubs) + " reach" + plural(len(hubs), "es", "") + " it on the mesh"
		v.Next = "at its keyboard, or its provider's console: systemctl status ssh sshd; then its firewall"
	case f.answered(name):
	case outcomes[i].Silent && len(f.views().from) > 0:
		v.Text += ", and no node reaches it on the mesh: it is off, or has no network"
		v.Next = "look at the machine, or at its provider's console"
	}
	return v
}

func (f *Fleet) answered(name fleet.NodeName) bool {
	_, ok := f.Answers[name]
	return ok
}

// sentence is the cause with its subject.
func (c Cause) sentence() string {
	switch {
	case len(c.Nodes) == 0:
		return string(c.Probe) + ": " + c.Text
	case len(c.Nodes) > maxListed:
		return fmt.Sprintf("%s: %s: %s", list(c.Nodes), c.Probe, c.Text)
	}
	names := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		names[i] = string(n)
	}
	return strings.Join(names, ", ") + ": " + string(c.Probe) + ": " + c.Text
}

func count(n int, what string) string {
	return fmt.Sprintf("%d %s", n, what) + plural(n, "", "s")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
