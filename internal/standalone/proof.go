package standalone

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/internal/osfile"
	"github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/proof"
	"github.com/exeq/exeq/record"
)

// TrustOf is what a verifier of the proofs of an installation believes whose
// keys were never changed; see [Installation.Trust].
func TrustOf(dir string) (*proof.Trust, error) {
	keys, err := keyring.Open(dir)
	if err != nil {
		return nil, err
	}
	t := &proof.Trust{
		Version: 1, Origin: keys.Origin(),
		Log: keys.VerifierKey(exeq.RoleLog), Promise: keys.VerifierKey(exeq.RolePromise),
		Require: proof.DefaultRequire(),
	}
	for _, role := range []string{exeq.RoleIssuer, exeq.RoleNode} {
		t.Keys = append(t.Keys, proof.Key{Role: role, PublicKey: base64.StdEncoding.EncodeToString(keys.Public(role))})
	}
	b, err := os.ReadFile(filepath.Join(dir, WitnessFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if t.Witnesses = string(b); t.Witnesses != "" {
		t.Require = append(t.Require, proof.CheckWitnessed)
	}
	return t, nil
}

// Trust is TrustOf with what the log tells of the keys: since when they are
// good, and which were retired or are compromised. Key leaves that are not in
// the log yet are drained into it first, since they bound nothing outside.
func (in *Installation) Trust(ctx context.Context) (*proof.Trust, error) {
	t, err := TrustOf(in.Dir)
	if err != nil {
		return nil, err
	}
	kept, err := in.keyLeaves(ctx)
	if err == nil && slices.ContainsFunc(kept, func(s record.Stored) bool { return s.Index < 0 }) {
		if err = in.Store.Drain(ctx); err == nil {
			kept, err = in.keyLeaves(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	for _, s := range kept {
		if s.Index < 0 {
			return nil, fmt.Errorf("key leaf %s is not in the log", s.Leaf.ID)
		}
		if err := t.Learn(&s.Leaf, s.Index); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (in *Installation) keyLeaves(ctx context.Context) ([]record.Stored, error) {
	kept, err := in.Store.Foundations(ctx)
	return slices.DeleteFunc(kept, func(s record.Stored) bool { return s.Leaf.Kind != exeq.KindKey }), err
}

// WitnessFile, in the state directory, is an optional C2SP witness policy.
const WitnessFile = record.WitnessPolicy

// WriteProof waits until the execution is in the log and writes its proof,
// whole or not at all where it goes to a regular file.
func (in *Installation) WriteProof(ctx context.Context, id string, to *osfile.Output, disclose ...string) error {
	b, err := in.Proof(ctx, id, disclose...)
	if err == nil {
		err = to.Put(b)
	}
	if err != nil {
		return fmt.Errorf("proof of %s: %w", id, err)
	}
	return nil
}

// Proof gives the bytes of an execution's proof file.
func (in *Installation) Proof(ctx context.Context, id string, disclose ...string) ([]byte, error) {
	if err := in.Store.Drain(ctx); err != nil {
		return nil, err
	}
	m, err := in.material(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(disclose) == 0 {
		disclose = []string{proof.DiscloseAll}
	}
	p, err := proof.Build(m, disclose...)
	if err != nil {
		return nil, err
	}
	return p.Encode()
}

func (in *Installation) material(ctx context.Context, id string) (*proof.Material, error) {
	leaves, err := in.Store.Leaves(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(leaves) == 0 {
		return nil, fmt.Errorf("there is no such execution: exeq ps --all lists them")
	}
	m := &proof.Material{Promise: leaves[0].Promise}
	var receipts []string
	for i, s := range leaves {
		m.Leaves = append(m.Leaves, s.Bytes)
		if i == 0 || i == len(leaves)-1 || s.Leaf.Kind == exeq.KindStart {
			receipts = append(receipts, s.Leaf.ID)
		}
		m.Disclosures = append(m.Disclosures, s.Disclosures...)
	}
	if d, err := DecisionOf(leaves); err == nil {
		// A source that is gone leaves the proof without replay, not without use.
		if m.Source, err = in.Store.Blob(ctx, d.Decision.PolicySet); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	context, err := in.contextOf(ctx, leaves)
	if err != nil {
		return nil, err
	}
	for _, s := range context {
		m.Context = append(m.Context, s.Bytes)
		m.Disclosures = append(m.Disclosures, s.Disclosures...)
		receipts = append(receipts, s.Leaf.ID)
	}
	if m.Receipts, err = in.Store.Receipts(ctx, receipts...); err != nil {
		return nil, err
	}
	m.Consistency, err = in.consistency(ctx, leaves, m.Receipts)
	return m, err
}

// consistency proves that the log under the receipts, which others may have
// grown since, extends the checkpoint that the permit names.
func (in *Installation) consistency(ctx context.Context, leaves []record.Stored, receipts []exeq.Receipt) ([]exeq.Digest, error) {
	p, err := PermitOf(leaves)
	if err != nil || p.Body.Checkpoint == "" {
		return nil, nil // erased, a denial, or issued before the first checkpoint
	}
	older, err := sizeOf(p.Body.Checkpoint)
	if err != nil {
		return nil, err
	}
	newer, err := proof.TreeSize(&receipts[0])
	if err != nil || older == 0 {
		return nil, err
	}
	return in.Store.Consistency(ctx, older, newer)
}

func sizeOf(checkpoint string) (int64, error) {
	size, _, _ := strings.Cut(checkpoint, ":")
	return strconv.ParseInt(size, 10, 64)
}

// PermitOf is the permit that the first of an execution's leaves holds.
func PermitOf(leaves []record.Stored) (*exeq.Permit, error) {
	for _, d := range leaves[0].Disclosures {
		if d.Field == "permit" {
			var envelope string
			if err := json.Unmarshal(d.Value, &envelope); err != nil {
				return nil, err
			}
			return exeq.ParsePermit([]byte(envelope))
		}
	}
	return nil, errors.New("no permit is on record")
}

// contextOf finds the leaves that an execution's rest on: every key leaf, and
// the activation of the policy set that decided.
func (in *Installation) contextOf(ctx context.Context, leaves []record.Stored) ([]record.Stored, error) {
	var set string
	if i := slices.IndexFunc(leaves[0].Disclosures, func(d exeq.Disclosure) bool { return d.Field == "policySet" }); i >= 0 {
		set = string(leaves[0].Disclosures[i].Value)
	}
	kept, err := in.Store.Foundations(ctx)
	if err != nil {
		return nil, err
	}
	var out []record.Stored
	var policyLeaf *record.Stored
	for _, s := range kept {
		if s.Leaf.Kind == exeq.KindKey {
			out = append(out, s)
			continue
		}
		for _, d := range s.Disclosures {
			// The latest activation before the decision.
			if d.Field == "policySet" && string(d.Value) == set && s.Row < leaves[0].Row {
				policyLeaf = &s
			}
		}
	}
	if policyLeaf != nil {
		out = append(out, *policyLeaf)
	}
	slices.SortFunc(out, func(a, b record.Stored) int { return int(a.Index - b.Index) })
	return out, nil
}

// Replay decides a proof's request again under the policy set that the proof
// discloses; it is what cmd hands to proof.Verify.
func Replay(source []byte, r *exeq.Request, in *exeq.Inputs) (exeq.Decision, error) {
	src, err := policy.DecodeSource(source)
	if err != nil {
		return exeq.Decision{}, err
	}
	set, err := policy.Load(src)
	if err != nil {
		return exeq.Decision{}, err
	}
	return set.Decide(context.Background(), r, in)
}

// History gives every recorded decision, oldest first, for replay.
func (in *Installation) History(ctx context.Context) ([]policy.Recorded, error) {
	var out []policy.Recorded
	err := in.Store.Decisions(ctx, 0, func(d *record.Decision) bool {
		out = append(out, policy.Recorded{ID: d.Execution, Request: d.Request, Inputs: d.Inputs, Decision: d.Decision})
		return true
	})
	return out, err
}
