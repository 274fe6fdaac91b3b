package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Proof is all of one execution, version 1: canonical JSON and a newline.
type Proof struct {
	Version   int    `json:"v"` // 1
	Execution string `json:"execution"`
	// Leaves are the exact bytes of the execution's leaves, by sequence; the
	// first is its permit's.
	Leaves []string `json:"leaves"`
	// Context are the exact bytes of the leaves that the execution's rest on:
	// key leaves and the activation of the policy set that decided, by index.
	Context []string `json:"context"`
	// Promise is of the permit's leaf.
	Promise exeq.Promise `json:"promise"`
	// Receipts are of the permit, the start, the last leaf and every leaf of
	// Context; prev covers the others.
	Receipts []exeq.Receipt `json:"receipts"`
	// Consistency proves (RFC 6962) that the tree of the receipts extends the
	// checkpoint that the permit names; empty where it names none.
	Consistency []exeq.Digest `json:"consistency,omitempty"`
	// Disclosures open commitments of Leaves and Context.
	Disclosures []exeq.Disclosure `json:"disclosures"`
	// Activities open single entries of activity leaves whose field "entries"
	// is not disclosed.
	Activities []Activity `json:"activities,omitempty"`
	// Source is the canonical source of the policy set that decided.
	Source json.RawMessage `json:"source,omitempty"`
}

// Activity opens one entry of one activity leaf.
type Activity struct {
	Leaf  string           `json:"leaf"`
	Index int              `json:"index"`
	Entry exeq.SealedEntry `json:"entry"`
	Path  []exeq.Digest    `json:"path"` // RFC 6962 inclusion path to the leaf's root
}

// Parse reads a proof strictly: unknown, duplicate, oversized or too deeply
// nested input, and any spelling but the canonical one, is an error. It checks
// no signature.
func Parse(b []byte) (*Proof, error) {
	if len(b) > exeq.MaxProofBytes {
		return nil, fmt.Errorf("proof: %d bytes are over the limit of %d", len(b), exeq.MaxProofBytes)
	}
	var p Proof
	body, line := bytes.CutSuffix(b, []byte("\n"))
	exact, err := canon.DecodeCanonical(body, &p, canon.Limits{Bytes: exeq.MaxProofBytes, Depth: exeq.MaxDepth})
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	if p.Version != 1 {
		return nil, fmt.Errorf("proof: %w: version %d", exeq.ErrCannotTell, p.Version)
	}
	if !exact || !line {
		return nil, fmt.Errorf("proof: not in canonical form")
	}
	return &p, nil
}

// Encode gives the bytes of the proof file.
func (p *Proof) Encode() ([]byte, error) {
	b, err := canon.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	return append(b, '\n'), nil
}

// Checkpoints are the distinct signed checkpoints that the proof's receipts
// stand on, unverified.
func (p *Proof) Checkpoints() []string {
	var out []string
	for _, r := range p.Receipts {
		rc, err := parseReceipt(r.Proof)
		if err == nil && !slices.Contains(out, rc.note) {
			out = append(out, rc.note)
		}
	}
	return out
}
