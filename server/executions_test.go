package server_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api"
	"github.com/exeq/exeq/client"
)

// node is an enforcement point that holds a key and speaks for itself.
type node struct {
	*client.Client
	key ed25519.PrivateKey
}

func (n *node) KeyID() string              { return exeq.KeyID(n.key.Public().(ed25519.PublicKey)) }
func (n *node) Sign(message []byte) []byte { return ed25519.Sign(n.key, message) }

// newNode makes one that asks p's server.
func newNode(p *point) *node {
	p.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	ca := filepath.Join(p.t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pemOf(p.at.Certificate().Raw), 0o600); err != nil {
		p.t.Fatal(err)
	}
	c, err := client.New(client.Config{URL: p.at.URL, CAFile: ca, Token: token})
	if err != nil {
		p.t.Fatal(err)
	}
	return &node{c, key}
}

// ask is a question that the starter policy answers with a permit.
func (n *node) ask() *api.Ask {
	return &api.Ask{
		Audience: exeq.Audience{Node: n.KeyID(), BootID: "boot", Epoch: "epoch"},
		Key:      n.key.Public().(ed25519.PublicKey), Request: asked("/usr/bin/true"), Tier: exeq.TierRootless,
	}
}

// permitted is an execution before its start.
func (n *node) permitted(t *testing.T) *api.Answer {
	t.Helper()
	a, err := n.Authorize(t.Context(), n.ask())
	if err != nil || a.Permit == nil {
		t.Fatalf("no permit: %v %+v", err, a)
	}
	return a
}

// next makes the leaf behind another.
func next(t *testing.T, prev []byte, kind exeq.Kind, by exeq.Signer) exeq.Entry {
	t.Helper()
	last, err := exeq.ParseLeaf(prev)
	if err != nil {
		t.Fatal(err)
	}
	l := exeq.Leaf{Kind: kind, Execution: last.Execution, Actor: last.Actor, Seq: last.Seq + 1, Prev: exeq.LeafHash(prev)}
	if kind == exeq.KindEnd || kind == exeq.KindRevoke {
		l.Body.Code = "exited"
	}
	e, err := exeq.NewEntry(l, map[string]any{"note": "of the test"}, by)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func leaves(entries ...exeq.Entry) *api.Leaves {
	l := &api.Leaves{}
	for _, e := range entries {
		l.Entries = append(l.Entries, api.Entry{Leaf: e.Bytes, Disclosures: e.Disclosures})
	}
	return l
}

// answers requires an error of the server with a status and words.
func answers(t *testing.T, what string, err error, status int, words string) {
	t.Helper()
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != status || !strings.Contains(e.Words, words) {
		t.Errorf("%s: %v, want %d and %q", what, err, status, words)
	}
}

// TestChain: only the permit's own audience continues an execution's chain, only
// where it ends, and not beyond its end.
func TestChain(t *testing.T) {
	p := serve(t)
	mine, other := newNode(p), newNode(p)
	a, b := mine.permitted(t), other.permitted(t)
	start := next(t, a.Record.Leaf, exeq.KindStart, mine)
	skipped := next(t, next(t, a.Record.Leaf, exeq.KindStart, mine).Bytes, exeq.KindActivity, mine)
	altered := leaves(start)
	altered.Entries[0].Disclosures = []exeq.Disclosure{{Leaf: start.Leaf.ID, Field: "note", Salt: strings.Repeat("0", 32), Value: json.RawMessage(`"another"`)}}
	for _, c := range []struct {
		what   string
		send   *api.Leaves
		status int
		words  string
	}{
		{"nothing", &api.Leaves{}, 400, "entries"},
		{"no leaf", &api.Leaves{Entries: []api.Entry{{Leaf: []byte("{}")}}}, 400, "leaf"},
		{"another's signature", leaves(next(t, a.Record.Leaf, exeq.KindStart, other)), 403, "not signed"},
		{"a gap", leaves(skipped), 403, "does not continue"},
		{"a second beginning", leaves(next(t, b.Record.Leaf, exeq.KindStart, mine)), 403, "not signed"},
		{"another execution behind it", leaves(start, next(t, b.Record.Leaf, exeq.KindStart, other)), 400, "another execution"},
		{"a permit of one's own", leaves(next(t, a.Record.Leaf, exeq.KindPermit, mine)), 403, "not an execution's to write"},
		{"a policy", leaves(next(t, a.Record.Leaf, exeq.KindPolicy, mine)), 403, "not an execution's to write"},
		{"a key", leaves(next(t, a.Record.Leaf, exeq.KindKey, mine)), 403, "not an execution's to write"},
		{"a revocation signed by the node", leaves(next(t, a.Record.Leaf, exeq.KindRevoke, mine)), 403, "not signed"},
		{"a disclosure of something else", altered, 400, "does not open"},
		{"a commitment that is not opened", &api.Leaves{Entries: []api.Entry{{Leaf: start.Bytes}}}, 400, "not opened"},
	} {
		_, err := mine.Record(t.Context(), c.send)
		answers(t, c.what, err, c.status, c.words)
	}
	if _, err := mine.Record(t.Context(), leaves(start)); err != nil {
		t.Fatalf("the start: %v", err)
	}
	_, err := mine.Record(t.Context(), leaves(start))
	answers(t, "the start again", err, 403, "does not continue")
	end := next(t, start.Bytes, exeq.KindEnd, mine)
	if _, err := mine.Record(t.Context(), leaves(next(t, start.Bytes, exeq.KindActivity, mine), end)); err == nil {
		t.Error("a fork was taken")
	}
	if _, err := mine.Record(t.Context(), leaves(end)); err != nil {
		t.Fatalf("the end: %v", err)
	}
	_, err = mine.Record(t.Context(), leaves(next(t, end.Bytes, exeq.KindActivity, mine)))
	answers(t, "behind the end", err, 403, "end of the execution")
	if err := p.inst.Store.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.inst.Store.Fsck(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestIssuersName: the issuer signs the end of trust in an execution that runs, and
// nothing else that somebody puts before it.
func TestIssuersName(t *testing.T) {
	p := serve(t)
	n := newNode(p)
	a := n.permitted(t)
	keys, err := n.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	as := issuerOf{n, t.Context(), exeq.KeyID(keys.Issuer)}
	message := func(kind exeq.Kind) []byte {
		e := next(t, a.Record.Leaf, kind, as.unsigned())
		b, err := e.Leaf.Signable()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	renewal, err := exeq.Renewal{Permit: a.Execution, Sequence: 1, Challenge: "x", Millis: 3000}.Signable()
	if err != nil {
		t.Fatal(err)
	}
	revocation, err := exeq.Revocation{Permit: a.Execution, Reason: "x"}.Signable()
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		message []byte
		status  int
	}{
		"a permit": {a.Permit, 400}, "a renewal": {renewal, 400}, "a revocation itself": {revocation, 400}, "nothing": {nil, 400},
		"an end": {message(exeq.KindEnd), 403}, "a start": {message(exeq.KindStart), 403}, "a policy": {message(exeq.KindPolicy), 403}, "a key": {message(exeq.KindKey), 403},
	} {
		_, err := n.Client.Sign(t.Context(), &api.Sign{Message: c.message})
		answers(t, what, err, c.status, "")
	}
	start := next(t, a.Record.Leaf, exeq.KindStart, n)
	revoke := next(t, start.Bytes, exeq.KindRevoke, as)
	if _, err := n.Record(t.Context(), leaves(start, revoke)); err != nil {
		t.Errorf("a revocation that the issuer signed: %v", err)
	}
}

// issuerOf signs by asking the server.
type issuerOf struct {
	*node
	ctx context.Context
	id  string
}

func (i issuerOf) KeyID() string { return i.id }
func (i issuerOf) Sign(message []byte) []byte {
	s, err := i.Client.Sign(i.ctx, &api.Sign{Message: message})
	if err != nil {
		return nil
	}
	return s.Signature
}

// unsigned has the issuer's name and no signature.
func (i issuerOf) unsigned() exeq.Signer { return noSignature(i.id) }

type noSignature string

func (n noSignature) KeyID() string      { return string(n) }
func (n noSignature) Sign([]byte) []byte { return nil }

// TestLease: a lease goes on until the execution is revoked or over, for what the
// server permitted alone.
func TestLease(t *testing.T) {
	p := serve(t)
	n := newNode(p)
	renew := func(id string, millis int64) error {
		_, err := n.Renew(t.Context(), &api.Renew{Permit: id, Sequence: 1, Challenge: "c", Millis: millis})
		return err
	}
	a, b := n.permitted(t), n.permitted(t)
	if err := renew(a.Execution, 3000); err != nil {
		t.Errorf("a renewal: %v", err)
	}
	answers(t, "a longer lease than the permit's", renew(a.Execution, 60_000), 400, "lease")
	answers(t, "a permit of nobody", renew(exeq.NewID(), 3000), 404, "no such execution")
	answers(t, "no id at all", renew("../../keys", 3000), 404, "no such execution")
	waiting := make(chan error, 1)
	go func() {
		v, err := n.Revocation(t.Context(), a.Execution)
		if err == nil && (v == nil || v.Permit != a.Execution) {
			err = errors.New("not the revocation")
		}
		waiting <- err
	}()
	if _, err := p.inst.Revoke(t.Context(), a.Execution, "of the test"); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Errorf("the revocation did not reach who waited for it: %v", err)
	}
	answers(t, "after the revocation", renew(a.Execution, 3000), 403, "revoked")
	start := next(t, b.Record.Leaf, exeq.KindStart, n)
	if _, err := n.Record(t.Context(), leaves(start, next(t, start.Bytes, exeq.KindEnd, n))); err != nil {
		t.Fatal(err)
	}
	answers(t, "after the end", renew(b.Execution, 3000), 403, "end of its execution")
}

// TestAsk: whoever is not what it says gets no permit, and what is no start yields
// none.
func TestAsk(t *testing.T) {
	p := serve(t)
	n, other := newNode(p), newNode(p)
	for what, change := range map[string]func(*api.Ask){
		"another's name": func(a *api.Ask) { a.Audience.Node = other.KeyID() },
		"no key":         func(a *api.Ask) { a.Key = nil },
		"no boot id":     func(a *api.Ask) { a.Audience.BootID = "" },
		"no epoch":       func(a *api.Ask) { a.Audience.Epoch = "" },
		"no request":     func(a *api.Ask) { a.Request = nil },
		"no start":       func(a *api.Ask) { a.Request.Action = exeq.ActionExec },
		"a dirty path":   func(a *api.Ask) { a.Request.Resource.ID = "/usr/bin/../bin/true" },
	} {
		a := n.ask()
		change(a)
		_, err := n.Authorize(t.Context(), a)
		answers(t, what, err, 400, "")
	}
	a := n.ask()
	a.Request.Resource.ID = "/home/dev/.ssh/evil"
	got, err := n.Authorize(t.Context(), a)
	if err != nil || got.Permit != nil || got.Decision.Verdict != exeq.Deny || got.Reason == "" {
		t.Errorf("a program that the policy does not permit: %v %+v", err, got)
	}
	p.onRecord(got.Execution, exeq.KindDenial)
	if n := p.leaves(exeq.KindPermit); n != 0 {
		t.Errorf("%d permits are on record", n)
	}
	for _, path := range []string{api.PathAuthorize, api.PathRecord, api.PathSign, api.PathRenew} {
		if status, _, answer := p.send(path, "{}", func(r *http.Request) { r.Header.Del("Authorization") }); status != 401 {
			t.Errorf("%s without token: %d %s", path, status, answer)
		}
		if status, _, answer := p.send(path, `{"more":1}`, nil); status != 400 {
			t.Errorf("%s with a member too many: %d %s", path, status, answer)
		}
	}
	for _, path := range []string{api.PathKeys, api.PathPolicy, api.PathTrust, "/v1/executions/x/proof", "/v1/executions/x/revocation"} {
		resp, err := p.at.Client().Get(p.at.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 401 {
			t.Errorf("GET %s without token: %d", path, resp.StatusCode)
		}
	}
}

// TestNotTheServersOwn: what runs at the server itself is nobody's to renew, end or
// continue over the network.
func TestNotTheServersOwn(t *testing.T) {
	p := serve(t)
	n := newNode(p)
	own, err := p.inst.Authorize(t.Context(), p.inst.Here().Audience, asked("/usr/bin/true"), exeq.Inputs{Tier: exeq.TierRootless, Time: exeq.At(time.Now()), Session: exeq.Session{Labels: []string{}}})
	if err != nil {
		t.Fatal(err)
	}
	const words = "runs at the server itself"
	_, err = n.Renew(t.Context(), &api.Renew{Permit: own.ID, Sequence: 1, Challenge: "c", Millis: 3000})
	answers(t, "a renewal", err, 403, words)
	revoke := next(t, own.Record.Leaf, exeq.KindRevoke, p.inst.Keys.Signer(exeq.RoleIssuer))
	message, err := revoke.Leaf.Signable()
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Client.Sign(t.Context(), &api.Sign{Message: message})
	answers(t, "a signature", err, 403, words)
	_, err = n.Record(t.Context(), leaves(revoke))
	answers(t, "a leaf", err, 403, words)
}
