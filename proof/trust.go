package proof

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/proof/internal/edtable"
)

// Trust is what a verifier believes beforehand, version 1. It never comes from
// the proof.
type Trust struct {
	Version int `json:"v"` // 1
	// Origin is the first line of every checkpoint of the log.
	Origin string `json:"origin"`
	// Log and Promise are the C2SP verifier keys of the log's checkpoints
	// (named Origin) and of its promises (named Origin + "/promise").
	Log     string `json:"log"`
	Promise string `json:"promise"`
	// Keys are the keys of the roles issuer, node and approver.
	Keys []Key `json:"keys"`
	// Witnesses is the text of a C2SP witness policy; empty or "quorum none"
	// asks for no cosignature.
	Witnesses string `json:"witnesses,omitempty"`
	// Require names the checks without which a proof is not valid.
	Require []string `json:"require"`
}

// Key is a key with its role and the log indexes that bound its life. A
// signature is judged by the index at which it stands.
type Key struct {
	Role      string `json:"role"`
	PublicKey string `json:"publicKey"` // base64 of 32 bytes
	// Added, Retired and Compromised are indexes of key leaves: the key is
	// good for leaves at or above Added and below the two others.
	Added       int64  `json:"added,omitempty"`
	Retired     *int64 `json:"retired,omitempty"`
	Compromised *int64 `json:"compromised,omitempty"`
}

// DefaultRequire is what `exeq trust export` asks for: everything that one
// proof can show of a finished execution whose holder disclosed its request.
func DefaultRequire() []string {
	return []string{
		CheckSignature, CheckDigest, CheckAudience, CheckRecorded, CheckEnforced,
		CheckLease, CheckActivities, CheckChain, CheckSealed, CheckInLog,
	}
}

// ParseTrust reads a trust file strictly; it may be indented.
func ParseTrust(b []byte) (*Trust, error) {
	var t Trust
	if err := canon.Decode(b, &t, canon.Limits{Bytes: exeq.MaxTrustBytes, Depth: 6}); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	if err := t.Validate(); err != nil {
		return nil, err
	}
	return &t, nil
}

// Encode gives the bytes of the trust file, indented for people.
func (t *Trust) Encode() ([]byte, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	b, err := canon.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}

// Validate refuses a trust file that could be read in two ways or that asks
// for what cannot be had.
func (t *Trust) Validate() error {
	_, err := t.Anchors()
	return err
}

// Learn takes a key leaf of the log that the trust file's owner runs into the
// file: when a key was added, retired or marked compromised, and keys that it
// does not name yet. Leaves are given in the order of the log.
func (t *Trust) Learn(l *exeq.Leaf, index int64) error {
	if l.Kind != exeq.KindKey {
		return fmt.Errorf("trust: a %s leaf tells of no key", l.Kind)
	}
	if l.Body.Role == exeq.RoleLog || l.Body.Role == exeq.RolePromise {
		return nil // these stand in Log and Promise
	}
	i := slices.IndexFunc(t.Keys, func(k Key) bool { return k.Role == l.Body.Role && k.PublicKey == l.Body.PublicKey })
	if i < 0 {
		i = len(t.Keys)
		t.Keys = append(t.Keys, Key{Role: l.Body.Role, PublicKey: l.Body.PublicKey, Added: index})
	}
	k := &t.Keys[i]
	switch l.Body.Event {
	case "add":
		if k.Added == 0 && k.Retired == nil && k.Compromised == nil {
			k.Added = index
		}
	case "retire":
		if k.Retired == nil {
			k.Retired = &index
		}
	case "compromised":
		if k.Compromised == nil {
			k.Compromised = &index
		}
	default:
		return fmt.Errorf("trust: %w: key event %.40q", exeq.ErrCannotTell, l.Body.Event)
	}
	return t.Validate()
}

// Anchors is a trust file made ready for use; key leaves change it (Apply). Not
// safe for concurrent use while they do.
type Anchors struct {
	origin  string
	log     note.Verifier
	promise note.Verifier
	quorum  *quorum
	// The same two keys as key leaves name them.
	logKey, promiseKey string
	keys               map[string]*lifetime // by role + key id
	require            map[string]bool
}

// Anchors makes the trust file ready for use or says what is wrong with it.
func (t *Trust) Anchors() (*Anchors, error) {
	if t.Version != 1 {
		return nil, fmt.Errorf("trust: %w: version %d", exeq.ErrCannotTell, t.Version)
	}
	a := &Anchors{origin: t.Origin, keys: map[string]*lifetime{}, require: map[string]bool{}}
	var err error
	if a.log, err = namedVerifier(t.Log, t.Origin); err != nil {
		return nil, fmt.Errorf("trust: log: %w", err)
	}
	if a.promise, err = namedVerifier(t.Promise, t.Origin+"/promise"); err != nil {
		return nil, fmt.Errorf("trust: promise: %w", err)
	}
	a.logKey, a.promiseKey = bareKey(t.Log), bareKey(t.Promise)
	for i, k := range t.Keys {
		pub, err := publicKey(k.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("trust: keys[%d]: %w", i, err)
		}
		if k.Role != exeq.RoleIssuer && k.Role != exeq.RoleNode && k.Role != exeq.RoleApprover {
			return nil, fmt.Errorf("trust: keys[%d]: role %q is not issuer, node or approver", i, k.Role)
		}
		id := k.Role + " " + exeq.KeyID(pub)
		if a.keys[id] != nil {
			return nil, fmt.Errorf("trust: keys[%d]: the same key twice in one role", i)
		}
		life := &lifetime{key: edtable.New(pub), added: k.Added, retired: never, compromised: never}
		if k.Retired != nil {
			life.retired = *k.Retired
		}
		if k.Compromised != nil {
			life.compromised = *k.Compromised
		}
		if life.added < 0 || life.retired < life.added || life.compromised < 0 {
			return nil, fmt.Errorf("trust: keys[%d]: indexes are out of order", i)
		}
		a.keys[id] = life
	}
	if a.quorum, err = parseWitnessPolicy(t.Witnesses); err != nil {
		return nil, fmt.Errorf("trust: witnesses: %w", err)
	}
	for i, c := range t.Require {
		if !slices.Contains(checks, c) {
			return nil, fmt.Errorf("trust: require[%d]: no check is named %.60q", i, c)
		}
		if a.require[c] {
			return nil, fmt.Errorf("trust: require[%d]: %q is named twice", i, c)
		}
		a.require[c] = true
	}
	if a.require[CheckWitnessed] && a.quorum.none() {
		return nil, fmt.Errorf("trust: require: %q needs a quorum under witnesses", CheckWitnessed)
	}
	return a, nil
}

func namedVerifier(vkey, name string) (note.Verifier, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("not a C2SP verifier key: %w", err)
	}
	if v.Name() != name {
		return nil, fmt.Errorf("the key is named %q, want %q", v.Name(), name)
	}
	return v, nil
}

// bareKey gives the public key, base64, of a valid C2SP verifier key: what
// follows the algorithm's byte.
func bareKey(vkey string) string {
	_, rest, _ := strings.Cut(vkey, "+") // name+hash+base64, which may hold a +
	_, key, _ := strings.Cut(rest, "+")
	b, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(b) == 0 {
		return ""
	}
	return base64.StdEncoding.EncodeToString(b[1:])
}

func publicKey(s string) (ed25519.PublicKey, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("a public key is base64 of %d bytes", ed25519.PublicKeySize)
	}
	return b, nil
}
