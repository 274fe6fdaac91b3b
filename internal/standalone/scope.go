package standalone

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/permit"
)

// scopeWindow is how long a statement may be handed over.
const scopeWindow = 10 * time.Minute

// nowhere stands for the places that an execution has and a machine does not.
const nowhere = "/nonexistent"

// Declaration is one act on a mandatory scope, before it is decided.
type Declaration struct {
	Agent   string // that the machine lives as, in policy
	Program string // this one, that the act is done with: resolved
	Argv    []string
	Body    exeq.ScopeBody // without what policy says
}

// Declared is a statement that is on record.
type Declared struct {
	Body     *exeq.ScopeBody
	Envelope []byte
	Record   *exeq.ScopeRecord
	// Left says which places policy names and the scope does not live by: where it
	// lets the agent execute under conditions, which nobody is there to judge, and
	// what is not there.
	Left []string
}

// Declare decides an act on a scope, makes its statement from policy, and puts
// that on record. Whoever may do it is who policy lets the agent run this very
// program with these arguments; what the machine lives by is what policy lets
// the agent execute whatever its bytes and arguments.
func (in *Installation) Declare(ctx context.Context, d Declaration) (*Declared, error) {
	digest, err := fileDigest(d.Program)
	if err != nil {
		return nil, err
	}
	r := Request(Who{Agent: d.Agent}, Place{Workspace: nowhere, Home: nowhere, Tmp: nowhere}, d.Program, digest, d.Argv)
	inputs := &exeq.Inputs{Tier: exeq.TierKernelLite, Time: exeq.At(time.Now())}
	set, err := in.policies.Active(ctx)
	if err != nil {
		return nil, err
	}
	decision, err := set.Decide(ctx, r, inputs)
	if err != nil {
		return nil, err
	}
	if !decision.Verdict.Permits() {
		return nil, in.refuseScope(ctx, r, inputs, decision)
	}
	out := &Declared{}
	body := d.Body
	body.PolicySet, body.Policies = decision.PolicySet, decision.Policies
	body.Serial = uint64(time.Now().UnixMilli()) // rises, also over installations that hand a scope on
	if body.Mode != exeq.ScopeLift {
		rights, err := set.Compile(ctx, r, inputs, decision)
		if err != nil {
			return nil, err
		}
		if err := lifeOf(rights, &body, out); err != nil {
			return nil, err
		}
		// Who declares can lift, and whoever is in the scope can ask for permits.
		own := exeq.ScopeProgram{Path: exeq.EncodeBytes(d.Program), SHA256: digest}
		if !slices.ContainsFunc(body.Programs, func(p exeq.ScopeProgram) bool { return p.Path == own.Path }) {
			body.Programs = append(body.Programs, own)
		}
		slices.SortFunc(body.Programs, func(a, b exeq.ScopeProgram) int { return strings.Compare(a.Path, b.Path) })
	}
	key := in.Keys.Signer(exeq.RoleIssuer)
	if out.Envelope, out.Body, err = permit.SignScope(key, body, time.Now(), scopeWindow); err != nil {
		return nil, err
	}
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindScope, Body: exeq.LeafBody{Event: string(body.Mode), Verdict: decision.Verdict, Policies: decision.Policies}},
		map[string]any{"scope": string(out.Envelope), "request": r, "inputs": inputs, "decision": decision, "policySet": decision.PolicySet}, key)
	if err != nil {
		return nil, err
	}
	promises, err := in.Store.Record(ctx, e)
	if err != nil {
		return nil, err
	}
	out.Record = &exeq.ScopeRecord{Leaf: e.Bytes, Promise: promises[0]}
	for _, o := range e.Disclosures {
		if o.Field == "scope" {
			out.Record.Scope = o
		}
	}
	return out, nil
}

// refuseScope puts the denial on record, as a run that was denied is.
func (in *Installation) refuseScope(ctx context.Context, r *exeq.Request, inputs *exeq.Inputs, d exeq.Decision) error {
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindDenial, Execution: exeq.NewID(), Actor: in.actor(r.Subject), Body: exeq.LeafBody{Verdict: d.Verdict, Policies: d.Policies, Needs: d.Needs, Code: "policy"}},
		map[string]any{"request": r, "inputs": inputs, "decision": d, "policySet": d.PolicySet, "reason": d.Reason}, in.Keys.Signer(exeq.RoleIssuer))
	if err == nil {
		_, err = in.Store.Record(ctx, e)
	}
	return errors.Join(fmt.Errorf("%w: %s", exeq.ErrDenied, d.Reason), err)
}

// lifeOf reads from rights what executes whatever its bytes and arguments.
func lifeOf(rights *exeq.Rights, body *exeq.ScopeBody, out *Declared) error {
	tree := ""
	for _, c := range rights.Cells { // parents come before what is below them
		raw, err := exeq.DecodeBytes(c.Path)
		if err != nil {
			return err
		}
		if tree != "" && strings.HasPrefix(raw+"/", tree) {
			if c.At.Exec != exeq.ExecAll || c.Under.Exec != exeq.ExecAll {
				return fmt.Errorf("policy lets everything below %s execute but %s: a scope cannot tell them apart; name the directories that may", strings.TrimSuffix(tree, "/"), exeq.Readable(c.Path))
			}
			continue
		}
		if c.At.Exec == exeq.ExecAsk || c.Under.Exec == exeq.ExecAsk {
			out.Left = append(out.Left, exeq.EncodeBytes(raw+": only under conditions"))
		}
		if c.At.Exec != exeq.ExecAll && c.Under.Exec != exeq.ExecAll {
			continue
		}
		st, err := os.Lstat(raw)
		switch {
		case err != nil:
			out.Left = append(out.Left, exeq.EncodeBytes(err.Error()))
		case st.IsDir() && c.Under.Exec == exeq.ExecAll:
			body.Trees = append(body.Trees, c.Path)
			tree = strings.TrimSuffix(raw, "/") + "/"
		case st.Mode().IsRegular() && c.At.Exec == exeq.ExecAll:
			digest, err := fileDigest(raw)
			if err != nil {
				return err
			}
			body.Programs = append(body.Programs, exeq.ScopeProgram{Path: c.Path, SHA256: digest})
		case !st.IsDir():
			out.Left = append(out.Left, exeq.EncodeBytes(raw+": no program and no directory (of a link, policy is to name what it leads to)"))
		}
	}
	slices.Sort(body.Trees)
	return nil
}

func fileDigest(path string) (d exeq.Digest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, exeq.MaxProgramBytes)); err != nil {
		return d, err
	}
	return exeq.Digest(h.Sum(nil)), nil
}

// OwnProgram is this program as a scope names it.
func OwnProgram() (string, error) {
	p, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(p)
}

// RecordReport puts a node's report on record and gives the digest that a
// statement names it by.
func (in *Installation) RecordReport(ctx context.Context, node ed25519.PublicKey, r *exeq.ScopeReport) (exeq.Digest, error) {
	b, err := canon.Marshal(r)
	if err != nil {
		return exeq.Digest{}, err
	}
	digest := exeq.Digest(sha256.Sum256(b))
	return digest, in.told(ctx, node, "report", digest.String(), map[string]any{"report": r})
}

// RecordOpening puts a node's word on break-glass on record, once.
func (in *Installation) RecordOpening(ctx context.Context, node ed25519.PublicKey, o *exeq.Opening) error {
	return in.told(ctx, node, "opened", o.ID, map[string]any{"opening": o})
}

// told records what a node signed of scopes, once, behind the node's key.
func (in *Installation) told(ctx context.Context, node ed25519.PublicKey, event, id string, private map[string]any) error {
	if err := in.Know(ctx, node); err != nil {
		return err
	}
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindScope, Body: exeq.LeafBody{Event: event}}, private, in.Keys.Signer(exeq.RoleIssuer))
	if err != nil {
		return err
	}
	_, err = in.Store.RecordOnce(ctx, exeq.LeafHash([]byte("scope "+event+" "+id)), []byte(id), e)
	return err
}

// LastOpening and SetLastOpening remember up to where a node's openings are on
// record.
func (in *Installation) LastOpening(ctx context.Context, node string) string {
	b, err := in.Store.Blob(ctx, lastOpening(node))
	if err != nil {
		return "" // all over again: each is recorded once
	}
	return string(b)
}

func (in *Installation) SetLastOpening(ctx context.Context, node, id string) error {
	return in.Store.PutBlobAs(ctx, lastOpening(node), []byte(id))
}

func lastOpening(node string) exeq.Digest { return exeq.LeafHash([]byte("last opening of " + node)) }
