// Command table turns the results of the benchmarks into Markdown:
//
//	table [-commands TEXT] < RESULTS
//
// It states each goal beside what was measured, reached or not.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/exeq/exeq/bench/measure"
)

func main() {
	commands := flag.String("commands", "./bench/run", "the command that made the results")
	flag.Parse()
	var t tables
	for d := json.NewDecoder(os.Stdin); ; {
		var r measure.Result
		err := d.Decode(&r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "table:", err)
			os.Exit(1)
		}
		t.add(r)
	}
	fmt.Print(machine(*commands))
	for _, p := range t.parts {
		fmt.Print("\n", p.markdown(&t))
	}
	fmt.Print("\n", goalTable(&t))
}

// machine says where and when.
func machine(commands string) string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(text), "\n") {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%s · Linux %s %s · %s, %d cores · %s · load average when it ended %s · `%s`\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), strings.TrimSpace(string(release)), runtime.GOARCH, model,
		runtime.NumCPU(), runtime.Version(), strings.Join(strings.Fields(string(load))[:3], " "), commands)
}

// titles of the parts, in words.
var titles = map[string]string{
	"decide":           "One decision, by the number of policies",
	"decide, CPU time": "One decision, CPU time, by the number of policies",
	"replay":           "Replay of a history",
	"permits":          "Permits with their record, in process",
	"start":            "The whole life of a command that does nothing",
	"tree":             "Inside a governed tree",
	"node":             "Through exeq-node",
	"revoke":           "From a revocation to the last process dead",
	"events":           "Processor time of an open, at 9,900 opens a second",
	"node memory":      "Memory of exeq-node",
	"large":            "A large program",
	"verify":           "Verification of a proof",
	"memory":           "Memory of an idle supervisor",
}

type part struct {
	name  string
	cases []string
	whos  []string
	at    map[[2]string]measure.Result
	notes []string
}

type tables struct{ parts []*part }

func (t *tables) part(name string) *part {
	for _, p := range t.parts {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (t *tables) add(r measure.Result) {
	p := t.part(r.Part)
	if p == nil {
		p = &part{name: r.Part, at: map[[2]string]measure.Result{}}
		t.parts = append(t.parts, p)
	}
	if !slices.Contains(p.cases, r.Case) {
		p.cases = append(p.cases, r.Case)
	}
	if !slices.Contains(p.whos, r.Who) {
		p.whos = append(p.whos, r.Who)
	}
	p.at[[2]string{r.Case, r.Who}] = r
	if r.Note != "" && !slices.Contains(p.notes, r.Note) {
		p.notes = append(p.notes, r.Note)
	}
}

func (p *part) markdown(*tables) string {
	var b strings.Builder
	title := titles[p.name]
	if title == "" {
		title = p.name
	}
	fmt.Fprintf(&b, "### %s\n\n| |", title)
	for _, w := range p.whos {
		fmt.Fprintf(&b, " %s |", w)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(p.whos)) + "\n")
	for _, c := range p.cases {
		fmt.Fprintf(&b, "| %s |", c)
		for _, w := range p.whos {
			cell := ""
			if r, ok := p.at[[2]string{c, w}]; ok {
				cell = show(r)
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteString("\n")
	}
	for _, n := range p.notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	return b.String()
}

// show gives the median and, in brackets, the quartiles.
func show(r measure.Result) string {
	s := value(r.Value, r.Unit)
	if r.Runs > 1 {
		s += fmt.Sprintf(" (%s–%s)", value(r.Low, r.Unit), value(r.High, r.Unit))
	}
	return s
}

func value(v float64, unit string) string {
	switch unit {
	case "ns":
		switch {
		case v < 1e3:
			return fmt.Sprintf("%.0f ns", v)
		case v < 1e6:
			return fmt.Sprintf("%.*f µs", digits(v/1e3), v/1e3)
		case v < 1e9:
			return fmt.Sprintf("%.*f ms", digits(v/1e6), v/1e6)
		}
		return fmt.Sprintf("%.*f s", digits(v/1e9), v/1e9)
	case "bytes":
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case "/s":
		return fmt.Sprintf("%.0f/s", v)
	case "×":
		return fmt.Sprintf("×%.2f", v)
	}
	return fmt.Sprintf("%g", v)
}

// digits behind the point that leave three that count.
func digits(v float64) int {
	switch {
	case v < 10:
		return 2
	case v < 100:
		return 1
	}
	return 0
}
