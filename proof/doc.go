// Package proof bundles one execution into a file and verifies it offline.
//
// It is kept small enough to audit: it imports the standard library,
// golang.org/x/mod (signed notes and Merkle proofs), the arithmetic of Ed25519
// (filippo.io/edwards25519, which is the standard library's, made public) and
// Exeq's nouns; policy replay is injected. A proof carries no trust: keys, log,
// witnesses and what is required come from a [Trust] file. [Verify] never claims
// more than the bytes show: what only a walk of the whole log could tell is said
// to need a monitor (package monitor), what rests on somebody's word names the
// key.
package proof
