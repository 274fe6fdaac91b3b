// Package exeq holds the nouns and the flow of governed execution: request,
// decision, permit, record, execution, evidence, proof. Every action of an
// autonomous system is decided by policy, given a signed single-use permit,
// recorded in a verifiable log, enforced, re-verified while it runs, ended
// when trust ends, and left with a proof that a stranger can check.
//
//	request → decide → permit → record → enforce → verify (every tick) → seal
//	            │         │        │         │            │
//	          deny      (none)   inert    refuse       revoke → kill
//
// The package imports only the standard library. Each verb has a directory of
// its own (policy, permit, record, enforce, attest, proof) that implements the
// interfaces stated here; [Governor.Run] in govern.go is the whole flow.
//
// All artifacts are canonical JSON (RFC 8785) with string-encoded 64-bit
// integers; paths and arguments use the byte-safe encoding of [EncodeBytes].
package exeq
