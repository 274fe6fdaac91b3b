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

// What is opened and cloned inside; the goals are on the worst of each.
var (
	opens = []string{
		"open for reading, close", "open for reading by absolute path, 6 directories deep, close",
		"open a system header for reading, close",
	}
	clones = []string{"git clone, local, 4,000 files", "git clone, local, 20,000 files"}
)

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
	{"the same, CPU time", 1.3, false, "×", single("tree", "start a program and wait, CPU time", "exeq ÷ plain")},
	{"open for reading and close inside, the worst", 1.4, false, "×", worst("tree", "", "exeq ÷ plain", opens...)},
	{"the same, CPU time", 1.4, false, "×", worst("tree", ", CPU time", "exeq ÷ plain", opens...)},
	{"go build, cold, inside", 1.05, false, "×", single("tree", "go build, cold", "exeq ÷ plain")},
	{"the same, CPU time", 1.05, false, "×", single("tree", "go build, cold, CPU time", "exeq ÷ plain")},
	{"git clone inside, without exeq's own start and end, the worst", 1.10, false, "×", worst("tree", ", without start and end", "exeq ÷ plain", clones...)},
	{"the same, CPU time", 1.10, false, "×", worst("tree", ", without start and end, CPU time", "exeq ÷ plain", clones...)},
	{"start through the node ÷ bwrap", 2, false, "×", through("true", "÷ bwrap --unshare-all")},
	{"the same, CPU time", 2, false, "×", through("true, CPU time", "÷ bwrap --unshare-all")},
	{"start a program inside, through the node ÷ rootless", 1.05, false, "×", through("start a program and wait", "÷ rootless")},
	{"the same, CPU time", 1.05, false, "×", through("start a program and wait, CPU time", "÷ rootless")},
	{"open for reading and close inside, through the node ÷ rootless", 1.05, false, "×", through("open for reading, close", "÷ rootless")},
	{"the same, CPU time", 1.05, false, "×", through("open for reading, close, CPU time", "÷ rootless")},
	{"revocation ÷ cgroup.kill, the worst", 2, false, "×", worst("revoke", "", "revoke ÷ cgroup.kill", revoked...)},
	{"verify a proof of 100 leaves", 5e6, false, "ns", single("verify", "100 leaves", "verify")},
}

// revoked are the executions that a revocation is timed on.
var revoked = []string{
	"1 sleeping", "100 sleeping", "1000 sleeping", "1 spinning", "100 spinning", "1000 spinning", "1 forking", "100 forking", "1000 forking",
}

// through is the ratio of the node's tier, whichever it was, to another.
func through(c, to string) func(*tables) float64 {
	return func(t *tables) float64 {
		for _, tier := range []string{"kernel", "kernel-lite"} {
			if v := t.value("node", c, tier+" "+to); !math.IsNaN(v) {
				return v
			}
		}
		return math.NaN()
	}
}

func ratio(part, c, peer string) func(*tables) float64 {
	return func(t *tables) float64 { return t.value(part, c, peer) / t.value(part, c, "exeq") }
}

func single(part, c, who string) func(*tables) float64 {
	return func(t *tables) float64 { return t.value(part, c, who) }
}

// worst is the largest of several cases, each with the same suffix.
func worst(part, suffix, who string, cases ...string) func(*tables) float64 {
	return func(t *tables) float64 {
		w := math.NaN()
		for _, c := range cases {
			if v := t.value(part, c+suffix, who); math.IsNaN(w) || v > w {
				w = v
			}
		}
		return w
	}
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
