//go:build !race

package sim

// fewRuns is how often a fault is tried where nobody says it.
const fewRuns = 10
