package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/exeq/exeq/bench/measure"
)

// goal is one promise of the project about its speed.
type goal struct {
	what string
	// bound is an upper bound unless atLeast; got is in unit.
	bound   float64
	atLeast bool
	unit    string
	got     func(*tables) float64 // NaN: not measured
}

// opa names the peers that decide is compared with: given their input as Exeq is
// given its request, and with it parsed beforehand, which spares them what Exeq
// does.
var opa = []string{
	"OPA, prepared query, ids, input from Go values", "OPA, prepared query, ids, input parsed",
	"OPA, prepared query, yes or no, input from Go values", "OPA, prepared query, yes or no, input parsed",
}

var goals = []goal{
	{"decide: OPA with ids, input from Go values ÷ exeq at 1,000 policies", 25, true, "×", ratio("decide", "1000", opa[0])},
	{"the same, CPU time", 25, true, "×", ratio("decide, CPU time", "1000", opa[0])},
	{"decide: OPA with ids, input parsed beforehand ÷ exeq at 1,000 policies", 25, true, "×", ratio("decide", "1000", opa[1])},
	{"the same, CPU time", 25, true, "×", ratio("decide, CPU time", "1000", opa[1])},
	{"decide: OPA with yes or no only, input from Go values ÷ exeq at 1,000 policies", 25, true, "×", ratio("decide", "1000", opa[2])},
	{"the same, CPU time", 25, true, "×", ratio("decide, CPU time", "1000", opa[2])},
	{"decide: OPA with yes or no only, input parsed beforehand ÷ exeq at 1,000 policies", 25, true, "×", ratio("decide", "1000", opa[3])},
	{"the same, CPU time", 25, true, "×", ratio("decide, CPU time", "1000", opa[3])},
	{"decide: growth from 1,000 to 10,000 policies, CPU time (linear: ×10)", 10, false, "×", func(t *tables) float64 {
		return t.value("decide, CPU time", "10000", "exeq") / t.value("decide, CPU time", "1000", "exeq")
	}},
	{"replay of 100,000 recorded requests", 0.5e9, false, "ns", single("replay", "100,000 recorded requests, 1,001 policies", "exeq")},
	{"permits, burst, 256 callers", 20_000, true, "/s", single("permits", "256 callers, burst", "permits")},
	{"permits, burst, 256 callers, p99", 20e6, false, "ns", single("permits", "256 callers, burst", "p99")},
	{"permits, sustained, log drained at the end", 8000, true, "/s", single("permits", "256 callers, sustained", "permits")},
	{"start: exeq run ÷ bwrap", 4, false, "×", single("start", "true", "exeq run ÷ bwrap --unshare-all")},
	{"the same, CPU time", 4, false, "×", single("start", "true, CPU time", "exeq run ÷ bwrap --unshare-all")},
	{"start a program inside", 1.3, false, "×", single("tree", "start a program and wait", "exeq ÷ plain")},
	{"open for reading and close inside", 1.4, false, "×", single("tree", "open for reading, close", "exeq ÷ plain")},
	{"go build, cold, inside", 1.05, false, "×", single("tree", "go build, cold", "exeq ÷ plain")},
	{"the same, CPU time", 1.05, false, "×", single("tree", "go build, cold, CPU time", "exeq ÷ plain")},
	{"git clone inside", 1.10, false, "×", single("tree", "git clone, local, 4,000 files", "exeq ÷ plain")},
	{"the same, CPU time", 1.10, false, "×", single("tree", "git clone, local, 4,000 files, CPU time", "exeq ÷ plain")},
	{"verify a proof of 100 leaves", 5e6, false, "ns", single("verify", "100 leaves", "verify")},
}

func ratio(part, c, peer string) func(*tables) float64 {
	return func(t *tables) float64 { return t.value(part, c, peer) / t.value(part, c, "exeq") }
}

func single(part, c, who string) func(*tables) float64 {
	return func(t *tables) float64 { return t.value(part, c, who) }
}

// value is NaN where nothing was measured.
func (t *tables) value(part, c, who string) float64 {
	p := t.part(part)
	if p == nil {
		return math.NaN()
	}
	r, ok := p.at[[2]string{c, who}]
	if !ok {
		return math.NaN()
	}
	return r.Value
}

// goalTable lists every goal with what was measured.
func goalTable(t *tables) string {
	var b strings.Builder
	b.WriteString("### Goals\n\n| | goal | measured | |\n|---|---:|---:|---|\n")
	for _, g := range goals {
		sign, v, word := "≤", g.got(t), "reached"
		if g.atLeast {
			sign = "≥"
		}
		if math.IsNaN(v) {
			fmt.Fprintf(&b, "| %s | %s %s | | not measured |\n", g.what, sign, value(g.bound, g.unit))
			continue
		}
		if g.atLeast && v < g.bound || !g.atLeast && v > g.bound {
			word = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s |\n", g.what, sign, value(g.bound, g.unit), show(measure.Result{Value: v, Unit: g.unit}), word)
	}
	return b.String()
}
