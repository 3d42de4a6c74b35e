package deploy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
)

// Failed are the nodes where an apply stopped, each with its reason.
type Failed map[fleet.NodeName]error

// Error names each node that failed and why, in the order of their names.
func (f Failed) Error() string {
	names := make([]fleet.NodeName, 0, len(f))
	for n := range f {
		names = append(names, n)
	}
	slices.Sort(names)
	var out strings.Builder
	for i, n := range names {
		if i > 0 {
			out.WriteString("\n")
		}
		fmt.Fprintf(&out, "%s: %v", n, f[n])
	}
	return out.String()
}

// Unwrap gives the reasons, for their hints.
func (f Failed) Unwrap() []error {
	var out []error
	for _, err := range f {
		out = append(out, err)
	}
	return out
}

func (f Failed) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Stopped is a rollout that did not come to its end.
type Stopped struct {
	Failed      Failed
	Cause       error // on the operator's side; nil where it was the nodes
	Interrupted bool
	Stands      []rollout.Stand
}

func (s *Stopped) Error() string {
	var lines []string
	if s.Interrupted {
		lines = append(lines, "interrupted")
	}
	if s.Cause != nil {
		lines = append(lines, s.Cause.Error())
	}
	if len(s.Failed) > 0 {
		lines = append(lines, s.Failed.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the reasons, for their hints.
func (s *Stopped) Unwrap() []error {
	return slices.DeleteFunc([]error{s.Cause, s.Failed.err()}, func(err error) bool { return err == nil })
}

// Summary says where the nodes stand, a line for each way of standing: those
// that nothing happened to last.
func (s *Stopped) Summary() []string {
	type way struct {
		state      rollout.State
		generation int
	}
	by := make(map[way][]string)
	for _, n := range s.Stands {
		w := way{n.State, n.Generation}
		by[w] = append(by[w], string(n.Node))
	}
	order := []rollout.State{
		rollout.Changed, rollout.Forgotten, rollout.WentBack, rollout.Unconfirmed, rollout.Stopped, rollout.Staged, rollout.NotBegun,
	}
	ways := make([]way, 0, len(by))
	for w := range by {
		ways = append(ways, w)
	}
	slices.SortFunc(ways, func(a, b way) int {
		if a.state != b.state {
			return slices.Index(order, a.state) - slices.Index(order, b.state)
		}
		return b.generation - a.generation
	})
	out := make([]string, 0, len(ways))
	for _, w := range ways {
		out = append(out, fmt.Sprintf("%s: %s", stands(w.state, w.generation), several(by[w])))
	}
	return out
}

func stands(s rollout.State, generation int) string {
	switch s {
	case rollout.Changed:
		return fmt.Sprintf("on generation %d, confirmed", generation)
	case rollout.Forgotten:
		return "forgotten"
	case rollout.WentBack:
		return fmt.Sprintf("went back to generation %d", generation)
	case rollout.Unconfirmed:
		return fmt.Sprintf("on generation %d as far as is known, unconfirmed: goes back by itself", generation)
	case rollout.Staged, rollout.NotBegun, rollout.Stopped:
	}
	if generation == 0 {
		return "nothing in force yet"
	}
	return fmt.Sprintf("still on generation %d", generation)
}

// several joins names, as many as one reads.
func several(names []string) string {
	const readable = 12
	if len(names) > readable {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:readable], ", "), len(names)-readable)
	}
	return strings.Join(names, ", ")
}

// several failures of the same kind are told once.
func gather(failed Failed) error {
	if len(failed) <= 1 {
		return failed.err()
	}
	names := make([]fleet.NodeName, 0, len(failed))
	for n := range failed {
		names = append(names, n)
	}
	slices.Sort(names)
	return errors.Join(fmt.Errorf("%s: %w", names[0], failed[names[0]]), fmt.Errorf("and so on %d more nodes", len(failed)-1))
}
