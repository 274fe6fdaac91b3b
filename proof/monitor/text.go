package monitor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/proof"
)

// Text gives the report for people.
func (r *Report) Text() string {
	var b strings.Builder
	switch r.Verdict {
	case proof.Valid:
		b.WriteString("clean")
	case proof.NotValid:
		b.WriteString("violations")
	default:
		b.WriteString("cannot tell")
	}
	fmt.Fprintf(&b, ": log %s, %d leaves, root %.16s…\n", plain(r.Origin), r.Size, r.Root)
	fmt.Fprintf(&b, "leaves      %s\n", counts(r.Leaves))
	fmt.Fprintf(&b, "executions  %s\n", counts(r.Executions))
	fmt.Fprintf(&b, "compared    %d checkpoints seen elsewhere or earlier, %d promises kept\n", r.Seen, r.Promises)
	if len(r.Witnesses) > 0 {
		fmt.Fprintf(&b, "witnessed   %s\n", plain(strings.Join(r.Witnesses, ", ")))
	} else {
		b.WriteString("witnessed   by no one: a log that shows others something else is not found from here\n")
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-9s  %s", f.Severity, f.Name)
		if f.Index >= 0 {
			fmt.Fprintf(&b, " at index %d", f.Index)
		}
		if f.Execution != "" {
			fmt.Fprintf(&b, " of execution %s", plain(f.Execution))
		}
		fmt.Fprintf(&b, ": %s\n", plain(f.Detail))
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "and %d more\n", r.More)
	}
	return b.String()
}

func counts(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func plain(s string) string { return strings.ReplaceAll(exeq.EncodeBytes(s), "%25", "%") }
