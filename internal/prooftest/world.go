// Package prooftest makes genuine executions for tests: real keys, permits
// that the issuer signed, decisions of the policy engine, leaves with salted
// commitments, promises, and a Merkle log with signed checkpoints. Tests bend
// the drafts before they are sealed, so that a forgery is as well signed as
// its forger could make it.
package prooftest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/permit"
	"github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/proof"
)

// World is one installation: keys, policy and log, with a clock of its own.
type World struct {
	TB       testing.TB
	Ring     *keyring.Ring
	Set      *policy.Set
	Issuer   *permit.Issuer
	Audience exeq.Audience
	Log      *Log
	Now      time.Time
	// Context are the key leaves and the policy activation.
	Context   []exeq.Entry
	Witnesses []*Witness
}

const cedar = `
@id("workspace-files")
permit (principal, action in [Exeq::Action::"read", Exeq::Action::"write"], resource)
when { resource in [context.workspace, context.tmp] };

@id("system-programs")
permit (principal, action in [Exeq::Action::"run", Exeq::Action::"exec"], resource)
when { resource in [Exeq::Path::"/usr/bin"] };
`

// New makes an installation whose log holds its key leaves and the activation
// of a small policy.
func New(t testing.TB) *World {
	t.Helper()
	ring, err := keyring.Create(t.TempDir())
	check(t, err)
	set, err := policy.Load(&policy.Source{Version: 1, Files: map[string]string{"test.cedar": cedar}})
	check(t, err)
	w := &World{
		TB: t, Ring: ring, Set: set, Now: time.Now().UTC().Truncate(time.Millisecond),
		Log:      NewLog(ring.NoteSigner(exeq.RoleLog)),
		Audience: exeq.Audience{Node: ring.Signer(exeq.RoleNode).KeyID(), BootID: "5c2f1f0e-8f3c-4be0-9a0a-7a1a0c9d8e11", Epoch: "7b0e9d1f22aa4c55"},
	}
	w.Issuer, err = permit.NewIssuer(permit.IssuerConfig{
		Key: ring.Signer(exeq.RoleIssuer), Audience: w.Audience,
		Checkpoint: func() string { return w.Log.Bound() }, Now: func() time.Time { return w.Now },
	})
	check(t, err)
	keys, err := ring.Leaves()
	check(t, err)
	activation, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindPolicy, Time: exeq.At(w.Now), Body: exeq.LeafBody{Event: "activate"}},
		map[string]any{"policySet": set.PolicySet()}, ring.Signer(exeq.RoleIssuer))
	check(t, err)
	w.Context = append(keys, activation)
	for _, e := range w.Context {
		w.Log.Append(e.Bytes)
	}
	return w
}

// Tick lets the clock of the world run on.
func (w *World) Tick(d time.Duration) exeq.Time {
	w.Now = w.Now.Add(d)
	return exeq.At(w.Now)
}

// Key leaves the issuer's word about a key in the log and in the context.
func (w *World) Key(role, event string, pub ed25519.PublicKey) exeq.Entry {
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindKey, Time: exeq.At(w.Now), Body: exeq.LeafBody{
		Role: role, Event: event, PublicKey: base64.StdEncoding.EncodeToString(pub),
	}}, nil, w.Ring.Signer(exeq.RoleIssuer))
	check(w.TB, err)
	w.Context = append(w.Context, e)
	w.Log.Append(e.Bytes)
	return e
}

// Trust is what `exeq trust export` would write for this installation.
func (w *World) Trust() *proof.Trust {
	t := &proof.Trust{
		Version: 1, Origin: w.Ring.Origin(), Log: w.Ring.VerifierKey(exeq.RoleLog), Promise: w.Ring.VerifierKey(exeq.RolePromise),
		Require: proof.DefaultRequire(),
	}
	for i, role := range keyring.Roles {
		if role == exeq.RoleIssuer || role == exeq.RoleNode {
			t.Keys = append(t.Keys, proof.Key{Role: role, PublicKey: base64.StdEncoding.EncodeToString(w.Ring.Public(role)), Added: int64(i)})
		}
	}
	if len(w.Witnesses) > 0 {
		var names []string
		for _, x := range w.Witnesses {
			t.Witnesses += "witness " + x.ID + " " + x.VKey() + "\n"
			names = append(names, x.ID)
		}
		t.Witnesses += "group all all " + strings.Join(names, " ") + "\nquorum all\n"
	}
	return t
}

// Replay is the policy engine as `exeq verify` injects it.
func Replay(source []byte, r *exeq.Request, in *exeq.Inputs) (exeq.Decision, error) {
	src, err := policy.DecodeSource(source)
	if err != nil {
		return exeq.Decision{}, err
	}
	set, err := policy.Load(src)
	if err != nil {
		return exeq.Decision{}, err
	}
	return set.Decide(context.Background(), r, in)
}

// Log is an append-only Merkle log in memory, by x/mod.
type Log struct {
	Leaves [][]byte
	hashes []tlog.Hash
	signer note.Signer
}

// NewLog makes an empty log whose origin is the signer's name.
func NewLog(s note.Signer) *Log { return &Log{signer: s} }

// Append adds a leaf and gives its index.
func (l *Log) Append(leaf []byte) int64 {
	n := int64(len(l.Leaves))
	hs, err := tlog.StoredHashes(n, leaf, l.reader())
	if err != nil {
		panic(err) // only if the reader fails, and it reads memory
	}
	l.Leaves, l.hashes = append(l.Leaves, leaf), append(l.hashes, hs...)
	return n
}

func (l *Log) reader() tlog.HashReaderFunc {
	return func(idx []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(idx))
		for i, x := range idx {
			out[i] = l.hashes[x]
		}
		return out, nil
	}
}

// Root is the root of the first n leaves.
func (l *Log) Root(n int64) tlog.Hash {
	if n == 0 {
		return tlog.Hash(sha256.Sum256(nil))
	}
	h, err := tlog.TreeHash(n, l.reader())
	if err != nil {
		panic(err)
	}
	return h
}

// Size is the number of leaves.
func (l *Log) Size() int64 { return int64(len(l.Leaves)) }

// Bound is the present tree head as a permit carries it.
func (l *Log) Bound() string {
	r := l.Root(l.Size())
	return fmt.Sprintf("%d:%s", l.Size(), hex.EncodeToString(r[:]))
}

// Checkpoint signs the tree head of size n, cosigned.
func (l *Log) Checkpoint(n int64, ws ...*Witness) []byte {
	text := fmt.Sprintf("%s\n%d\n%s\n", l.signer.Name(), n, l.Root(n))
	signers := []note.Signer{l.signer}
	for _, w := range ws {
		signers = append(signers, w)
	}
	b, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		panic(err)
	}
	return b
}

// Receipt proves leaf i in the tree of size n.
func (l *Log) Receipt(i, n int64, ws ...*Witness) string {
	p, err := tlog.ProveRecord(n, i, l.reader())
	if err != nil {
		panic(err)
	}
	return proof.FormatReceipt(i, digests(p), l.Checkpoint(n, ws...))
}

// Consistency proves that the tree of size older is a prefix of newer.
func (l *Log) Consistency(older, newer int64) []exeq.Digest {
	if older == 0 || older == newer {
		return nil
	}
	p, err := tlog.ProveTree(newer, older, l.reader())
	if err != nil {
		panic(err)
	}
	return digests(p)
}

// Find gives the index of a leaf by its bytes.
func (l *Log) Find(leaf []byte) int64 {
	for i, b := range l.Leaves {
		if string(b) == string(leaf) {
			return int64(i)
		}
	}
	return -1
}

// Write lays the log of size n out as C2SP tlog-tiles below dir.
func (l *Log) Write(dir string, n int64, ws ...*Witness) {
	put := func(name string, b []byte) {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o644)); err != nil {
			panic(err)
		}
	}
	level := make([]exeq.Digest, n)
	var entries []byte
	for i, b := range l.Leaves[:n] {
		level[i] = exeq.LeafHash(b)
		entries = append(binary.BigEndian.AppendUint16(entries, uint16(len(b))), b...)
		if i%256 == 255 || int64(i) == n-1 {
			put(tilePath("entries", i/256, i%256+1), entries)
			entries = nil
		}
	}
	for depth := 0; len(level) > 0; depth++ {
		var up []exeq.Digest
		for i := 0; i*256 < len(level); i++ {
			tile := level[i*256 : min(i*256+256, len(level))]
			var b []byte
			for _, h := range tile {
				b = append(b, h[:]...)
			}
			put(tilePath(strconv.Itoa(depth), i, len(tile)), b)
			if len(tile) == 256 {
				up = append(up, exeq.MerkleRoot(tile))
			}
		}
		level = up
	}
	put("checkpoint", l.Checkpoint(n, ws...))
}

func tilePath(level string, n, width int) string {
	p := fmt.Sprintf("tile/%s/%03d", level, n) // tests stay below 1,000 tiles
	if width < 256 {
		p += ".p/" + strconv.Itoa(width)
	}
	return p
}

func digests[H ~[32]byte](hs []H) []exeq.Digest {
	out := make([]exeq.Digest, len(hs))
	for i, h := range hs {
		out[i] = exeq.Digest(h)
	}
	return out
}

// Witness cosigns checkpoints by C2SP tlog-cosignature.
type Witness struct {
	ID   string
	Time int64 // seconds since the epoch
	key  ed25519.PrivateKey
}

// NewWitness makes a witness with a fresh key.
func NewWitness(name string) *Witness {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &Witness{ID: name, Time: 1795435200, key: key}
}

func (w *Witness) material() []byte {
	return append([]byte{4}, w.key.Public().(ed25519.PublicKey)...)
}

// VKey is the witness's C2SP verifier key.
func (w *Witness) VKey() string {
	return fmt.Sprintf("%s+%08x+%s", w.ID, w.KeyHash(), base64.StdEncoding.EncodeToString(w.material()))
}

// Name, KeyHash and Sign implement note.Signer.
func (w *Witness) Name() string { return w.ID }

// KeyHash is the first four bytes of the hash of name and key.
func (w *Witness) KeyHash() uint32 {
	sum := sha256.Sum256(append([]byte(w.ID+"\n"), w.material()...))
	return binary.BigEndian.Uint32(sum[:])
}

// Sign gives time and signature.
func (w *Witness) Sign(msg []byte) ([]byte, error) {
	m := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", w.Time, msg)
	return append(binary.BigEndian.AppendUint64(nil, uint64(w.Time)), ed25519.Sign(w.key, m)...), nil
}

func canonical(t testing.TB, v any) []byte {
	t.Helper()
	b, err := canon.Marshal(v)
	check(t, err)
	return b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
