package permit

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/internal/keyring"
)

// burnt is a Burner in memory.
type burnt struct {
	mu   sync.Mutex
	seen map[string]bool
	err  error
	hook func()
}

func (b *burnt) Burn(_ context.Context, permit, nonce string, _ exeq.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hook != nil {
		b.hook()
	}
	if b.err != nil {
		return b.err
	}
	if b.seen[permit] {
		return exeq.ErrReplayed
	}
	b.seen[permit] = true
	return nil
}

// testKeys is one key set for every test that needs no file of its own.
var testKeys = sync.OnceValues(func() (*keyring.Ring, error) {
	dir, err := os.MkdirTemp("", "exeq-permit")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return keyring.Create(dir)
})

// fixture is one issuing and one admitting side with a clock of their own.
type fixture struct {
	t        testing.TB
	keys     *keyring.Ring
	now      time.Time
	audience exeq.Audience
	issuer   *Issuer
	admitter *Admitter
	burner   *burnt

	request *exeq.Request
	inputs  *exeq.Inputs
	decided *exeq.Decision
	rights  *exeq.Rights
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	keys, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, keys: keys, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), burner: &burnt{seen: map[string]bool{}}}
	f.audience = exeq.Audience{Node: keys.Signer(exeq.RoleNode).KeyID(), BootID: "boot", Epoch: "epoch"}
	clock := func() time.Time { return f.now }
	if f.issuer, err = NewIssuer(IssuerConfig{Key: keys.Signer(exeq.RoleIssuer), Audience: f.audience, Now: clock}); err != nil {
		t.Fatal(err)
	}
	f.admitter, err = NewAdmitter(AdmitterConfig{
		Issuer: keys.Public(exeq.RoleIssuer), Promise: keys.NoteVerifier(exeq.RolePromise),
		Audience: f.audience, Tier: exeq.TierRootless, Burner: f.burner, Now: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.request = &exeq.Request{
		Subject: exeq.Entity{Type: "Agent", ID: "coder"}, OnBehalfOf: []exeq.Entity{{Type: "User", ID: "ada"}}, Action: exeq.ActionRun,
		Resource: exeq.Resource{Type: "Program", ID: "/usr/bin/go", SHA256: exeq.Digest{1}},
		Argv:     []string{"go", "test"}, Dir: "/w",
		Context: exeq.Context{Workspace: "/w", Home: "/home/ada", Tmp: "/tmp/x", Command: "go test"},
	}
	f.inputs = &exeq.Inputs{Tier: exeq.TierRootless, Session: exeq.Session{Labels: []string{}}, Time: exeq.At(f.now)}
	f.decided = &exeq.Decision{Verdict: exeq.Allow, Policies: []string{"a", "b"}, PolicySet: exeq.Digest{2}}
	f.rights = &exeq.Rights{Version: 1, Cells: []exeq.Cell{{Path: "/", Under: exeq.Access{Read: true}}}, TierFloor: exeq.TierNested}
	return f
}

func (f *fixture) issue() *exeq.Permit {
	f.t.Helper()
	p, err := f.issuer.Issue(exeq.NewID(), f.request, f.inputs, f.decided, f.rights, "")
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// record makes the leaf of a permit and promises it as one of a batch of three.
func (f *fixture) record(p *exeq.Permit) *exeq.PermitRecord {
	f.t.Helper()
	e, err := exeq.NewEntry(exeq.Leaf{
		Kind: exeq.KindPermit, Execution: p.Body.ID, Time: exeq.At(f.now),
		Body: exeq.LeafBody{Verdict: f.decided.Verdict, Policies: p.Body.Policies},
	}, map[string]any{"permit": string(p.Envelope), "rights": p.Body.RightsDigest}, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.promised(e)
}

func (f *fixture) promised(e exeq.Entry) *exeq.PermitRecord {
	f.t.Helper()
	hashes := []exeq.Digest{{1}, exeq.LeafHash(e.Bytes), {3}}
	root := exeq.MerkleRoot(hashes)
	left := exeq.Digest(sha256.Sum256(append(append([]byte{1}, hashes[0][:]...), hashes[1][:]...)))
	if exeq.Digest(sha256.Sum256(append(append([]byte{1}, left[:]...), hashes[2][:]...))) != root {
		f.t.Fatal("the batch's tree is not RFC 6962's")
	}
	on := &exeq.PermitRecord{Leaf: e.Bytes, Promise: exeq.Promise{
		Note:  f.note(exeq.RolePromise, fmt.Sprintf("%s/promise\n3\n%s\ntime %d\n", f.keys.Origin(), base64.StdEncoding.EncodeToString(root[:]), f.now.UnixMilli())),
		Index: 1, Path: []exeq.Digest{hashes[0], hashes[2]},
	}}
	for _, d := range e.Disclosures {
		if d.Field == "permit" {
			on.Permit = d
		}
	}
	return on
}

func (f *fixture) note(role, text string) string {
	f.t.Helper()
	b, err := note.Sign(&note.Note{Text: text}, f.keys.NoteSigner(role))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func (f *fixture) admit(p *exeq.Permit, on *exeq.PermitRecord) error {
	return f.admitter.Admit(context.Background(), p, on, f.request, f.rights)
}

// resign signs what changed about a permit, as an issuer that misbehaves would.
func (f *fixture) resign(p *exeq.Permit, change func(*exeq.PermitBody)) *exeq.Permit {
	f.t.Helper()
	body := p.Body
	change(&body)
	q, err := f.issuer.sign(p.Action, body)
	if err != nil {
		f.t.Fatal(err)
	}
	return q
}

func TestAdmitOnce(t *testing.T) {
	f := newFixture(t)
	p := f.issue()
	on := f.record(p)
	if err := f.admit(p, on); err != nil {
		t.Fatal(err)
	}
	err := f.admit(p, on)
	if !errors.Is(err, ErrUsed) || !errors.Is(err, exeq.ErrReplayed) || !errors.Is(err, exeq.ErrPermit) {
		t.Errorf("a second use: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	type given struct {
		f  *fixture
		p  *exeq.Permit
		on *exeq.PermitRecord
	}
	// reissue replaces the permit by a changed and newly signed one, on record.
	reissue := func(change func(*exeq.PermitBody)) func(*given) {
		return func(g *given) {
			g.p = g.f.resign(g.p, change)
			g.on = g.f.record(g.p)
		}
	}
	// leaf replaces the record's leaf.
	leaf := func(change func(*exeq.Leaf, map[string]any)) func(*given) {
		return func(g *given) {
			l := exeq.Leaf{Kind: exeq.KindPermit, Execution: g.p.Body.ID, Body: exeq.LeafBody{Verdict: exeq.Allow, Policies: g.p.Body.Policies}}
			private := map[string]any{"permit": string(g.p.Envelope)}
			change(&l, private)
			e, err := exeq.NewEntry(l, private, nil)
			if err != nil {
				g.f.t.Fatal(err)
			}
			g.on = g.f.promised(e)
		}
	}
	promise := func(role, format string) func(*given) {
		return func(g *given) {
			h := exeq.LeafHash(g.on.Leaf)
			text := strings.NewReplacer("ORIGIN", g.f.keys.Origin(), "ROOT", base64.StdEncoding.EncodeToString(h[:]), "NOW", fmt.Sprint(g.f.now.UnixMilli())).Replace(format)
			g.on.Promise = exeq.Promise{Note: g.f.note(role, text)}
		}
	}
	envelope := func(change func(*exeq.Envelope)) func(*given) {
		return func(g *given) {
			var e exeq.Envelope
			if err := json.Unmarshal(g.p.Envelope, &e); err != nil {
				g.f.t.Fatal(err)
			}
			change(&e)
			b, err := json.Marshal(e)
			if err != nil {
				g.f.t.Fatal(err)
			}
			q := *g.p
			q.Envelope = b
			g.p, g.on = &q, g.f.record(&q)
		}
	}
	for name, c := range map[string]struct {
		change func(*given)
		want   error
	}{
		"no record":                {func(g *given) { g.on = nil }, ErrMalformed},
		"no permit":                {func(g *given) { g.p = nil }, ErrMalformed},
		"envelope is not JSON":     {func(g *given) { q := *g.p; q.Envelope = []byte("{"); g.p = &q }, ErrMalformed},
		"struct says more":         {func(g *given) { q := *g.p; q.Body.LeaseMillis++; g.p = &q }, ErrMalformed},
		"another action in struct": {func(g *given) { q := *g.p; q.Action[0]++; g.p = &q }, ErrMalformed},
		"another key id":           {envelope(func(e *exeq.Envelope) { e.Signatures[0].KeyID = strings.Repeat("0", 64) }), ErrSignature},
		"node key":                 {envelope(func(e *exeq.Envelope) { e.Signatures[0].KeyID = "" }), ErrSignature},
		"two signatures":           {envelope(func(e *exeq.Envelope) { e.Signatures = append(e.Signatures, e.Signatures[0]) }), ErrMalformed},
		"no signature":             {envelope(func(e *exeq.Envelope) { e.Signatures = nil }), ErrMalformed},
		"payload type":             {envelope(func(e *exeq.Envelope) { e.PayloadType = "application/json" }), ErrMalformed},
		"signature of other bytes": {envelope(func(e *exeq.Envelope) {
			e.Signatures[0].Sig = base64.StdEncoding.EncodeToString(make([]byte, ed25519.SignatureSize))
		}), ErrSignature},
		"short signature": {envelope(func(e *exeq.Envelope) { e.Signatures[0].Sig = "AAAA" }), ErrSignature},
		"payload changed": {envelope(func(e *exeq.Envelope) {
			b, _ := base64.StdEncoding.DecodeString(e.Payload)
			e.Payload = base64.StdEncoding.EncodeToString([]byte(strings.Replace(string(b), `"maxUses":1`, `"maxUses": 1`, 1)))
		}), ErrSignature},

		"another node":  {reissue(func(b *exeq.PermitBody) { b.Audience.Node = "x" }), ErrAudience},
		"another boot":  {reissue(func(b *exeq.PermitBody) { b.Audience.BootID = "x" }), ErrAudience},
		"another epoch": {reissue(func(b *exeq.PermitBody) { b.Audience.Epoch = "x" }), ErrAudience},

		"expired":             {func(g *given) { g.f.now = g.p.Body.NotAfter.Time }, ErrExpired},
		"clock set back":      {func(g *given) { g.f.now = g.f.now.Add(-time.Minute) }, ErrEarly},
		"window upside down":  {reissue(func(b *exeq.PermitBody) { b.NotAfter = b.NotBefore }), ErrWindow},
		"window of a year":    {reissue(func(b *exeq.PermitBody) { b.NotAfter = exeq.At(b.NotBefore.AddDate(1, 0, 0)) }), ErrWindow},
		"expires while burnt": {func(g *given) { g.f.burner.hook = func() { g.f.now = g.p.Body.NotAfter.Time } }, ErrExpired},

		"no lease":       {reissue(func(b *exeq.PermitBody) { b.LeaseMillis = 0 }), ErrLease},
		"endless lease":  {reissue(func(b *exeq.PermitBody) { b.LeaseMillis = 1 << 40 }), ErrLease},
		"negative lease": {reissue(func(b *exeq.PermitBody) { b.LeaseMillis = -3000 }), ErrLease},

		"other arguments":  {func(g *given) { g.f.request.Argv = []string{"go", "run"} }, ErrAction},
		"other program":    {func(g *given) { g.f.request.Resource.SHA256[0]++ }, ErrAction},
		"invalid request":  {func(g *given) { g.f.request.Dir = ""; g.f.request.Context.Tmp = "x" }, ErrAction},
		"another subject":  {reissue(func(b *exeq.PermitBody) { b.Subject.ID = "root" }), ErrAction},
		"another resource": {reissue(func(b *exeq.PermitBody) { b.Resource.ID = "/bin/sh" }), ErrAction},
		"other delegation": {reissue(func(b *exeq.PermitBody) { b.OnBehalfOf = nil }), ErrAction},
		"wider rights":     {func(g *given) { g.f.rights.Cells[0].Under.Write = true }, ErrRights},
		"invalid rights":   {func(g *given) { g.f.rights.Cells = nil }, ErrRights},
		"tier floor":       {reissue(func(b *exeq.PermitBody) { b.TierFloor = exeq.TierKernel }), ErrTier},

		"leaf of another kind":       {leaf(func(l *exeq.Leaf, _ map[string]any) { l.Kind = exeq.KindStart }), ErrUnrecorded},
		"leaf of another execution":  {leaf(func(l *exeq.Leaf, _ map[string]any) { l.Execution = exeq.NewID() }), ErrUnrecorded},
		"leaf within a chain":        {leaf(func(l *exeq.Leaf, _ map[string]any) { l.Seq = 1 }), ErrUnrecorded},
		"leaf of a denial":           {leaf(func(l *exeq.Leaf, _ map[string]any) { l.Body.Verdict = exeq.Deny }), ErrUnrecorded},
		"leaf of other policies":     {leaf(func(l *exeq.Leaf, _ map[string]any) { l.Body.Policies = []string{"a"} }), ErrUnrecorded},
		"leaf of another permit":     {leaf(func(_ *exeq.Leaf, p map[string]any) { p["permit"] = "{}" }), ErrUnrecorded},
		"leaf without a commitment":  {leaf(func(_ *exeq.Leaf, p map[string]any) { delete(p, "permit"); p["x"] = 1 }), ErrUnrecorded},
		"leaf is not one":            {func(g *given) { g.on.Leaf = []byte("{}") }, ErrUnrecorded},
		"opened with another salt":   {func(g *given) { g.on.Permit.Salt = strings.Repeat("0", 32) }, ErrUnrecorded},
		"opened in another leaf":     {func(g *given) { g.on.Permit.Leaf = exeq.NewID() }, ErrUnrecorded},
		"opened in another field":    {func(g *given) { g.on.Permit.Field = "rights" }, ErrUnrecorded},
		"promise without a note":     {func(g *given) { g.on.Promise.Note = "" }, ErrUnrecorded},
		"promise with a cut path":    {func(g *given) { g.on.Promise.Path = g.on.Promise.Path[:1] }, ErrUnrecorded},
		"promise at another index":   {func(g *given) { g.on.Promise.Index = 0 }, ErrUnrecorded},
		"promise outside of batch":   {func(g *given) { g.on.Promise.Index = 3 }, ErrUnrecorded},
		"promise at a negative":      {func(g *given) { g.on.Promise.Index = -1 }, ErrUnrecorded},
		"promise of too long a path": {func(g *given) { g.on.Promise.Path = make([]exeq.Digest, maxPath+1) }, ErrUnrecorded},
		"promise by the log key":     {promise(exeq.RoleLog, "ORIGIN\n1\nROOT\ntime NOW\n"), ErrUnrecorded},
		"promise under log's name":   {promise(exeq.RolePromise, "ORIGIN\n1\nROOT\ntime NOW\n"), ErrUnrecorded},
		"promise of no leaves":       {promise(exeq.RolePromise, "ORIGIN/promise\n0\nROOT\ntime NOW\n"), ErrUnrecorded},
		"promise with a plus":        {promise(exeq.RolePromise, "ORIGIN/promise\n+1\nROOT\ntime NOW\n"), ErrUnrecorded},
		"promise without a time":     {promise(exeq.RolePromise, "ORIGIN/promise\n1\nROOT\nNOW\n"), ErrUnrecorded},
		"promise with more lines":    {promise(exeq.RolePromise, "ORIGIN/promise\n1\nROOT\ntime NOW\nmore\n"), ErrUnrecorded},
		"promise of long ago":        {promise(exeq.RolePromise, "ORIGIN/promise\n1\nROOT\ntime 1000\n"), ErrUnrecorded},
		"promise of the future":      {promise(exeq.RolePromise, "ORIGIN/promise\n1\nROOT\ntime 99999999999999\n"), ErrUnrecorded},

		"burn list fails": {func(g *given) { g.f.burner.err = errors.New("disk full") }, ErrUnburnt},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			g := &given{f: f, p: f.issue()}
			g.on = f.record(g.p)
			c.change(g)
			err := f.admit(g.p, g.on)
			if !errors.Is(err, c.want) || !errors.Is(err, exeq.ErrPermit) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if g.p != nil && f.burner.seen[g.p.Body.ID] && c.want != ErrExpired {
				t.Error("the nonce was burnt for a permit that was refused")
			}
		})
	}
	t.Run("promise of one is enough", func(t *testing.T) {
		f := newFixture(t)
		g := &given{f: f, p: f.issue()}
		g.on = f.record(g.p)
		promise(exeq.RolePromise, "ORIGIN/promise\n1\nROOT\ntime NOW\n")(g)
		if err := f.admit(g.p, g.on); err != nil {
			t.Errorf("the control is refused: %v", err)
		}
	})
}

// TestEnvelopeIsCanonical: the envelope that is written by hand is the one that
// the canonical writer writes.
func TestEnvelopeIsCanonical(t *testing.T) {
	f := newFixture(t)
	p := f.issue()
	var e exeq.Envelope
	if err := json.Unmarshal(p.Envelope, &e); err != nil {
		t.Fatal(err)
	}
	if want, err := canon.Marshal(&e); err != nil || string(want) != string(p.Envelope) {
		t.Errorf("got  %s\nwant %s, %v", p.Envelope, want, err)
	}
}

// TestIssueRefuses: no permit leaves for what is no permitting decision.
func TestIssueRefuses(t *testing.T) {
	for name, change := range map[string]func(*fixture){
		"denied":         func(f *fixture) { f.decided.Verdict = exeq.Deny },
		"step up":        func(f *fixture) { f.decided.Verdict = exeq.StepUp },
		"no verdict":     func(f *fixture) { f.decided.Verdict = "" },
		"invalid action": func(f *fixture) { f.request.Action = "" },
		"invalid rights": func(f *fixture) { f.rights.Version = 2 },
		"too large":      func(f *fixture) { f.decided.Policies = make([]string, exeq.MaxPermitBytes) },
	} {
		f := newFixture(t)
		change(f)
		if p, err := f.issuer.Issue(exeq.NewID(), f.request, f.inputs, f.decided, f.rights, ""); err == nil || p != nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestRenewals(t *testing.T) {
	f := newFixture(t)
	p := f.issue()
	if err := f.admit(p, f.record(p)); err != nil {
		t.Fatal(err)
	}
	check := f.admitter.CheckRenewal(p.Body.ID)
	renew := func(id string, seq uint64, period time.Duration) exeq.Renewal {
		t.Helper()
		n, err := f.issuer.Renew(id, seq, "00ff", period)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	good := renew(p.Body.ID, 1, exeq.DefaultLease)
	for name, n := range map[string]exeq.Renewal{
		"another permit": renew(exeq.NewID(), 1, exeq.DefaultLease),
		"longer lease":   func() exeq.Renewal { n := good; n.Millis++; return n }(),
		"other sequence": func() exeq.Renewal { n := good; n.Sequence = 9; return n }(),
		"no challenge":   func() exeq.Renewal { n := good; n.Challenge = ""; return n }(),
		"no signature":   func() exeq.Renewal { n := good; n.Signature = ""; return n }(),
		"another key":    func() exeq.Renewal { n := good; n.Key = f.keys.Signer(exeq.RoleNode).KeyID(); return n }(),
		"no period":      func() exeq.Renewal { n := good; n.Millis = 0; return n }(),
	} {
		if err := check(n); !errors.Is(err, ErrRenewal) || !errors.Is(err, exeq.ErrPermit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := check(good); err != nil {
		t.Fatal(err)
	}
	if err := check(good); !errors.Is(err, ErrRenewal) {
		t.Errorf("a renewal twice: %v", err)
	}
	if err := check(renew(p.Body.ID, 7, time.Second)); err != nil {
		t.Error(err)
	}
	if err := check(renew(p.Body.ID, 6, time.Second)); !errors.Is(err, ErrRenewal) {
		t.Errorf("a hoarded renewal: %v", err)
	}
	if err := f.admitter.CheckRenewal(exeq.NewID())(good); !errors.Is(err, ErrRenewal) {
		t.Errorf("a permit that was not admitted: %v", err)
	}
	if _, err := f.issuer.Renew(p.Body.ID, 8, "00", time.Hour); err == nil {
		t.Error("renewed for longer than the lease")
	}
}

func TestRevocation(t *testing.T) {
	f := newFixture(t)
	id := exeq.NewID()
	v, err := f.issuer.Revoke(id, "policy", exeq.At(f.now))
	if err != nil {
		t.Fatal(err)
	}
	pub := f.keys.Public(exeq.RoleIssuer)
	if err := CheckRevocation(pub, id, v); err != nil {
		t.Fatal(err)
	}
	other := v
	other.Reason = "nothing"
	for name, err := range map[string]error{
		"of another permit": CheckRevocation(pub, exeq.NewID(), v),
		"changed":           CheckRevocation(pub, id, other),
		"by another key":    CheckRevocation(f.keys.Public(exeq.RoleNode), id, v),
	} {
		if !errors.Is(err, ErrRevocation) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenSSL: a stranger verifies the permit over DSSE's pre-authentication
// encoding with the public key file beside the key.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	state := t.TempDir()
	keys, err := keyring.Create(state)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.issuer.c.Key = keys.Signer(exeq.RoleIssuer)
	p := f.issue()
	var e exeq.Envelope
	if err := json.Unmarshal(p.Envelope, &e); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	// The encoding, written out as the specification has it.
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(payload), payload)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	verify := func(msg, sig []byte) (string, error) {
		out, err := exec.Command(openssl, "pkeyutl", "-verify", "-pubin", "-inkey", filepath.Join(state, "keys", "issuer.pub"),
			"-rawin", "-in", write("pae", msg), "-sigfile", write("sig", sig)).CombinedOutput()
		return string(out), err
	}
	if out, err := verify(pae, sig); err != nil {
		t.Errorf("openssl: %v: %s", err, out)
	}
	pae[len(pae)-2] ^= 1
	if out, err := verify(pae, sig); err == nil {
		t.Errorf("openssl takes a changed permit: %s", out)
	}
}

func FuzzParsePermit(f *testing.F) {
	x := newFixture(f)
	signed := x.issue()
	f.Add(signed.Envelope)
	f.Add([]byte(`{"payload":"","payloadType":"","signatures":[{"keyid":"","sig":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := exeq.ParsePermit(b)
		if err != nil {
			if !errors.Is(err, exeq.ErrPermit) {
				t.Errorf("%v is no refusal", err)
			}
			return
		}
		if p.Body.MaxUses != 1 || p.Body.Version != 1 {
			t.Errorf("parsed %+v", p.Body)
		}
		// Only what the issuer signed is believed, however it is wrapped.
		if err := x.admitter.signed(p); err == nil && p.Body.ID != signed.Body.ID {
			t.Errorf("believed %+v", p.Body)
		}
	})
}
