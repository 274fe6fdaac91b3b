//go:build !unix

package measure

import "time"

// ProcessTime is not known here.
func ProcessTime() time.Duration { return 0 }
