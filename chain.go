package exeq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// append records the next leaf of the execution's chain. When it fails the
// chain ends there: nothing may follow a leaf whose fate is unknown.
func (x *Execution) append(ctx context.Context, kind Kind, b LeafBody, private map[string]any, key Signer) (*PermitRecord, error) {
	x.chain.Lock()
	defer x.chain.Unlock()
	if x.seq < 0 {
		return nil, fmt.Errorf("%w: the chain of %s ended at a leaf that could not be recorded", ErrRecord, x.ID)
	}
	l := Leaf{
		Kind: kind, Execution: x.ID, Parent: x.Parent, Seq: x.seq, Prev: x.prev,
		Actor: x.governor.Actor(x.Request.Subject), Body: b,
	}
	e, err := NewEntry(l, private, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	// Not the caller's to cancel: a leaf whose fate nobody waited for would end
	// the chain.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), MaxMergeDelay)
	defer cancel()
	promises, err := x.governor.Recorder.Record(ctx, e)
	if err != nil {
		x.seq = -1
		return nil, err
	}
	x.seq++
	x.prev = LeafHash(e.Bytes)
	on := &PermitRecord{Leaf: e.Bytes, Promise: promises[0]}
	for _, d := range e.Disclosures {
		if d.Field == "permit" {
			on.Permit = d
		}
	}
	return on, nil
}

// permitted records the permit with its decision in one leaf.
func (x *Execution) permitted(ctx context.Context, d Decision) (*PermitRecord, error) {
	return x.append(ctx, KindPermit, LeafBody{Verdict: d.Verdict, Policies: d.Policies}, map[string]any{
		"permit": string(x.permit.Envelope), "request": x.Request, "inputs": &x.inputs,
		"decision": d, "policySet": d.PolicySet, "rights": x.rights,
	}, nil)
}

// started records the start; its error keeps the workload from being released.
func (x *Execution) started(ctx context.Context, a Applied) error {
	x.applied = a
	_, err := x.append(ctx, KindStart, LeafBody{
		Tier: a.Tier, LandlockABI: a.LandlockABI, Seen: a.Seen, LeaseMillis: x.governor.Lease.Milliseconds(),
	}, map[string]any{"applied": a, "audience": x.permit.Body.Audience, "permitDigest": LeafHash(x.permit.Envelope)}, x.governor.NodeKey)
	return err
}

// activities records one or more leaves over entries.
func (x *Execution) activities(ctx context.Context, entries []ActivityEntry, v Verdict, policies []string) error {
	for len(entries) > 0 {
		part := entries[:min(len(entries), MaxTickActivities)]
		entries = entries[len(part):]
		root, opened, err := sealEntries(part)
		if err != nil {
			return err
		}
		counts := map[string]int{}
		for _, e := range part {
			counts[e.Activity.Action]++
		}
		x.mu.Lock()
		labels := len(x.session.Labels)
		x.mu.Unlock()
		_, err = x.append(ctx, KindActivity, LeafBody{
			Verdict: v, Policies: policies, Entries: len(part), Root: root, Counts: counts, Labels: labels,
		}, map[string]any{"entries": opened}, x.governor.NodeKey)
		if err != nil {
			return err
		}
	}
	return nil
}

// SealedEntry is one entry of an activity leaf with its own salt, so that a
// holder can disclose one and withhold its neighbours.
type SealedEntry struct {
	Salt  string        `json:"salt"` // 128 bits, hexadecimal
	Entry ActivityEntry `json:"entry"`
}

// Hash is the entry's RFC 6962 leaf hash in the tree whose root the leaf holds.
func (s *SealedEntry) Hash() (Digest, error) {
	b, err := canonical(s)
	return LeafHash(b), err
}

func sealEntries(entries []ActivityEntry) (Digest, []SealedEntry, error) {
	opened := make([]SealedEntry, len(entries))
	hashes := make([]Digest, len(entries))
	for i, e := range entries {
		opened[i] = SealedEntry{Salt: newSalt(), Entry: e}
		h, err := opened[i].Hash()
		if err != nil {
			return Digest{}, nil, fmt.Errorf("activity %s: %w", strconv.Itoa(i), err)
		}
		hashes[i] = h
	}
	return MerkleRoot(hashes), opened, nil
}

// record writes what the last tick saw, apart from the lease's own loop so
// that a slow store never lapses a lease; a store that fails ends trust.
func (x *Execution) record(ctx context.Context, done <-chan struct{}) {
	t := time.NewTicker(x.governor.Tick)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
			if err := x.flush(ctx); err != nil {
				x.end("record", err)
				return
			}
		}
	}
}

func (x *Execution) flush(ctx context.Context) error {
	x.mu.Lock()
	entries, dropped := x.pending, x.dropped
	x.pending, x.dropped = nil, 0
	x.mu.Unlock()
	if dropped > 0 {
		return fmt.Errorf("%w: %d activities came faster than they can be recorded", ErrRevoked, dropped)
	}
	if len(entries) == 0 {
		return nil
	}
	return x.activities(ctx, entries, "", nil)
}

// appraised records the ticks since the last appraisal leaf.
func (x *Execution) appraised(ctx context.Context, t *ticks) error {
	if t.sequence == t.first && len(t.failed) == 0 {
		return nil
	}
	_, err := x.append(ctx, KindAppraisal, LeafBody{
		FirstTick: t.first + 1, LastTick: t.sequence, MaxGap: t.gap.Milliseconds(), Failed: t.failed, HeldMillis: t.held.Milliseconds(),
	}, nil, x.governor.NodeKey)
	t.first, t.gap, t.held, t.failed = t.sequence, 0, 0, nil
	return err
}

// settle, once nothing runs any more, waits for what is being written and
// records the ticks that no leaf tells yet: nothing may follow the end.
func (x *Execution) settle(ctx context.Context) error {
	x.writers.Wait()
	x.ticks.stop(false)
	return errors.Join(x.flush(ctx), x.appraised(ctx, &x.ticks))
}

// revoked records why trust ended; the record follows the kill order, not the
// other way round, so its error only adds to the others.
func (x *Execution) revoked(code string, why error) error {
	ctx := context.Background()
	settled := x.settle(ctx)
	_, err := x.append(ctx, KindRevoke, LeafBody{Code: code}, map[string]any{"reason": fmt.Sprint(why)}, x.governor.IssuerKey)
	return errors.Join(settled, err)
}

// seal closes the chain.
func (x *Execution) seal(ctx context.Context, out *Outcome, code string, exit Exit) error {
	ctx = context.WithoutCancel(ctx)
	out.Exit, out.Code = exit, code
	settled := x.settle(ctx)
	x.mu.Lock()
	counts := x.counts
	x.mu.Unlock()
	_, err := x.append(ctx, KindEnd, LeafBody{Code: code, Counts: counts, HeldMillis: x.ticks.held.Milliseconds()}, map[string]any{"exit": exit}, x.governor.NodeKey)
	if err == nil {
		x.move(Sealed)
		out.State = Sealed
	}
	return errors.Join(settled, err)
}

// refuse records a denial, or a permit that its enforcing side refused.
func (x *Execution) refuse(ctx context.Context, d Decision, why error) State {
	code := "policy"
	switch {
	case errors.Is(why, ErrReplayed):
		code = "replayed"
	case errors.Is(why, ErrPermit):
		code = "permit"
	}
	if d.Verdict.Permits() {
		d.Verdict = Deny
	}
	_, err := x.append(ctx, KindDenial, LeafBody{Verdict: d.Verdict, Policies: d.Policies, Needs: d.Needs, Code: code},
		map[string]any{"request": x.Request, "inputs": &x.inputs, "decision": d, "policySet": d.PolicySet, "reason": why.Error()}, x.governor.IssuerKey)
	if err != nil {
		x.governor.Log.Error("a denial could not be recorded", "execution", x.ID, "err", err)
		return Failed
	}
	return Denied
}
