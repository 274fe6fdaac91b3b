package exeq

// Promise is the log's signed word that a leaf will have a place in it within
// MaxMergeDelay. Promises are signed a batch at a time: the note's text is
//
//	<log origin>/promise
//	<number of leaves in the batch>
//	<base64 RFC 6962 root over the leaves' hashes>
//	time <milliseconds since the epoch>
//
// signed as a C2SP signed note by the promise key, whose name is its first line.
type Promise struct {
	Note  string   `json:"note"`
	Index int      `json:"index"` // of the leaf in the batch
	Path  []Digest `json:"path"`  // RFC 6962 inclusion path in the batch
}

// PermitRecord is what an enforcing side needs to see that a permit is on record:
// the exact bytes of its leaf, the promise of a place in the log, and the
// opening of the leaf's commitment to the permit.
type PermitRecord struct {
	Leaf    []byte     `json:"leaf"`
	Promise Promise    `json:"promise"`
	Permit  Disclosure `json:"permit"` // field "permit": the envelope as a string
}

// Receipt proves that a leaf is in the log: a C2SP tlog-proof@v1 as text,
// checkpoint (with its cosignatures) included.
type Receipt struct {
	Leaf  string `json:"leaf"`  // leaf id
	Proof string `json:"proof"` // text of the tlog-proof
}

// Roles of keys. Key leaves in the log add, retire and mark compromised; a
// signature is judged by the log index at which it stands.
const (
	RoleIssuer   = "issuer"   // permits, renewals, revocations, denials, policy and key leaves
	RoleLog      = "log"      // checkpoints
	RolePromise  = "promise"  // promises
	RoleNode     = "node"     // start, activity, appraisal, end
	RoleApprover = "approver" // approvals
)
