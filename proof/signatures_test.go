package proof_test

import (
	"bytes"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/internal/prooftest"
	"github.com/exeq/exeq/proof"
)

// as signs under the name of a key that it does not hold.
type as struct {
	key  string
	sign func(message []byte) []byte
}

func (a as) KeyID() string        { return a.key }
func (a as) Sign(m []byte) []byte { return a.sign(m) }

// node gives a signer under the node's name.
func node(w *prooftest.World, sign func([]byte) []byte) exeq.Signer {
	return as{w.Ring.Signer(exeq.RoleNode).KeyID(), sign}
}

// The leaves between start and end, whose hashes the end's genuine signature
// covers: it must not stand for theirs. That is what a store gives that
// somebody wrote to before an execution was sealed by whoever found it lost.
var signatureForgeries = []forgery{
	{name: "garbage for a signature in the middle", plan: func(w *prooftest.World, p *prooftest.Plan) {
		p.Drafts[3].Signer = node(w, func([]byte) []byte { return bytes.Repeat([]byte{7}, 64) })
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 3: the activity leaf's signature does not verify"},
	{name: "no signature in the middle", plan: func(w *prooftest.World, p *prooftest.Plan) {
		p.Drafts[3].Signer = node(w, func([]byte) []byte { return nil })
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 3: the activity leaf's signature does not verify"},
	{name: "a stranger's signature in the middle, under the node's name", plan: func(w *prooftest.World, p *prooftest.Plan) {
		s, _ := newKey()
		p.Drafts[3].Signer = node(w, s.Sign)
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 3: the activity leaf's signature does not verify"},
	{name: "the issuer's signature in the middle, under the node's name", plan: func(w *prooftest.World, p *prooftest.Plan) {
		p.Drafts[3].Signer = node(w, w.Ring.Signer(exeq.RoleIssuer).Sign)
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 3: the activity leaf's signature does not verify"},
	{name: "the issuer's signature in the middle, under its own name", plan: func(w *prooftest.World, p *prooftest.Plan) {
		p.Drafts[3].Signer = w.Ring.Signer(exeq.RoleIssuer)
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 3 is signed by another node"},
	{name: "the node's signature of something else in the middle", plan: func(w *prooftest.World, p *prooftest.Plan) {
		key := w.Ring.Signer(exeq.RoleNode)
		p.Drafts[3].Signer = node(w, func(m []byte) []byte { return key.Sign(append(bytes.Clone(m), ' ')) })
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 3: the activity leaf's signature does not verify"},
	{name: "a denial made an allowance in the store, then sealed as lost by the node", plan: func(w *prooftest.World, p *prooftest.Plan) {
		key := w.Ring.Signer(exeq.RoleNode)
		i := at(p, exeq.KindActivity) + 1
		p.Drafts[i].Leaf.Body.Verdict = ""
		p.Drafts[i].Signer = node(w, func(m []byte) []byte {
			// What the node signed before the leaf was written to.
			return key.Sign(bytes.Replace(m, []byte(`"root":`), []byte(`"verdict":"deny","root":`), 1))
		})
		p.Drafts = append(p.Drafts[:i+1], p.Drafts[len(p.Drafts)-1])
		p.Drafts[i+1].Leaf.Body = exeq.LeafBody{Code: "lost"}
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 3: the activity leaf's signature does not verify"},
	{name: "the first leaf behind the permit is not signed by its key", plan: func(w *prooftest.World, p *prooftest.Plan) {
		s, _ := newKey()
		p.Drafts[1].Signer = node(w, s.Sign)
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 1: the start leaf's signature does not verify"},
	{name: "a revocation in the middle by the node, not the issuer", plan: func(w *prooftest.World, p *prooftest.Plan) {
		p.Drafts[4].Leaf.Kind, p.Drafts[4].Leaf.Body, p.Drafts[4].Private = exeq.KindRevoke, exeq.LeafBody{Code: "revoked"}, nil
	}, check: proof.CheckChain, status: proof.Failed, words: "not trusted as issuer"},
	{name: "leaf in the middle altered", bundle: func(w *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		alter(w.TB, p, 3, `"verdict":"deny"`, `"verdict":"allow"`)
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 4 does not follow"},
	{name: "signature in the middle altered", bundle: func(w *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		alter(w.TB, p, 3, `"sig":"`, `"sig":"AAAA`)
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 4 does not follow"},
	{name: "last leaf altered", bundle: func(w *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		alter(w.TB, p, len(p.Leaves)-1, `"code":"exited"`, `"code":"killed"`)
	}, check: proof.CheckChain, status: proof.Failed, words: "the end leaf's signature does not verify"},
	{name: "last leaf altered, its place in the log", bundle: func(w *prooftest.World, r *prooftest.Run, p *proof.Proof) {
		alter(w.TB, p, len(p.Leaves)-1, `"code":"exited"`, `"code":"killed"`)
	}, check: proof.CheckInLog, status: proof.Failed, words: "not at that index"},
	{name: "no leaf, but the activation of a policy set", bundle: func(_ *prooftest.World, _ *prooftest.Run, p *proof.Proof) {
		p.Leaves = []string{}
	}, check: proof.CheckChain, status: proof.Failed, words: "no leaf of the execution"},
	{name: "another actor in the middle", plan: func(_ *prooftest.World, p *prooftest.Plan) {
		p.Drafts[3].Leaf.Actor = "beef"
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 3 names another parent or actor"},
	{name: "a second node's key from the middle on", plan: func(w *prooftest.World, p *prooftest.Plan) {
		s, pub := newKey()
		w.Key(exeq.RoleNode, keyring.EventAdd, pub)
		for i := 4; i < len(p.Drafts); i++ {
			p.Drafts[i].Signer = s
		}
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 4 is signed by another node"},
	{name: "a second node's key for one leaf in the middle", plan: func(w *prooftest.World, p *prooftest.Plan) {
		s, pub := newKey()
		w.Key(exeq.RoleNode, keyring.EventAdd, pub)
		p.Drafts[3].Signer = s
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 3 is signed by another node"},
	{name: "node key retired in the middle", plan: func(w *prooftest.World, p *prooftest.Plan) {
		p.Drafts[3].Before = func() { w.Key(exeq.RoleNode, keyring.EventRetire, w.Ring.Public(exeq.RoleNode)) }
	}, check: proof.CheckChain, status: proof.Failed, words: "was retired at index 8"},
	{name: "node key compromised before the end", plan: func(w *prooftest.World, p *prooftest.Plan) {
		p.Drafts[len(p.Drafts)-1].Before = func() {
			w.Key(exeq.RoleNode, keyring.EventCompromised, w.Ring.Public(exeq.RoleNode))
		}
	}, check: proof.CheckChain, status: proof.Failed, words: "was marked compromised at index 11"},
	{name: "node key rotated in the middle, each leaf by the key of its time", plan: func(w *prooftest.World, p *prooftest.Plan) {
		s, pub := newKey()
		p.Drafts[4].Before = func() {
			w.Key(exeq.RoleNode, keyring.EventRetire, w.Ring.Public(exeq.RoleNode))
			w.Key(exeq.RoleNode, keyring.EventAdd, pub)
		}
		for i := 4; i < len(p.Drafts); i++ {
			p.Drafts[i].Signer = s
		}
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 4 is signed by another node"},
}

// What a check of many signatures at once could get wrong, in an execution so
// long that its node's signatures are verified by tables (package edtable).
var longForgeries = []forgery{
	{name: "two errors that add up to none", plan: func(w *prooftest.World, p *prooftest.Plan) {
		key := w.Ring.Signer(exeq.RoleNode)
		p.Drafts[5].Signer = node(w, func(m []byte) []byte { return plus(key.Sign(m), 1) })
		p.Drafts[6].Signer = node(w, func(m []byte) []byte { return plus(key.Sign(m), -1) })
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 5: the activity leaf's signature does not verify"},
	{name: "the signature of the leaf before", plan: func(w *prooftest.World, p *prooftest.Plan) {
		key, before := w.Ring.Signer(exeq.RoleNode), []byte(nil)
		p.Drafts[12].Signer = node(w, func(m []byte) []byte { before = key.Sign(m); return before })
		p.Drafts[13].Signer = node(w, func([]byte) []byte { return before })
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 13: the activity leaf's signature does not verify"},
	{name: "R of the leaf before", plan: func(w *prooftest.World, p *prooftest.Plan) {
		key, before := w.Ring.Signer(exeq.RoleNode), []byte(nil)
		p.Drafts[12].Signer = node(w, func(m []byte) []byte { before = key.Sign(m); return before })
		p.Drafts[13].Signer = node(w, func(m []byte) []byte { return append(bytes.Clone(before[:32]), key.Sign(m)[32:]...) })
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 13: the activity leaf's signature does not verify"},
	{name: "S of the leaf before", plan: func(w *prooftest.World, p *prooftest.Plan) {
		key, before := w.Ring.Signer(exeq.RoleNode), []byte(nil)
		p.Drafts[12].Signer = node(w, func(m []byte) []byte { before = key.Sign(m); return before })
		p.Drafts[13].Signer = node(w, func(m []byte) []byte { return append(key.Sign(m)[:32], before[32:]...) })
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 13: the activity leaf's signature does not verify"},
	{name: "S and the order of the base point", plan: func(w *prooftest.World, p *prooftest.Plan) {
		key := w.Ring.Signer(exeq.RoleNode)
		p.Drafts[9].Signer = node(w, func(m []byte) []byte {
			sig := key.Sign(m)
			s := fromLittle(sig[32:])
			return append(sig[:32], toLittle(s.Add(s, order))...)
		})
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 9: the activity leaf's signature does not verify"},
	{name: "a signature of another key", plan: func(w *prooftest.World, p *prooftest.Plan) {
		s, _ := newKey()
		p.Drafts[20].Signer = node(w, s.Sign)
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 20: the activity leaf's signature does not verify"},
	{name: "all by another key", plan: func(w *prooftest.World, p *prooftest.Plan) {
		s, _ := newKey()
		for i := range p.Drafts[1:] {
			p.Drafts[i+1].Signer = node(w, s.Sign)
		}
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 1: the start leaf's signature does not verify"},
	{name: "two that are wrong: the first is named", plan: func(w *prooftest.World, p *prooftest.Plan) {
		for _, i := range []int{23, 7} {
			p.Drafts[i].Signer = node(w, func([]byte) []byte { return make([]byte, 64) })
		}
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 7: the activity leaf's signature does not verify"},
	{name: "S is too short", plan: func(w *prooftest.World, p *prooftest.Plan) {
		key := w.Ring.Signer(exeq.RoleNode)
		p.Drafts[9].Signer = node(w, func(m []byte) []byte { return key.Sign(m)[:63] })
	}, check: proof.CheckChain, status: proof.Failed, words: "leaf 9: the activity leaf's signature does not verify"},
}

// long repeats an activity, so that the plan has 30 leaves.
func long(p *prooftest.Plan) {
	i := at(p, exeq.KindActivity)
	for len(p.Drafts) < 30 {
		p.Drafts = slices.Insert(p.Drafts, i, p.Drafts[i])
	}
}

func TestLongForgeries(t *testing.T) {
	genuine := forgery{plan: func(*prooftest.World, *prooftest.Plan) {}, verdict: proof.Valid,
		check: proof.CheckChain, status: proof.Proved, words: "number of leaves: 30"}
	for _, f := range append(longForgeries, genuine) {
		bend := f.plan
		f.plan = func(w *prooftest.World, p *prooftest.Plan) { long(p); bend(w, p) }
		t.Run(f.name, f.test)
	}
}

// order is that of Ed25519's base point, 2^252 + 27742317777372353535851937790883648493.
var order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

// plus adds to a signature's S.
func plus(sig []byte, n int64) []byte {
	s := fromLittle(sig[32:])
	s.Add(s, big.NewInt(n)).Mod(s, order)
	return append(bytes.Clone(sig[:32]), toLittle(s)...)
}

func fromLittle(b []byte) *big.Int {
	b = bytes.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

func toLittle(s *big.Int) []byte {
	b := s.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return b
}

// alter edits a leaf of a proof and leaves all else as it is.
func alter(t testing.TB, p *proof.Proof, i int, from, to string) {
	t.Helper()
	was := p.Leaves[i]
	if p.Leaves[i] = strings.Replace(was, from, to, 1); p.Leaves[i] == was {
		t.Fatalf("leaf %d has no %s: %s", i, from, was)
	}
}

func TestSignatureForgeries(t *testing.T) {
	for _, f := range signatureForgeries {
		t.Run(f.name, f.test)
	}
}

// A key that is retired or marked compromised once the execution is sealed
// leaves its proof as it was.
func TestKeyEventsAfterTheEnd(t *testing.T) {
	for _, event := range []string{keyring.EventRetire, keyring.EventCompromised} {
		w := prooftest.New(t)
		run := w.Seal(w.Plan())
		w.Key(exeq.RoleNode, event, w.Ring.Public(exeq.RoleNode))
		if r := verify(t, w.Bundle(run), w.Trust()); r.Verdict != proof.Valid {
			t.Errorf("%s after the end:\n%s", event, r.Text())
		}
	}
}
