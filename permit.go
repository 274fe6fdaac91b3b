package exeq

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/exeq/exeq/internal/canon"
)

// Envelope is a DSSE envelope (github.com/secure-systems-lab/dsse) as it
// travels; a permit has exactly one signature.
type Envelope struct {
	PayloadType string              `json:"payloadType"`
	Payload     string              `json:"payload"` // base64, standard alphabet
	Signatures  []EnvelopeSignature `json:"signatures"`
}

// EnvelopeSignature is one signature of an envelope.
type EnvelopeSignature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"` // base64
}

// Statement is an in-toto Statement v1 that carries a permit.
type Statement struct {
	Type          string             `json:"_type"`
	Subject       []StatementSubject `json:"subject"`
	PredicateType string             `json:"predicateType"`
	Predicate     PermitBody         `json:"predicate"`
}

// StatementSubject names the action by its digest; a permit has exactly one.
type StatementSubject struct {
	Name   string        `json:"name"` // "action"
	Digest StatementSums `json:"digest"`
}

// StatementSums is in-toto's DigestSet, SHA-256 only.
type StatementSums struct {
	SHA256 Digest `json:"sha256"`
}

// Audience is the one enforcement point that may use a permit. Boot id and
// store epoch are in it so that a restored or deleted burn list voids old
// permits.
type Audience struct {
	Node   string `json:"node"`   // key id of the node key
	BootID string `json:"bootId"` // /proc/sys/kernel/random/boot_id
	Epoch  string `json:"epoch"`  // random, made with the burn list
}

// PermitBody is the predicate of a permit, version 1. Unknown members or
// versions are refused.
type PermitBody struct {
	Version    int      `json:"v"`  // 1
	ID         string   `json:"id"` // UUIDv7; also the id of the execution it starts
	Subject    Entity   `json:"subject"`
	OnBehalfOf []Entity `json:"onBehalfOf,omitempty"`
	Action     string   `json:"action"`
	Resource   Resource `json:"resource"`
	Audience   Audience `json:"audience"`
	NotBefore  Time     `json:"notBefore"`
	NotAfter   Time     `json:"notAfter"`
	// LeaseMillis is the lease period: without a renewal the execution dies.
	LeaseMillis  int64    `json:"leaseMillis"`
	Nonce        string   `json:"nonce"`   // 128 random bits, hexadecimal
	MaxUses      int      `json:"maxUses"` // 1
	PolicySet    Digest   `json:"policySet"`
	Policies     []string `json:"policies"`
	Obligations  []string `json:"obligations,omitempty"`
	InputsDigest Digest   `json:"inputsDigest"`
	RightsDigest Digest   `json:"rightsDigest"`
	TierFloor    Tier     `json:"tierFloor"`
	// Parent is the permit of the execution inside which this one was asked for.
	Parent string `json:"parent,omitempty"`
	// Checkpoint is the latest (cosigned) checkpoint known at issue, as
	// "size:root" with the root in hexadecimal: a lower bound of its time.
	Checkpoint string `json:"checkpoint,omitempty"`
}

// Permit is an issued permit: the envelope that travels and what it says.
type Permit struct {
	Envelope []byte // exact bytes of the envelope's canonical JSON
	Action   Digest
	Body     PermitBody
	Grounds  *Grounds // what it was issued from; nil when it was read
}

// Private is what the leaf of a permit commits to: the permit and everything
// that it was decided and issued from.
func (p *Permit) Private(d *Decision) map[string]any {
	return map[string]any{
		"permit": canon.Text(p.Envelope), "request": &p.Grounds.request, "inputs": &p.Grounds.inputs,
		"decision": d, "policySet": &d.PolicySet, "rights": &p.Grounds.rights,
	}
}

// ParsePermit reads an envelope strictly without checking its signature.
func ParsePermit(envelope []byte) (*Permit, error) {
	var e Envelope
	if err := canon.Decode(envelope, &e, canon.Limits{Bytes: MaxPermitBytes, Depth: 4}); err != nil {
		return nil, fmt.Errorf("%w: envelope: %w", ErrPermit, err)
	}
	if e.PayloadType != StatementPayload {
		return nil, fmt.Errorf("%w: payloadType is %q", ErrPermit, e.PayloadType)
	}
	if len(e.Signatures) != 1 {
		return nil, fmt.Errorf("%w: want exactly one signature, found %d", ErrPermit, len(e.Signatures))
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("%w: payload is not base64", ErrPermit)
	}
	var s Statement
	if err := canon.Decode(payload, &s, canon.Limits{Bytes: MaxPermitBytes, Depth: MaxDepth}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPermit, err)
	}
	switch {
	case s.Type != StatementType:
		return nil, fmt.Errorf("%w: _type is %q", ErrPermit, s.Type)
	case s.PredicateType != PermitPredicate || s.Predicate.Version != 1:
		return nil, fmt.Errorf("%w: %w: predicate %q version %d", ErrPermit, ErrCannotTell, s.PredicateType, s.Predicate.Version)
	case len(s.Subject) != 1:
		return nil, fmt.Errorf("%w: want exactly one subject, found %d", ErrPermit, len(s.Subject))
	case s.Predicate.MaxUses != 1:
		return nil, fmt.Errorf("%w: maxUses is %d, want 1", ErrPermit, s.Predicate.MaxUses)
	}
	return &Permit{Envelope: envelope, Action: s.Subject[0].Digest.SHA256, Body: s.Predicate}, nil
}

// Signer signs with the key of one role.
type Signer interface {
	KeyID() string
	Sign(message []byte) []byte
}

// spkiPrefix is the DER prefix of an Ed25519 SubjectPublicKeyInfo (RFC 8410).
var spkiPrefix = []byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}

// KeyID is the hexadecimal SHA-256 of the key's SubjectPublicKeyInfo.
func KeyID(pub ed25519.PublicKey) string {
	h := sha256.Sum256(append(append([]byte(nil), spkiPrefix...), pub...))
	return hex.EncodeToString(h[:])
}

// Issuer issues permits and everything that extends or ends them.
//
// Issue signs a permit for exactly this request, these inputs and rights; what
// it returns is inert until a Recorder has made it durable. Safe for
// concurrent use.
type Issuer interface {
	Issue(id string, r *Request, in *Inputs, d *Decision, rights *Rights, parent string) (*Permit, error)
	Renew(permit string, sequence uint64, challenge string, period time.Duration) (Renewal, error)
	Revoke(permit, reason string, at Time) (Revocation, error)
}

// Revocation ends an execution.
type Revocation struct {
	Permit    string `json:"permit"`
	Reason    string `json:"reason"`
	Time      Time   `json:"time"`
	Key       string `json:"key"`
	Signature string `json:"sig"`
}

// Signable is what a renewal's signature covers.
func (r Renewal) Signable() ([]byte, error) {
	r.Signature = ""
	b, err := canon.Marshal(r)
	return append([]byte(tagRenewal), b...), err
}

// Signable is what a revocation's signature covers.
func (r Revocation) Signable() ([]byte, error) {
	r.Signature = ""
	b, err := canon.Marshal(r)
	return append([]byte(tagRevocation), b...), err
}

// Admitter is the enforcing side's check of a permit before anything happens.
//
// Admit recomputes the action digest from r and the rights digest from rights,
// verifies signature, record (the leaf commits to this permit and is promised
// under the promise key), audience and window, and burns the nonce durably; only then does it return nil. Each refusal wraps [ErrPermit] (a
// second use [ErrReplayed]) and is recorded by the caller.
type Admitter interface {
	Admit(ctx context.Context, p *Permit, on *PermitRecord, r *Request, rights *Rights) error
	// CheckRenewal verifies a renewal for one permit; sequences only rise.
	CheckRenewal(permit string) func(Renewal) error
}

// Scope of what an envelope's payload holds, for those who only forward it.
func (p *Permit) Payload() (json.RawMessage, error) {
	var e Envelope
	if err := json.Unmarshal(p.Envelope, &e); err != nil {
		return nil, errors.New("permit: envelope is not JSON")
	}
	return base64.StdEncoding.DecodeString(e.Payload)
}
