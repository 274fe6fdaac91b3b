package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/exeq/exeq"
)

// knownObligations lists what @modify may ask for. Each narrows the rights
// that Compile makes; none can widen them.
const knownObligations = "no_network, read_only, processes=N, execs=N, denials=N, wall_seconds=N, output_bytes=N, memory_bytes=N, file_bytes=N"

// checkObligation accepts exactly the obligations that applyObligations can
// carry out.
func checkObligation(o string) error {
	name, value, has := strings.Cut(o, "=")
	switch name {
	case "no_network", "read_only":
		if has {
			return fmt.Errorf("%s takes no value", name)
		}
		return nil
	case "processes", "execs", "denials", "wall_seconds", "output_bytes", "memory_bytes", "file_bytes":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n <= 0 || n > 1<<53-1 || strconv.FormatInt(n, 10) != value {
			return fmt.Errorf("%s needs a positive whole number", name)
		}
		if n > math.MaxInt32 && !strings.HasSuffix(name, "_bytes") {
			return fmt.Errorf("%s is larger than %d", name, math.MaxInt32)
		}
		return nil
	}
	return fmt.Errorf("unknown obligation %q", o)
}

// conflicting reports two obligations that set the same thing; sorted input.
func conflicting(obligations []string) bool {
	for i := 1; i < len(obligations); i++ {
		a, _, _ := strings.Cut(obligations[i-1], "=")
		b, _, _ := strings.Cut(obligations[i], "=")
		if a == b && obligations[i-1] != obligations[i] {
			return true
		}
	}
	return false
}

// applyObligations narrows rights; it refuses what it does not know.
func applyObligations(r *exeq.Rights, obligations []string) error {
	for _, o := range obligations {
		if err := checkObligation(o); err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		name, value, _ := strings.Cut(o, "=")
		n, _ := strconv.ParseInt(value, 10, 64) // checked above
		switch name {
		case "no_network":
			r.Endpoints = nil
		case "read_only":
			for i := range r.Cells {
				r.Cells[i].At.Write, r.Cells[i].Under.Write = false, false
			}
			r.Cells = reduce(r.Cells)
		case "processes":
			r.Quotas.Processes = narrower(r.Quotas.Processes, int(n))
		case "execs":
			r.Quotas.Execs = narrower(r.Quotas.Execs, int(n))
		case "denials":
			r.Quotas.Denials = narrower(r.Quotas.Denials, int(n))
		case "wall_seconds":
			r.Quotas.WallSeconds = narrower(r.Quotas.WallSeconds, int(n))
		case "output_bytes":
			r.Quotas.OutputBytes = narrower(r.Quotas.OutputBytes, n)
		case "memory_bytes":
			r.Quotas.MemoryBytes = narrower(r.Quotas.MemoryBytes, n)
		case "file_bytes":
			r.Quotas.FileBytes = narrower(r.Quotas.FileBytes, n)
		}
	}
	return nil
}

// narrower gives the smaller bound, where 0 is no bound.
func narrower[T int | int64](have, want T) T {
	if have == 0 || want < have {
		return want
	}
	return have
}
