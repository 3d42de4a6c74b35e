package source

import (
	"fmt"
	"strings"
)

// DidYouMean suggests the candidate that is closest to what was written, or
// nothing where none is close. aliases are words people use for a candidate;
// quote is put on both sides of it.
func DidYouMean(written string, candidates []string, aliases map[string]string, quote string) string {
	if best := Closest(written, candidates, aliases); best != "" {
		return fmt.Sprintf("did you mean %s%s%s?", quote, best, quote)
	}
	return ""
}

// Closest is the candidate that is closest to what was written, or "" where
// none is close.
func Closest(written string, candidates []string, aliases map[string]string) string {
	folded := strings.ToLower(written)
	if a := aliases[folded]; a != "" {
		return a
	}
	// A third of the letters may differ: more, and any short word is close to
	// any other.
	best, limit := "", max(1, (len(folded)+1)/3)
	if len(folded) < 2 || len(folded) > 63 {
		limit = 0
	}
	for _, c := range candidates {
		if abs(len(c)-len(folded)) > limit {
			continue
		}
		if n := distance(folded, strings.ToLower(c)); n <= limit {
			if best, limit = c, n-1; n == 0 {
				break
			}
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// distance is the optimal string alignment distance: how many letters must be
// inserted, deleted, replaced or swapped with their neighbour.
func distance(a, b string) int {
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
