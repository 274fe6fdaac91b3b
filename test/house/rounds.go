// Package house installs exeq for tests that run it as it is: one user's state
// and, for the tiers that need one, a node of its own.
package house

import (
	"os"
	"strconv"
)

// Rounds scales a loop: n in CI, n × EXEQ_ROUNDS when that is set.
func Rounds(n int) int {
	if f, err := strconv.Atoi(os.Getenv("EXEQ_ROUNDS")); err == nil && f > 0 {
		return n * f
	}
	return n
}
