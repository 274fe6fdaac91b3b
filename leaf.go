package exeq

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/exeq/exeq/internal/canon"
)

// Kind says what a record leaf tells.
type Kind string

// The kinds of version 1. An unknown kind or version is "cannot tell".
const (
	KindPolicy    Kind = "policy"    // a policy set became active
	KindKey       Kind = "key"       // a key was added, retired or marked compromised
	KindScope     Kind = "scope"     // a mandatory scope was declared or lifted, or a node told of one
	KindPermit    Kind = "permit"    // a permit was issued, with its decision
	KindDenial    Kind = "denial"    // a request was denied, or a permit refused
	KindStart     Kind = "start"     // enforcement is in force, the workload is released
	KindActivity  Kind = "activity"  // activities of a tick, or one denied or labelled activity
	KindAppraisal Kind = "appraisal" // ticks appraised
	KindApproval  Kind = "approval"  // a person approved
	KindRevoke    Kind = "revoke"    // trust ended
	KindEnd       Kind = "end"       // the execution is sealed
)

// Leaf is one entry of the log: JSON in canonical form, at most MaxLeafBytes,
// safe to publish. Identifiers, verdicts, times and policy ids are in clear;
// every other fact stands only as a salted commitment.
type Leaf struct {
	Version   int    `json:"v"` // 1
	Kind      Kind   `json:"kind"`
	ID        string `json:"id"` // UUIDv7
	Execution string `json:"execution,omitempty"`
	Parent    string `json:"parent,omitempty"` // execution inside which this one runs
	// Seq numbers an execution's leaves from 0 (its permit).
	Seq int `json:"seq"`
	// Prev is the RFC 6962 leaf hash of the exact bytes of the execution's
	// previous leaf; zero for the first.
	Prev Digest `json:"prev,omitzero"`
	Time Time   `json:"time"`
	// Actor is opaque: a salted digest of the subject, constant within an
	// installation.
	Actor string   `json:"actor,omitempty"`
	Body  LeafBody `json:"body"`
	// Commitments maps a field name to its salted digest; see Commit.
	Commitments map[string]Digest `json:"commitments,omitempty"`
	// Key and Signature: leaves other than permits are signed by the node or
	// issuer over TagLeaf ‖ canonical leaf without "sig". A permit leaf is
	// authenticated by the permit it commits to.
	Key       string `json:"key,omitempty"`
	Signature string `json:"sig,omitempty"`
}

// LeafBody holds the members in clear; each kind uses its own.
type LeafBody struct {
	Verdict  Verdict  `json:"verdict,omitempty"`  // permit, denial, activity
	Policies []string `json:"policies,omitempty"` // permit, denial, activity
	Needs    []string `json:"needs,omitempty"`    // denial
	// Code is a machine-readable reason: denial ("policy", "replayed", …),
	// revoke ("revoked", "policy", "appraisal", "lapsed"), end ("exited",
	// "killed", "lost").
	Code string `json:"code,omitempty"`

	Tier        Tier              `json:"tier,omitempty"`        // start
	LandlockABI int               `json:"landlockABI,omitempty"` // start
	Seen        map[string]string `json:"seen,omitempty"`        // start: Applied.Seen
	LeaseMillis int64             `json:"leaseMillis,omitempty"` // start

	// Entries and Root: an activity leaf covers Entries salted entries with
	// this RFC 6962 root (see ActivityEntry).
	Entries int            `json:"entries,omitempty"`
	Root    Digest         `json:"root,omitzero"`
	Counts  map[string]int `json:"counts,omitempty"` // activity: class → number in this leaf; end: totals
	Labels  int            `json:"labels,omitempty"` // activity: how many labels the session holds after it

	// Ticks an appraisal covers; every one was appraised and passed unless
	// Failed says otherwise. Covered is the time up to which the lease was
	// renewed by them.
	FirstTick uint64   `json:"firstTick,omitempty"`
	LastTick  uint64   `json:"lastTick,omitempty"`
	MaxGap    int64    `json:"maxGapMillis,omitempty"` // longest time between two renewals
	Failed    []string `json:"failed,omitempty"`
	// HeldMillis is the time within the appraisal or end leaf's span in which
	// every process stood still and the lease was suspended, counted from the
	// renewal before each standstill.
	HeldMillis int64 `json:"heldMillis,omitempty"`

	Role      string `json:"role,omitempty"`      // key
	PublicKey string `json:"publicKey,omitempty"` // key: base64 of 32 bytes
	Event     string `json:"event,omitempty"`     // key: "add", "retire", "compromised"; policy: "activate"; scope: "rehearse", "enforce", "lift", "report", "opened"
}

// Disclosure opens one commitment of one leaf.
type Disclosure struct {
	Leaf  string          `json:"leaf"`
	Field string          `json:"field"`
	Salt  string          `json:"salt"` // 128 bits, hexadecimal
	Value json.RawMessage `json:"value"`
}

// Commit is SHA-256(tag ‖ leaf id ‖ NUL ‖ field ‖ NUL ‖ salt ‖ JCS(value)).
// Erasing the salt erases the fact: an unsalted digest could be guessed and
// confirmed.
func Commit(leaf, field string, salt [16]byte, canonical []byte) Digest {
	b := make([]byte, 0, 256)
	h := sha256.New()
	h.Write(appendCommitted(b, leaf, field, salt))
	h.Write(canonical)
	return Digest(h.Sum(nil))
}

// appendCommitted appends what Commit hashes before the value.
func appendCommitted(b []byte, leaf, field string, salt [16]byte) []byte {
	b = append(append(append(b, tagCommitment...), leaf...), 0)
	b = append(append(b, field...), 0)
	return append(b, salt[:]...)
}

// Digest recomputes the commitment that d opens.
func (d *Disclosure) Digest() (Digest, error) {
	var salt [16]byte
	if len(d.Salt) != 32 {
		return Digest{}, fmt.Errorf("disclosure of %.40q: salt is not 128 bits of hexadecimal", d.Field)
	}
	if _, err := hex.Decode(salt[:], []byte(d.Salt)); err != nil || hex.EncodeToString(salt[:]) != d.Salt {
		return Digest{}, fmt.Errorf("disclosure of %.40q: salt is not 128 bits of lower-case hexadecimal", d.Field)
	}
	value, err := canon.Marshal(d.Value)
	if err != nil {
		return Digest{}, fmt.Errorf("disclosure of %s: %w", d.Field, err)
	}
	return Commit(d.Leaf, d.Field, salt, value), nil
}

// Entry is a leaf ready to be recorded, with what opens its commitments.
type Entry struct {
	Leaf        Leaf
	Bytes       []byte // the exact bytes that enter the log
	Disclosures []Disclosure
}

// LeafHash is RFC 6962's hash of a leaf: SHA-256(0x00 ‖ bytes).
func LeafHash(b []byte) Digest {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(b)
	var d Digest
	h.Sum(d[:0])
	return d
}

// MerkleRoot is RFC 6962's tree hash over leaf hashes.
func MerkleRoot(leaves []Digest) Digest {
	switch len(leaves) {
	case 0:
		return Digest(sha256.Sum256(nil))
	case 1:
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	l, r := MerkleRoot(leaves[:k]), MerkleRoot(leaves[k:])
	h := sha256.New()
	h.Write([]byte{1})
	h.Write(l[:])
	h.Write(r[:])
	return Digest(h.Sum(nil))
}

// ParseLeaf reads a leaf strictly and insists on its canonical spelling.
func ParseLeaf(b []byte) (*Leaf, error) {
	if len(b) > MaxLeafBytes {
		return nil, fmt.Errorf("leaf: %d bytes are over the limit of %d", len(b), MaxLeafBytes)
	}
	var l Leaf
	exact, err := canon.DecodeCanonical(b, &l, canon.Limits{Bytes: MaxLeafBytes, Depth: 8})
	if err != nil { // a later version may have members unknown here
		var head struct {
			Version int  `json:"v"`
			Kind    Kind `json:"kind"`
		}
		if json.Unmarshal(b, &head) == nil {
			l.Version, l.Kind = head.Version, head.Kind
		}
	}
	if _, known := kinds[l.Kind]; (l.Version != 1 || !known) && (err == nil || l.Kind != "") {
		return nil, fmt.Errorf("leaf: %w: kind %.40q version %d", ErrCannotTell, l.Kind, l.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("leaf: %w", err)
	}
	if !exact {
		return nil, fmt.Errorf("leaf %s: not in canonical form", l.ID)
	}
	return &l, nil
}

var kinds = map[Kind]struct{}{
	KindPolicy: {}, KindKey: {}, KindScope: {}, KindPermit: {}, KindDenial: {}, KindStart: {},
	KindActivity: {}, KindAppraisal: {}, KindApproval: {}, KindRevoke: {}, KindEnd: {},
}

// Signable is what a leaf's signature covers.
func (l Leaf) Signable() ([]byte, error) {
	l.Signature = ""
	b, err := canon.Marshal(&l)
	return append([]byte(tagLeafSig), b...), err
}

// SignableOf gives the same without writing the leaf again: exact are the bytes
// that l was parsed from, which are canonical, so the member is cut out of them.
// It is the last one that is spelled like it: only a time and a version follow.
func (l *Leaf) SignableOf(exact []byte) ([]byte, error) {
	member := `,"sig":"` + l.Signature + `"`
	i := bytes.LastIndex(exact, []byte(member))
	if i < 0 || l.Signature == "" {
		return l.Signable()
	}
	out := make([]byte, 0, len(tagLeafSig)+len(exact)-len(member))
	return append(append(append(out, tagLeafSig...), exact[:i]...), exact[i+len(member):]...), nil
}

// ParseSignable reads a leaf from what its signature covers.
func ParseSignable(message []byte) (*Leaf, error) {
	b, ok := bytes.CutPrefix(message, []byte(tagLeafSig))
	if !ok {
		return nil, errors.New("leaf: not what the signature of a leaf covers")
	}
	l, err := ParseLeaf(b)
	if err == nil && l.Signature != "" {
		err = errors.New("leaf: what its signature covers holds one")
	}
	return l, err
}

// NewEntry completes a leaf: id, salted commitments over private, signature
// (signer nil for a permit) and the exact bytes. Version, Time and ID are set
// when they are zero.
func NewEntry(l Leaf, private map[string]any, signer Signer) (Entry, error) {
	l.Version = 1
	if l.ID == "" {
		l.ID = NewID()
	}
	if l.Time.IsZero() {
		l.Time = At(time.Now())
	}
	e := Entry{}
	if err := e.commit(&l, private); err != nil {
		return Entry{}, err
	}
	if signer != nil {
		l.Key = signer.KeyID()
		msg, err := l.Signable()
		if err != nil {
			return e, err
		}
		l.Signature = base64.StdEncoding.EncodeToString(signer.Sign(msg))
	}
	b, err := canon.Marshal(&l)
	if err != nil {
		return e, fmt.Errorf("leaf %s: %w", l.Kind, err)
	}
	if len(b) > MaxLeafBytes {
		return e, fmt.Errorf("leaf %s: %d bytes are over the limit of %d", l.Kind, len(b), MaxLeafBytes)
	}
	e.Leaf, e.Bytes = l, b
	return e, nil
}

// commit puts a salted commitment to each private member into the leaf, and what
// opens it beside it.
func (e *Entry) commit(l *Leaf, private map[string]any) error {
	if len(private) == 0 {
		return nil
	}
	l.Commitments = make(map[string]Digest, len(private))
	e.Disclosures = make([]Disclosure, 0, len(private))
	salts := make([]byte, 16*len(private))
	rand.Read(salts)
	opens := hex.EncodeToString(salts)
	// Each value is written behind what is hashed with it; the values that stay
	// are then moved into one piece of memory of their size.
	scratch := writing.Get().(*[]byte)
	defer writing.Put(scratch)
	b, size := (*scratch)[:0], 0
	ends := make([]int, 0, 16)
	for field, v := range private {
		i := len(e.Disclosures)
		from := len(b)
		b = appendCommitted(b, l.ID, field, [16]byte(salts[16*i:]))
		value := len(b)
		var err error
		if b, err = canon.Append(b, v); err != nil {
			return fmt.Errorf("leaf %s: %s: %w", l.Kind, field, err)
		}
		l.Commitments[field] = sha256.Sum256(b[from:])
		e.Disclosures = append(e.Disclosures, Disclosure{Leaf: l.ID, Field: field, Salt: opens[32*i : 32*i+32]})
		ends = append(ends, value, len(b))
		size += len(b) - value
	}
	values := make([]byte, 0, size)
	for i := range e.Disclosures {
		from := len(values)
		values = append(values, b[ends[2*i]:ends[2*i+1]]...)
		e.Disclosures[i].Value = values[from:len(values):len(values)]
	}
	if cap(b) <= maxWriting {
		*scratch = b
	}
	return nil
}

// writing holds buffers in which values are written that are of use only until
// they are hashed.
var writing = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

const maxWriting = 64 << 10

// ActivityEntry is one activity inside an activity leaf; it is disclosed under
// the field name "activity.N", N its index in the leaf.
type ActivityEntry struct {
	Time     Time     `json:"time"`
	Activity Activity `json:"activity"`
	Verdict  Verdict  `json:"verdict"`
	Policies []string `json:"policies,omitempty"`
	Labels   []string `json:"labels,omitempty"` // set on the session by it
}

// Recorder makes leaves durable and promises them a place in the log.
//
// Record stores the entries with their disclosures, all or none, in order, and
// returns one promise an entry only after they are durable and the promise
// key has signed. An error wraps [ErrRecord] and means that nothing may be
// built on the entries; they may still turn up after a crash (failed but
// persisted), which recovery reconciles by id. Safe for concurrent use and by
// several processes on one state directory; it does not wait for the log.
type Recorder interface {
	Record(ctx context.Context, entries ...Entry) ([]Promise, error)
}

// NewID is a UUIDv7 (RFC 9562): time-ordered, 74 random bits.
func NewID() string {
	var b [16]byte
	rand.Read(b[6:])
	ms := uint64(time.Now().UnixMilli())
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[:8], b[:4])
	hex.Encode(out[9:13], b[4:6])
	hex.Encode(out[14:18], b[6:8])
	hex.Encode(out[19:23], b[8:10])
	hex.Encode(out[24:], b[10:])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}
