package config

import (
	"fmt"
	"maps"
	"slices"
)

// suggest returns the second half of the message about an unknown key: the
// nearest key, or all of them when none is near.
func suggest(name string) string {
	best, dist := "", 4 // more than three edits are no slip of the finger
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if d := distance(name, k, dist); d < dist {
			best, dist = k, d
		}
	}
	if best == "" {
		return fmt.Sprintf("; accepted: %v", slices.Sorted(maps.Keys(keys)))
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance returns the Levenshtein distance of a and b in bytes, or limit if
// their lengths alone make it at least that.
func distance(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
