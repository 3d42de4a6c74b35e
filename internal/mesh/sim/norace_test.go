//go:build !race

package sim

// fewRuns is how often a fault is tried where nobody says it.
const fewRuns = 10

// someSizes are the fleets of TestScale, and somePairs how many pairs of each are
// tried.
const (
	someSizes = "100,300"
	somePairs = 100
)
