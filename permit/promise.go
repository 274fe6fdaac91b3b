package permit

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
)

// Bounds of a promise: a batch never holds more leaves, a path never more
// hashes, and the note stays small.
const (
	maxBatch = 1 << 20
	maxPath  = 20
	maxNote  = 4 << 10
)

// onRecord verifies that a promised leaf commits to this very permit.
func onRecord(p *exeq.Permit, on *exeq.PermitRecord, key note.Verifier, now time.Time) error {
	leaf, err := exeq.ParseLeaf(on.Leaf)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	switch {
	case leaf.Kind != exeq.KindPermit || leaf.Execution != p.Body.ID || leaf.Seq != 0 || !leaf.Prev.IsZero():
		return fmt.Errorf("%w: its leaf is not the first of execution %s", ErrUnrecorded, p.Body.ID)
	case !leaf.Body.Verdict.Permits() || !slices.Equal(leaf.Body.Policies, p.Body.Policies):
		return fmt.Errorf("%w: its leaf records another decision", ErrUnrecorded)
	case on.Permit.Leaf != leaf.ID || on.Permit.Field != "permit":
		return fmt.Errorf("%w: what opens the leaf is for another", ErrUnrecorded)
	}
	var envelope string
	if err := json.Unmarshal(on.Permit.Value, &envelope); err != nil || envelope != string(p.Envelope) {
		return fmt.Errorf("%w: the leaf commits to another permit", ErrUnrecorded)
	}
	committed, there := leaf.Commitments["permit"]
	opened, err := on.Permit.Digest()
	if err != nil || !there || committed != opened {
		return fmt.Errorf("%w: the leaf does not commit to it", ErrUnrecorded)
	}
	at, err := CheckPromise(key, &on.Promise, on.Leaf)
	if err != nil {
		return err
	}
	// A store's times never fall, so a promise may be ahead of a clock that was
	// set back a little.
	if at.After(now.Add(exeq.MaxClockStepBack)) || at.Before(p.Body.NotBefore.Add(-MaxSkew)) {
		return fmt.Errorf("%w: the promise is of %s, not of the permit's window", ErrUnrecorded, at)
	}
	return nil
}

// CheckPromise verifies that the promise covers the leaf's exact bytes and
// gives the time it was made. The error wraps [ErrUnrecorded].
func CheckPromise(key note.Verifier, p *exeq.Promise, leaf []byte) (exeq.Time, error) {
	fail := func(why string) (exeq.Time, error) {
		return exeq.Time{}, fmt.Errorf("%w: promise: %s", ErrUnrecorded, why)
	}
	if len(p.Note) > maxNote || len(p.Path) > maxPath {
		return fail("too large")
	}
	n, err := note.Open([]byte(p.Note), note.VerifierList(key))
	if err != nil {
		return fail("not signed by the promise key")
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 5 || lines[4] != "" || lines[0] != key.Name() {
		return fail("its text is not a promise of this log")
	}
	size, err := decimal(lines[1])
	if err != nil || size < 1 || size > maxBatch {
		return fail("its number of leaves is not one")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return fail("its root is not a hash")
	}
	stamp, ok := strings.CutPrefix(lines[3], "time ")
	ms, err := decimal(stamp)
	if !ok || err != nil {
		return fail("its time is not one")
	}
	path := make(tlog.RecordProof, len(p.Path))
	for i, h := range p.Path {
		path[i] = tlog.Hash(h)
	}
	if p.Index < 0 || int64(p.Index) >= size {
		return fail("its index is outside of the batch")
	}
	if err := tlog.CheckRecord(path, size, tlog.Hash(root), int64(p.Index), tlog.RecordHash(leaf)); err != nil {
		return fail("it does not cover the leaf")
	}
	return exeq.At(time.UnixMilli(ms)), nil
}

// decimal reads a number in its one spelling.
func decimal(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s || n < 0 {
		return 0, fmt.Errorf("not a number: %.20q", s)
	}
	return n, nil
}
