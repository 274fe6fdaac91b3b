package proof

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
)

const receiptHeader = "c2sp.org/tlog-proof@v1"

// Checkpoint is a verified signed tree head.
type Checkpoint struct {
	Size int64
	Root exeq.Digest
	sigs []note.Signature // verified ones, the log's included
}

// receipt is a parsed C2SP tlog-proof.
type receipt struct {
	index int64
	path  tlog.RecordProof
	note  string
}

// parseReceipt reads a tlog-proof without extra data; every value has one
// accepted spelling.
func parseReceipt(text string) (*receipt, error) {
	head, body, ok := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 2 || lines[0] != receiptHeader {
		return nil, errors.New("not a " + receiptHeader)
	}
	r := &receipt{note: body}
	num, ok := strings.CutPrefix(lines[1], "index ")
	if !ok {
		return nil, errors.New("the second line is not an index")
	}
	var err error
	if r.index, err = parseSize(num); err != nil {
		return nil, err
	}
	if len(lines) > 2+64 {
		return nil, errors.New("more than 64 hashes")
	}
	for _, l := range lines[2:] {
		h, err := parseHash(l)
		if err != nil {
			return nil, err
		}
		r.path = append(r.path, h)
	}
	return r, nil
}

// FormatReceipt writes a C2SP tlog-proof.
func FormatReceipt(index int64, path []exeq.Digest, signedCheckpoint []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nindex %d\n", receiptHeader, index)
	for _, h := range path {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	return b.String() + "\n" + string(signedCheckpoint)
}

// Checkpoint verifies the log's signature and any cosignature of a known
// witness; a known key with a wrong signature is an error.
func (a *Anchors) Checkpoint(text string) (*Checkpoint, error) {
	vs := append([]note.Verifier{a.log}, a.quorum.verifiers...)
	n, err := openNote(text, vs...)
	if err != nil {
		return nil, err
	}
	if !signedBy(n, a.log) {
		return nil, errors.New("the log's own signature is missing")
	}
	origin, size, root, _, err := parseTree(n.Text)
	if err != nil {
		return nil, err
	}
	if origin != a.origin {
		return nil, fmt.Errorf("a checkpoint of %.80q, not of %q", origin, a.origin)
	}
	return &Checkpoint{size, exeq.Digest(root), n.Sigs}, nil
}

// parseTree reads three lines: name, size, root; the rest is returned.
func parseTree(text string) (name string, size int64, root tlog.Hash, rest string, err error) {
	f := strings.SplitN(text, "\n", 4)
	if len(f) < 4 {
		return "", 0, root, "", errors.New("a checkpoint has three lines")
	}
	if size, err = parseSize(f[1]); err != nil {
		return
	}
	root, err = parseHash(f[2])
	return f[0], size, root, f[3], err
}

func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%.40q is not a size or index", s)
	}
	return n, nil
}

func parseHash(s string) (tlog.Hash, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != tlog.HashSize {
		return tlog.Hash{}, errors.New("a hash is base64 of 32 bytes")
	}
	return tlog.Hash(b), nil
}

func openNote(text string, vs ...note.Verifier) (*note.Note, error) {
	n, err := note.Open([]byte(text), note.VerifierList(vs...))
	if err != nil {
		return nil, err
	}
	// x/mod takes any padding bits; a signature has one spelling here.
	for _, s := range append(n.Sigs, n.UnverifiedSigs...) {
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return nil, errors.New("a signature line is not strict base64")
		}
	}
	return n, nil
}

func signedBy(n *note.Note, v note.Verifier) bool {
	for _, s := range n.Sigs {
		if s.Name == v.Name() && s.Hash == v.KeyHash() {
			return true
		}
	}
	return false
}

// OpenPromise verifies a promise for one leaf and gives the time, in
// milliseconds since the epoch, at which the promise key signed.
func (a *Anchors) OpenPromise(p *exeq.Promise, leaf exeq.Digest) (int64, error) {
	n, err := openNote(p.Note, a.promise)
	if err != nil {
		return 0, err
	}
	if len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
		return 0, errors.New("a promise has one signature")
	}
	name, size, root, rest, err := parseTree(n.Text)
	if err != nil {
		return 0, err
	}
	if name != a.promise.Name() {
		return 0, fmt.Errorf("a promise of %.80q, not of %q", name, a.promise.Name())
	}
	num, ok := strings.CutPrefix(rest, "time ")
	num, ok2 := strings.CutSuffix(num, "\n")
	if !ok || !ok2 {
		return 0, errors.New("a promise ends with its time")
	}
	ms, err := parseSize(num)
	if err != nil {
		return 0, err
	}
	if int64(p.Index) >= size || p.Index < 0 {
		return 0, errors.New("the index lies outside the batch")
	}
	if err := tlog.CheckRecord(hashes(p.Path), size, root, int64(p.Index), tlog.Hash(leaf)); err != nil {
		return 0, errors.New("the leaf is not in the batch that was promised")
	}
	return ms, nil
}

func hashes(ds []exeq.Digest) []tlog.Hash {
	out := make([]tlog.Hash, len(ds))
	for i, d := range ds {
		out[i] = tlog.Hash(d)
	}
	return out
}

// TreeSize is the size of the tree that a receipt stands on, unverified.
func TreeSize(r *exeq.Receipt) (int64, error) {
	p, err := parseReceipt(r.Proof)
	if err != nil {
		return 0, err
	}
	_, size, _, _, err := parseTree(p.note)
	return size, err
}
