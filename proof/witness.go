package proof

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// algCosignature is the key type of C2SP tlog-cosignature, Ed25519.
const algCosignature = 0x04

// maxWitnesses bounds the witnesses and groups of a policy.
const maxWitnesses = 256

// quorum is a C2SP witness policy: who must have cosigned a checkpoint.
type quorum struct {
	root      *component // nil: none
	verifiers []note.Verifier
}

// component is a witness (verifier set) or a group of them.
type component struct {
	name      string
	verifier  note.Verifier
	threshold int
	members   []*component
}

func (q *quorum) none() bool { return q == nil || q.root == nil }

// parseWitnessPolicy reads the lines log, witness, group and quorum. Log lines
// and the URLs of witnesses are for those who submit; they are not used here.
func parseWitnessPolicy(text string) (*quorum, error) {
	q := &quorum{}
	parts := map[string]*component{}
	keys := map[string]bool{}
	used := map[string]bool{}
	quorumName := ""
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(parts) > maxWitnesses {
			return nil, fmt.Errorf("line %d: more than %d witnesses and groups", i+1, maxWitnesses)
		}
		if (f[0] == "witness" || f[0] == "group") && len(f) > 2 && (parts[f[1]] != nil || f[1] == "none") {
			return nil, fmt.Errorf("line %d: the name %q is taken", i+1, f[1])
		}
		switch {
		case f[0] == "log" && len(f) >= 2:
		case f[0] == "witness" && (len(f) == 3 || len(f) == 4):
			v, err := newCosigner(f[2])
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			if _, id, _ := strings.Cut(f[2], "+"); keys[id] {
				return nil, fmt.Errorf("line %d: the same witness key twice", i+1)
			} else {
				keys[id] = true
			}
			parts[f[1]] = &component{name: f[1], verifier: v}
			q.verifiers = append(q.verifiers, v)
		case f[0] == "group" && len(f) >= 4:
			g, err := newGroup(f[1], f[2], f[3:], parts, used)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			parts[f[1]] = g
		case f[0] == "quorum" && len(f) == 2:
			if quorumName != "" {
				return nil, fmt.Errorf("line %d: a second quorum", i+1)
			}
			quorumName = f[1]
			if f[1] == "none" {
				continue
			}
			if q.root = parts[f[1]]; q.root == nil {
				return nil, fmt.Errorf("line %d: quorum %q is not defined", i+1, f[1])
			}
		default:
			return nil, fmt.Errorf("line %d: want log, witness, group or quorum with their arguments", i+1)
		}
	}
	if quorumName == "" && len(parts) > 0 {
		return nil, errors.New("no quorum line")
	}
	return q, nil
}

// newGroup makes a group; a member serves one group only, so that no witness
// is counted twice.
func newGroup(name, threshold string, members []string, parts map[string]*component, used map[string]bool) (*component, error) {
	g := &component{name: name}
	for _, m := range members {
		c := parts[m]
		if c == nil {
			return nil, fmt.Errorf("group %q: %q is not defined", name, m)
		}
		if used[m] {
			return nil, fmt.Errorf("group %q: %q is already in a group", name, m)
		}
		used[m] = true
		g.members = append(g.members, c)
	}
	switch threshold {
	case "any":
		g.threshold = 1
	case "all":
		g.threshold = len(g.members)
	default:
		n, err := strconv.Atoi(threshold)
		if err != nil || n < 1 || n > len(g.members) {
			return nil, fmt.Errorf("group %q: threshold %q is not any, all or 1–%d", name, threshold, len(g.members))
		}
		g.threshold = n
	}
	return g, nil
}

// met reports whether the verified signatures of a checkpoint make the quorum.
func (c *component) met(sigs []note.Signature) bool {
	if c.verifier != nil {
		for _, s := range sigs {
			if s.Name == c.verifier.Name() && s.Hash == c.verifier.KeyHash() {
				return true
			}
		}
		return false
	}
	n := 0
	for _, m := range c.members {
		if m.met(sigs) {
			n++
		}
	}
	return n >= c.threshold
}

// cosigner verifies C2SP cosignature/v1 signatures.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (*cosigner, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	hash16, key64, _ := strings.Cut(rest, "+")
	hash, err := strconv.ParseUint(hash16, 16, 32)
	key, err2 := base64.StdEncoding.Strict().DecodeString(key64)
	if err != nil || err2 != nil || len(hash16) != 8 || name == "" || len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignature {
		return nil, errors.New("not a C2SP verifier key of an Ed25519 witness (type 0x04)")
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	if binary.BigEndian.Uint32(sum[:]) != uint32(hash) {
		return nil, errors.New("the witness key's id does not match the key")
	}
	return &cosigner{name, uint32(hash), key[1:]}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

// Verify takes 8 bytes of time (seconds, big-endian) and the signature over
// "cosignature/v1\ntime <time>\n" and the checkpoint.
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	t := binary.BigEndian.Uint64(sig)
	m := append([]byte("cosignature/v1\ntime "+strconv.FormatUint(t, 10)+"\n"), msg...)
	return ed25519.Verify(c.key, m, sig[8:])
}
