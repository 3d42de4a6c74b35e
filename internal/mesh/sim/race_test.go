//go:build race

package sim

// fewRuns is how often a fault is tried where nobody says it: the race detector
// makes a run ten times as slow.
const fewRuns = 1

// someSizes are the fleets of TestScale, and somePairs how many pairs of each are
// tried.
const (
	someSizes = "20,40"
	somePairs = 10
)
