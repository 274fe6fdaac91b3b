package record

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"

	"github.com/exeq/exeq"
)

// Decision is one recorded decision with what it was made from, for replay.
type Decision struct {
	Row       int64
	Execution string
	Kind      exeq.Kind // permit or denial
	Time      exeq.Time
	Request   *exeq.Request
	Inputs    *exeq.Inputs
	Decision  exeq.Decision

	leaf, opened []byte
	whole        bool
	err          error
}

// stretch is how many decisions one goroutine decodes at a time.
const stretch = 256

// Decisions calls f with every recorded decision behind a row whose
// disclosures were not erased, in order, until f returns false. What it gives
// is what was stored; that it opens the leaves' commitments is Fsck's to check.
func (s *Store) Decisions(ctx context.Context, after int64, f func(*Decision) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type part struct {
		ds    []Decision
		ready chan struct{}
		err   error
	}
	// Reading is one goroutine's, decoding that of many; order holds the parts
	// as they were read.
	workers := runtime.GOMAXPROCS(0)
	order := make(chan *part, workers)
	go func() {
		defer close(order)
		err := s.stretches(ctx, after, func(ds []Decision) bool {
			p := &part{ds: ds, ready: make(chan struct{})}
			go func() {
				defer close(p.ready)
				for i := range p.ds {
					p.ds[i].decode()
				}
			}()
			select {
			case order <- p:
				return true
			case <-ctx.Done():
				return false
			}
		})
		if err != nil {
			p := &part{ready: make(chan struct{}), err: err}
			close(p.ready)
			select {
			case order <- p:
			case <-ctx.Done():
			}
		}
	}()
	for p := range order {
		<-p.ready
		if p.err != nil {
			return p.err
		}
		for i := range p.ds {
			d := &p.ds[i]
			if d.err != nil {
				return fmt.Errorf("%w: row %d of store.db: %w", ErrDamaged, d.Row, d.err)
			}
			if d.whole && !f(d) {
				return nil
			}
		}
	}
	return context.Cause(ctx)
}

// stretches reads the stored decisions, not yet decoded.
func (s *Store) stretches(ctx context.Context, after int64, f func([]Decision) bool) error {
	rows, err := s.read.QueryContext(ctx, `SELECT row, execution, kind, bytes, opened FROM leaf
		WHERE row > ? AND opened IS NOT NULL AND kind IN ('permit', 'denial') ORDER BY row`, after)
	if err != nil {
		return explain("read decisions", err)
	}
	defer rows.Close()
	var ds []Decision
	for rows.Next() {
		var d Decision
		var execution sql.NullString
		if err := rows.Scan(&d.Row, &execution, &d.Kind, &d.leaf, &d.opened); err != nil {
			return explain("read decisions", err)
		}
		d.Execution = execution.String
		if ds = append(ds, d); len(ds) == stretch {
			if !f(ds) {
				return nil
			}
			ds = nil
		}
	}
	if len(ds) > 0 && !f(ds) {
		return nil
	}
	return explain("read decisions", rows.Err())
}

// decode fills the members that the stored bytes hold.
func (d *Decision) decode() {
	d.err = d.Time.UnmarshalText(timeOf(d.leaf))
	ds, err := splitDisclosures(d.opened)
	d.err = errors.Join(d.err, err)
	for _, o := range ds {
		var err error
		switch o.field {
		case "request":
			err = json.Unmarshal(o.value, &d.Request)
		case "inputs":
			err = json.Unmarshal(o.value, &d.Inputs)
		case "decision":
			err = json.Unmarshal(o.value, &d.Decision)
		}
		d.err = errors.Join(d.err, err)
	}
	d.leaf, d.opened = nil, nil
	d.whole = d.Request != nil && d.Inputs != nil && d.Decision.Verdict != ""
}

// timeOf finds the time in a canonical leaf: members are sorted, and behind
// "time" only "v" follows.
func timeOf(leaf []byte) []byte {
	const name = `,"time":"`
	i := bytes.LastIndex(leaf, []byte(name))
	if i < 0 {
		return nil
	}
	rest := leaf[i+len(name):]
	return rest[:max(0, bytes.IndexByte(rest, '"'))]
}
