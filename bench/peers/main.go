// Command peers measures other decision points on the shapes that
// bench/decide left in a directory, and compares their answers with Exeq's:
//
//	peers DIR
//
// It writes one JSON object a line, of the form that bench/measure gives. A
// peer that answers one request otherwise ends it with an error: numbers of
// engines that do different things are worth nothing.
//
// It is a Go module of its own, so that what it needs is not in Exeq's go.mod.
// OPA is given its input both ways: as Go values, which is how Exeq is given
// its request, and parsed beforehand, which spares it that work. cedar-go has
// its entities made beforehand. Exeq's time has the validation of its request
// and whatever it makes of it in it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// sizes as in bench/shape.
var sizes = []int{10, 100, 1000, 10_000}

// budget is how long one engine is measured on one shape.
const budget = 2 * time.Second

// asked is a line of a shape's requests.jsonl: the forms that peers take.
type asked struct {
	Cedar json.RawMessage `json:"cedar"`
	Rego  any             `json:"rego"`
}

// answer is a line of answers.jsonl: what Exeq said.
type answer struct {
	Allow    bool     `json:"allow"`
	Policies []string `json:"policies"`
}

// engine answers the i-th request of a shape. Where ids is false it gives no
// policies.
type engine struct {
	name   string
	ids    bool
	decide func(i int) (answer, error)
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: peers DIR")
		os.Exit(2)
	}
	for _, n := range sizes {
		if err := shape(filepath.Join(os.Args[1], fmt.Sprintf("shape-%d", n)), n); err != nil {
			fmt.Fprintf(os.Stderr, "peers: %d policies: %v\n", n, err)
			os.Exit(1)
		}
	}
}

// opener makes an engine of the shape in a directory.
type opener func(dir string, requests []asked) (engine, error)

var peers = []opener{
	opaRules(", input from Go values", fromGo), opaRules(", input parsed", parsed),
	opaAnswer(", input from Go values", fromGo), opaAnswer(", input parsed", parsed),
	opaData, cedarLinear,
}

func shape(dir string, n int) error {
	requests, err := lines[asked](filepath.Join(dir, "requests.jsonl"))
	if err != nil {
		return err
	}
	answers, err := lines[answer](filepath.Join(dir, "answers.jsonl"))
	if err != nil {
		return err
	}
	for _, open := range peers {
		e, err := open(dir, requests)
		if err != nil {
			return err
		}
		if err := agree(e, answers); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		if err := measure(e, n, len(requests)); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

// agree answers every request once; it warms the engine up, too. One that is
// slow answers as many as it can in a while.
func agree(e engine, want []answer) error {
	start := time.Now()
	for i, w := range want {
		if i > 20 && time.Since(start) > 5*budget {
			return nil
		}
		got, err := e.decide(i)
		if err != nil {
			return fmt.Errorf("request %d: %w", i, err)
		}
		slices.Sort(got.Policies)
		if got.Allow != w.Allow || e.ids && !slices.Equal(got.Policies, w.Policies) {
			return fmt.Errorf("request %d: answers %+v, exeq %+v", i, got, w)
		}
	}
	return nil
}

// measure decides again and again and puts the medians of its rounds, by the
// clock and by the CPU time of the process, as Exeq's are.
func measure(e engine, n, requests int) error {
	var wall, cpu []float64
	once := time.Now()
	if _, err := e.decide(0); err != nil {
		return err
	}
	if slow := time.Since(once); slow > budget/time.Duration(requests) {
		requests = min(requests, max(20, int(budget/slow)))
	}
	for end := time.Now().Add(budget); len(wall) < 3 || time.Now().Before(end); {
		start, used := time.Now(), processTime()
		for i := range requests {
			if _, err := e.decide(i); err != nil {
				return err
			}
		}
		wall = append(wall, float64(time.Since(start))/float64(requests))
		cpu = append(cpu, float64(processTime()-used)/float64(requests))
	}
	if err := put("decide", e, n, wall); err != nil {
		return err
	}
	return put("decide, CPU time", e, n, cpu)
}

func put(part string, e engine, n int, samples []float64) error {
	slices.Sort(samples)
	at := func(q int) float64 { return samples[(len(samples)-1)*q/4] }
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"part": part, "case": strconv.Itoa(n), "who": e.name, "unit": "ns",
		"value": at(2), "low": at(1), "high": at(3), "runs": len(samples),
	})
}

// processTime is the CPU time that this process has used.
func processTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// lines decodes a file of one JSON value a line.
func lines[T any](name string) ([]T, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []T
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var v T
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, v)
	}
	return out, s.Err()
}
