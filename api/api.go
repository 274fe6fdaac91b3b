// Package api is the wire schema of what runs under a server: JSON over HTTPS,
// one POST or GET a message, the same for the Go client and for everyone else.
// Decision points and their callers in AuthZEN's terms are in api/authzen.
//
// Whoever runs something believes what the server signed, never the connection:
// a permit, a renewal, a revocation. The server believes what is signed by the key
// of the permit's audience: the leaves of an execution.
package api

import (
	"encoding/json"

	"github.com/exeq/exeq"
)

// Paths of the API; {execution} stands for an id.
const (
	PathKeys       = "/v1/keys"                              // GET → Keys
	PathPolicy     = "/v1/policy"                            // GET → Policy; If-None-Match: the digest
	PathAuthorize  = "/v1/authorize"                         // POST Ask → Answer
	PathRecord     = "/v1/record"                            // POST Leaves → Promises
	PathSign       = "/v1/sign"                              // POST Sign → Signed
	PathRenew      = "/v1/renew"                             // POST Renew → exeq.Renewal
	PathRevocation = "/v1/executions/{execution}/revocation" // GET → exeq.Revocation, or 204 after a while
	PathProof      = "/v1/executions/{execution}/proof"      // GET → a proof
	PathTrust      = "/v1/trust"                             // GET → a trust file
)

// Keys are what the server signs with.
type Keys struct {
	Issuer  []byte `json:"issuer"`  // Ed25519 public key
	Promise string `json:"promise"` // C2SP note verifier key
}

// Policy is the active set.
type Policy struct {
	PolicySet exeq.Digest     `json:"policySet"`
	Source    json.RawMessage `json:"source"` // canonical, as in a proof
}

// Ask is a request for a permit.
type Ask struct {
	Audience exeq.Audience `json:"audience"`
	Key      []byte        `json:"key"` // Ed25519 public key of the audience's node
	Request  *exeq.Request `json:"request"`
	Tier     exeq.Tier     `json:"tier"` // that enforcement achieves there
}

// Answer holds a permit, or the decision that yielded none.
type Answer struct {
	Execution string             `json:"execution"`
	Decision  exeq.Decision      `json:"decision"`
	Reason    string             `json:"reason,omitempty"` // for the person who asked
	Permit    json.RawMessage    `json:"permit,omitempty"` // DSSE envelope
	Record    *exeq.PermitRecord `json:"record,omitempty"`
	Rights    *exeq.Rights       `json:"rights,omitempty"`
}

// Leaves are the next of one execution's chain.
type Leaves struct {
	Entries []Entry `json:"entries"`
}

// Entry is one leaf with what opens it.
type Entry struct {
	Leaf        []byte            `json:"leaf"`
	Disclosures []exeq.Disclosure `json:"disclosures,omitempty"`
}

// Promises are of the leaves, in their order.
type Promises struct {
	Promises []exeq.Promise `json:"promises"`
}

// Sign asks the issuer to sign the leaf of a revocation or a denial: what its
// signature covers.
type Sign struct {
	Message []byte `json:"message"`
}

// Signed is an Ed25519 signature.
type Signed struct {
	Signature []byte `json:"signature"`
}

// Renew asks for the next part of a lease.
type Renew struct {
	Permit    string `json:"permit"`
	Sequence  uint64 `json:"sequence"`
	Challenge string `json:"challenge"`
	Millis    int64  `json:"millis"`
}
