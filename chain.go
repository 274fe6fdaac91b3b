package exeq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// draft is a leaf without its place in the chain.
type draft struct {
	kind    Kind
	body    LeafBody
	private map[string]any
	key     Signer
}

// append records the next leaf of the execution's chain.
func (x *Execution) append(ctx context.Context, kind Kind, b LeafBody, private map[string]any, key Signer) (*PermitRecord, error) {
	return x.appendAll(ctx, draft{kind, b, private, key})
}

// appendAll records the next leaves of the execution's chain, all or none, and
// gives the last. When it fails the chain ends there: nothing may follow a leaf
// whose fate is unknown.
func (x *Execution) appendAll(ctx context.Context, drafts ...draft) (*PermitRecord, error) {
	x.chain.Lock()
	defer x.chain.Unlock()
	if x.seq < 0 {
		return nil, fmt.Errorf("%w: the chain of %s ended at a leaf that could not be recorded", ErrRecord, x.ID)
	}
	seq, prev := x.seq, x.prev
	entries := make([]Entry, len(drafts))
	for i, d := range drafts {
		l := Leaf{
			Kind: d.kind, Execution: x.ID, Parent: x.Parent, Seq: seq, Prev: prev,
			Actor: x.governor.Actor(x.Request.Subject), Body: d.body,
		}
		e, err := NewEntry(l, d.private, d.key)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRecord, err)
		}
		seq, prev, entries[i] = seq+1, LeafHash(e.Bytes), e
	}
	// Not the caller's to cancel: a leaf whose fate nobody waited for would end
	// the chain.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), MaxMergeDelay)
	defer cancel()
	promises, err := x.governor.Recorder.Record(ctx, entries...)
	if err != nil {
		x.seq = -1
		return nil, err
	}
	x.seq, x.prev = seq, prev
	e := entries[len(entries)-1]
	on := &PermitRecord{Leaf: e.Bytes, Promise: promises[len(promises)-1]}
	for _, d := range e.Disclosures {
		if d.Field == "permit" {
			on.Permit = d
		}
	}
	return on, nil
}

// permitted records the permit with its decision in one leaf.
func (x *Execution) permitted(ctx context.Context, d Decision) (*PermitRecord, error) {
	return x.append(ctx, KindPermit, LeafBody{Verdict: d.Verdict, Policies: d.Policies},
		x.permit.Private(&d), nil)
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
	drafts, err := x.draftActivities(entries, v, policies)
	if err != nil || len(drafts) == 0 {
		return err
	}
	_, err = x.appendAll(ctx, drafts...)
	return err
}

func (x *Execution) draftActivities(entries []ActivityEntry, v Verdict, policies []string) (drafts []draft, err error) {
	for len(entries) > 0 {
		part := entries[:min(len(entries), MaxTickActivities)]
		entries = entries[len(part):]
		root, opened, err := sealEntries(part)
		if err != nil {
			return nil, err
		}
		counts := map[string]int{}
		for _, e := range part {
			counts[e.Activity.Action]++
		}
		x.mu.Lock()
		labels := len(x.session.Labels)
		x.mu.Unlock()
		drafts = append(drafts, draft{KindActivity, LeafBody{
			Verdict: v, Policies: policies, Entries: len(part), Root: root, Counts: counts, Labels: labels,
		}, map[string]any{"entries": opened}, x.governor.NodeKey})
	}
	return drafts, nil
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
	drafts, err := x.draftPending()
	if err != nil || len(drafts) == 0 {
		return err
	}
	_, err = x.appendAll(ctx, drafts...)
	return err
}

// draftPending takes what was seen and is not on record.
func (x *Execution) draftPending() ([]draft, error) {
	x.mu.Lock()
	entries, dropped := x.pending, x.dropped
	x.pending, x.dropped = nil, 0
	for k, n := range x.unleaved {
		entries = append(entries, ActivityEntry{Time: At(time.Now()), Verdict: Deny, Activity: Activity{
			Action: k.action, Resource: Resource{Type: k.resource, ID: fmt.Sprintf("%d more denials", n)}}})
	}
	clear(x.unleaved)
	x.mu.Unlock()
	if dropped > 0 {
		return nil, fmt.Errorf("%w: %d activities came faster than they can be recorded", ErrRevoked, dropped)
	}
	return x.draftActivities(entries, "", nil)
}

// appraised records the ticks since the last appraisal leaf.
func (x *Execution) appraised(ctx context.Context, t *ticks) error {
	drafts := x.draftTicks(t)
	if len(drafts) == 0 {
		return nil
	}
	_, err := x.appendAll(ctx, drafts...)
	return err
}

func (x *Execution) draftTicks(t *ticks) []draft {
	if t.sequence == t.first && len(t.failed) == 0 {
		return nil
	}
	body := LeafBody{
		FirstTick: t.first + 1, LastTick: t.sequence, MaxGap: t.gap.Milliseconds(), Failed: t.failed, HeldMillis: t.held.Milliseconds(),
	}
	t.first, t.gap, t.held, t.failed = t.sequence, 0, 0, nil
	return []draft{{KindAppraisal, body, nil, x.governor.NodeKey}}
}

// settle, once nothing runs any more, waits for what is being written and
// drafts what no leaf tells yet: nothing may follow the end.
func (x *Execution) settle() ([]draft, error) {
	x.writers.Wait()
	x.ticks.stop(false)
	drafts, err := x.draftPending()
	return append(drafts, x.draftTicks(&x.ticks)...), err
}

// revoked records why trust ended; the record follows the kill order, not the
// other way round, so its error only adds to the others.
func (x *Execution) revoked(code string, why error) error {
	drafts, settled := x.settle()
	_, err := x.appendAll(context.Background(), append(drafts,
		draft{KindRevoke, LeafBody{Code: code}, map[string]any{"reason": fmt.Sprint(why)}, x.governor.IssuerKey})...)
	return errors.Join(settled, err)
}

// seal closes the chain.
func (x *Execution) seal(ctx context.Context, out *Outcome, code string, exit Exit) error {
	ctx = context.WithoutCancel(ctx)
	out.Exit, out.Code = exit, code
	drafts, settled := x.settle()
	x.mu.Lock()
	counts, held := x.counts, x.ticks.held.Milliseconds()
	x.mu.Unlock()
	_, err := x.appendAll(ctx, append(drafts, draft{KindEnd, LeafBody{Code: code, Counts: counts, HeldMillis: held}, map[string]any{"exit": exit}, x.governor.NodeKey})...)
	switch {
	case err == nil:
		x.move(Sealed)
		out.State = Sealed
	case code != "failed":
		out.State = Ending
		err = fmt.Errorf("%w: %w", ErrUnsealed, err)
	}
	return errors.Join(settled, err)
}

// refuse records a denial, or a permit that its enforcing side refused.
func (x *Execution) refuse(ctx context.Context, d Decision, why error) State {
	switch {
	case x.deniedThere:
		return Denied
	case x.governor.Authority != nil && x.on == nil: // it was not reached
		return Failed
	}
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
