package exeq

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/exeq/exeq/internal/canon"
)

// Grounds is what a permit is issued from, written once: the permit binds the
// digests, and its leaf commits to the very bytes that were digested.
type Grounds struct {
	Action, Inputs, Rights Digest // as ActionDigest and the Digest methods give them

	request, inputs, rights canon.Written
}

// NewGrounds refuses a request or rights that do not validate.
func NewGrounds(r *Request, in *Inputs, rights *Rights) (*Grounds, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if err := rights.Validate(); err != nil {
		return nil, err
	}
	scratch := writing.Get().(*[]byte)
	defer writing.Put(scratch)
	g, b := &Grounds{}, (*scratch)[:0]
	b, action, err := appendDigested(b, &g.Action, tagAction, r.actionV1())
	if err := actionErr(len(action), err); err != nil {
		return nil, err
	}
	b, inputs, err := appendDigested(b, &g.Inputs, tagInputs, in)
	if err != nil {
		return nil, fmt.Errorf("inputs: %w", err)
	}
	b, bound, err := appendDigested(b, &g.Rights, tagRights, rights)
	if err != nil {
		return nil, err
	}
	// An action is the request and, as the last of its members, a version.
	request, ok := bytes.CutSuffix(action, []byte(`,"v":1}`))
	if !ok {
		return nil, errors.New("request: its action does not end in its version")
	}
	kept := make([]byte, 0, len(request)+1+len(inputs)+len(bound))
	kept = append(append(kept, request...), '}')
	n, m := len(kept), len(kept)+len(inputs)
	kept = append(append(kept, inputs...), bound...)
	g.request, g.inputs, g.rights = kept[:n:n], kept[n:m:m], kept[m:]
	if cap(b) <= maxWriting {
		*scratch = b
	}
	return g, nil
}

// appendDigested appends tag and v and digests both; form is v alone.
func appendDigested(b []byte, d *Digest, tag string, v any) (all, form []byte, err error) {
	from := len(b)
	if b, err = canon.Append(append(b, tag...), v); err != nil {
		return nil, nil, err
	}
	*d = sha256.Sum256(b[from:])
	return b, b[from+len(tag):], nil
}
