// Package measure is how the benchmarks say what they found: one JSON object a
// line, which bench/table turns into Markdown. Programs of other modules write
// the same lines without importing it.
package measure

import (
	"encoding/json"
	"io"
	"math"
	"slices"
	"time"
)

// Result is one number. Part, Case and Who place it in the table: a part is a
// table, a case a row of it, who a column.
type Result struct {
	Part string `json:"part"`
	Case string `json:"case"`
	Who  string `json:"who"`
	// Value is in Unit: "ns", "/s", "bytes" or "count".
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Low and High are the quartiles of the repetitions, 0 where there was one.
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
	Runs int     `json:"runs,omitempty"`
	// Note stands below the table.
	Note string `json:"note,omitempty"`
}

// Out writes results as they are found.
type Out struct{ enc *json.Encoder }

// NewOut writes to w.
func NewOut(w io.Writer) *Out { return &Out{json.NewEncoder(w)} }

// Put writes one result.
func (o *Out) Put(r Result) error { return o.enc.Encode(r) }

// Spread puts the median and the quartiles of samples into r.
func Spread(r Result, samples []float64) Result {
	s := slices.Clone(samples)
	slices.Sort(s)
	r.Value, r.Runs = Quantile(s, 0.5), len(s)
	if len(s) > 1 {
		r.Low, r.High = Quantile(s, 0.25), Quantile(s, 0.75)
	}
	return r
}

// Quantile of ascending samples, by linear interpolation.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// Loop calls round again and again for about budget, at least three times after
// one that is not counted, and gives the nanoseconds of one of the n operations
// of each round: by the clock on the wall, and of CPU time of the whole process
// (its garbage collection included), which a busy machine disturbs less.
func Loop(budget time.Duration, n int, round func() error) (wall, cpu []float64, err error) {
	if err := round(); err != nil {
		return nil, nil, err
	}
	for end := time.Now().Add(budget); len(wall) < 3 || time.Now().Before(end); {
		start, used := time.Now(), ProcessTime()
		if err := round(); err != nil {
			return nil, nil, err
		}
		wall = append(wall, float64(time.Since(start))/float64(n))
		cpu = append(cpu, float64(ProcessTime()-used)/float64(n))
	}
	return wall, cpu, nil
}
