// Package store measures the record store by itself: what a permit costs with
// its record and its burn, and what opening a store costs every run.
package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/permit"
	"github.com/exeq/exeq/record"
)

// spine is one installation's issuing and recording side.
type spine struct {
	dir    string
	keys   *keyring.Ring
	store  *record.Store
	issuer *permit.Issuer
}

func newSpine(b *testing.B) *spine {
	b.Helper()
	s := &spine{dir: b.TempDir()}
	var err error
	if s.keys, err = keyring.Create(s.dir); err != nil {
		b.Fatal(err)
	}
	if s.store, err = record.Open(b.Context(), record.Config{Dir: s.dir, Keys: s.keys}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.store.Close() })
	s.issuer, err = permit.NewIssuer(permit.IssuerConfig{
		Key: s.keys.Signer(exeq.RoleIssuer), Checkpoint: s.store.Latest,
		Audience: exeq.Audience{Node: s.keys.Signer(exeq.RoleNode).KeyID(), BootID: "boot", Epoch: s.store.Epoch()},
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

var (
	request = &exeq.Request{
		Subject: exeq.Entity{Type: "Agent", ID: "coder"}, OnBehalfOf: []exeq.Entity{{Type: "User", ID: "ada"}}, Action: exeq.ActionRun,
		Resource: exeq.Resource{Type: "Program", ID: "/usr/bin/go", SHA256: exeq.Digest{1}},
		Argv:     []string{"go", "test", "./..."}, Dir: "/home/ada/project",
		Context: exeq.Context{Workspace: "/home/ada/project", Home: "/home/ada", Tmp: "/tmp/x", Command: "go test ./..."},
	}
	rights = &exeq.Rights{Version: 1, Cells: []exeq.Cell{
		{Path: "/", Under: exeq.Access{Read: true}},
		{Path: "/home/ada/project", Under: exeq.Access{Read: true, Write: true, Exec: exeq.ExecAsk}},
		{Path: "/usr", Under: exeq.Access{Read: true, Exec: exeq.ExecAsk}},
	}}
	decision = &exeq.Decision{Verdict: exeq.Allow, Policies: []string{"run-in-workspace"}, PolicySet: exeq.Digest{2}}
)

// issue signs a permit and makes its leaf.
func (s *spine) issue() (*exeq.Permit, exeq.Entry, error) {
	in := &exeq.Inputs{Tier: exeq.TierRootless, Session: exeq.Session{Labels: []string{}}, Time: exeq.At(time.Now())}
	p, err := s.issuer.Issue(exeq.NewID(), request, in, decision, rights, "")
	if err != nil {
		return nil, exeq.Entry{}, err
	}
	e, err := exeq.NewEntry(exeq.Leaf{
		Kind: exeq.KindPermit, Execution: p.Body.ID, Actor: "a", Body: exeq.LeafBody{Verdict: decision.Verdict, Policies: decision.Policies},
	}, map[string]any{
		"permit": string(p.Envelope), "request": request, "inputs": in, "decision": decision,
		"policySet": decision.PolicySet, "rights": p.Body.RightsDigest,
	}, nil)
	return p, e, err
}

// BenchmarkPermitRecordBurn issues, records and burns permits: one caller, and
// a burst of 256. Nothing drains, so a run beyond the merge delay is refused:
// keep -benchtime under ten seconds.
func BenchmarkPermitRecordBurn(b *testing.B) {
	for _, callers := range []int{1, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := newSpine(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			took := make([][]time.Duration, callers)
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						t := time.Now()
						p, e, err := s.issue()
						if err == nil {
							_, err = s.store.Record(b.Context(), e)
						}
						if err == nil {
							err = s.store.Burn(b.Context(), p.Body.ID, p.Body.Nonce, p.Body.NotAfter)
						}
						if err != nil {
							b.Error(err)
							return
						}
						took[i] = append(took[i], time.Since(t))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			all := slices.Concat(took...)
			slices.Sort(all)
			if len(all) > 0 {
				b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "permits/s")
				b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
			}
		})
	}
}

// BenchmarkOpenRecordClose is what every run pays for the store, beyond its
// permits.
func BenchmarkOpenRecordClose(b *testing.B) {
	s := newSpine(b)
	if err := s.store.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		store, err := record.Open(context.Background(), record.Config{Dir: s.dir, Keys: s.keys})
		if err != nil {
			b.Fatal(err)
		}
		_, e, err := s.issue()
		if err == nil {
			_, err = store.Record(context.Background(), e)
		}
		if err == nil {
			err = store.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
