//go:build race

package sim

// fewRuns is how often a fault is tried where nobody says it: the race detector
// makes a run ten times as slow.
const fewRuns = 1
