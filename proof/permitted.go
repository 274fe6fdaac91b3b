package proof

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/exeq/exeq"
)

const (
	withheld = "the permit is not disclosed"
	noPermit = "the request was denied: there is no permit"
)

// signature: the permit is signed by an issuer key that was good at the index
// of the permit's leaf, and is the permit of this execution.
func (v *verifier) signature() Line {
	l := Line{Check: CheckSignature}
	if v.badPermit != nil {
		return l.fault(v.badPermit)
	}
	if v.denied() {
		return l.is(NotRequired, noPermit)
	}
	if v.permit == nil {
		return l.is(NotDisclosed, withheld)
	}
	leaf, b := &v.leaves[0], &v.permit.Body
	at, ok := v.index[leaf.ID]
	if !ok {
		return l.is(CannotTell, "without its place in the log the key's validity cannot be judged")
	}
	if err := v.verifyPermit(at); err != nil {
		return l.is(Failed, err.Error())
	}
	switch {
	case b.ID != v.p.Execution || leaf.Execution != b.ID:
		return l.is(Failed, "the permit is of another execution")
	case leaf.Kind != exeq.KindPermit:
		return l.is(Failed, "the leaf that holds it is not a permit's")
	case b.Parent != leaf.Parent:
		return l.is(Failed, "permit and leaf name different parents")
	case !slices.Equal(b.Policies, leaf.Body.Policies) || !leaf.Body.Verdict.Permits():
		return l.is(Failed, "permit and leaf differ in the decision")
	}
	return l.is(Proved, "issuer key "+permitKey(v.permit)[:12]+", good at index "+strconv.FormatInt(at, 10))
}

func envelope(p *exeq.Permit) (exeq.Envelope, error) {
	var e exeq.Envelope
	err := json.Unmarshal(p.Envelope, &e) // ParsePermit was strict
	return e, err
}

func permitKey(p *exeq.Permit) string {
	e, err := envelope(p)
	if err != nil || len(e.Signatures[0].KeyID) < 12 {
		return strings.Repeat("?", 12)
	}
	return e.Signatures[0].KeyID
}

func (v *verifier) verifyPermit(at int64) error {
	e, err := envelope(v.permit)
	if err != nil {
		return err
	}
	key, err := v.a.key(exeq.RoleIssuer, e.Signatures[0].KeyID, at)
	if err != nil {
		return err
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return errors.New("the payload is not base64")
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(e.Signatures[0].Sig)
	if err != nil {
		return errors.New("the signature is not base64")
	}
	if !key.Verify(pae(e.PayloadType, payload), sig) {
		return errors.New("the permit's signature does not verify")
	}
	return nil
}

// pae is DSSE's pre-authentication encoding.
func pae(typ string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(typ), typ, len(payload), payload)
}

// digest: what is disclosed is what the permit binds.
func (v *verifier) digest() Line {
	l := Line{Check: CheckDigest}
	if v.badOpening != nil {
		return l.fault(v.badOpening)
	}
	if v.denied() {
		return v.denialBound(l)
	}
	if v.permit == nil {
		return l.is(NotDisclosed, withheld)
	}
	var good, missing []string
	for _, part := range []struct {
		name  string
		given bool
		check func() error
	}{
		{"request", v.request != nil, v.requestBound},
		{"inputs", v.inputs != nil, v.inputsBound},
		{"rights", v.rights != nil, v.rightsBound},
		{"decision", v.decision != nil, v.decisionBound},
	} {
		if !part.given {
			missing = append(missing, part.name)
			continue
		}
		if err := part.check(); err != nil {
			return l.is(Failed, err.Error())
		}
		good = append(good, part.name)
	}
	if err := v.committedDigests(); err != nil {
		return l.is(Failed, err.Error())
	}
	if len(missing) > 0 {
		detail := "withheld: " + strings.Join(missing, ", ")
		if len(good) > 0 {
			detail = strings.Join(good, ", ") + " bound; " + detail
		}
		return l.is(NotDisclosed, detail)
	}
	return l.is(Proved, "the permit binds exactly this "+strings.Join(good, ", "))
}

func (v *verifier) requestBound() error {
	got, err := v.request.ActionDigest()
	if err != nil {
		return err
	}
	b, r := &v.permit.Body, v.request
	if got != v.permit.Action {
		return errors.New("the request is not the one that the permit is for")
	}
	if b.Subject != r.Subject || !slices.Equal(b.OnBehalfOf, r.OnBehalfOf) || b.Action != r.Action || b.Resource != r.Resource {
		return errors.New("the permit's own words differ from the request it binds")
	}
	return r.Validate()
}

func (v *verifier) inputsBound() error {
	got, err := v.inputs.Digest()
	if err == nil && got != v.permit.Body.InputsDigest {
		err = errors.New("the inputs are not those that the permit binds")
	}
	return err
}

func (v *verifier) rightsBound() error {
	got, err := v.rights.Digest()
	if err != nil {
		return err
	}
	if got != v.permit.Body.RightsDigest {
		return errors.New("the rights are not those that the permit binds")
	}
	if v.rights.TierFloor != v.permit.Body.TierFloor {
		return errors.New("rights and permit differ in the tier floor")
	}
	return nil
}

func (v *verifier) decisionBound() error {
	d, b := v.decision, &v.permit.Body
	if d.PolicySet != b.PolicySet || !slices.Equal(d.Policies, b.Policies) || !slices.Equal(d.Obligations, b.Obligations) {
		return errors.New("decision and permit differ")
	}
	if !d.Verdict.Permits() || d.Verdict != v.leaves[0].Body.Verdict {
		return errors.New("decision and leaf differ in the verdict")
	}
	return nil
}

// committedDigests compares digests that the leaves commit to beside the
// things themselves.
func (v *verifier) committedDigests() error {
	for _, c := range []struct {
		leaf  *leaf
		field string
		want  exeq.Digest
	}{
		{&v.leaves[0], fieldPolicySet, v.permit.Body.PolicySet},
		{v.start, fieldPermitSum, exeq.LeafHash(v.permit.Envelope)},
	} {
		var got exeq.Digest
		ok, err := v.value(c.leaf, c.field, &got)
		if err != nil {
			return err
		}
		if ok && got != c.want {
			return fmt.Errorf("the %s leaf commits to another %s than the permit", c.leaf.Kind, c.field)
		}
	}
	return nil
}

// denialBound: a denial binds nothing but what its own leaf commits to.
func (v *verifier) denialBound(l Line) Line {
	d := v.decision
	if d == nil {
		return l.is(NotDisclosed, "withheld: decision")
	}
	var set exeq.Digest
	if told, err := v.value(&v.leaves[0], fieldPolicySet, &set); err != nil {
		return l.fault(err)
	} else if told && set != d.PolicySet {
		return l.is(Failed, "decision and leaf differ in the policy set")
	}
	b := &v.leaves[0].Body
	if d.Verdict.Permits() || d.Verdict != b.Verdict || !slices.Equal(d.Policies, b.Policies) || !slices.Equal(d.Needs, b.Needs) {
		return l.is(Failed, "decision and leaf differ")
	}
	return l.is(Proved, "the leaf commits to exactly this decision")
}

// policySet is the digest of the set that decided: what the permit names, or
// where there is none to see, the first leaf itself, or the decision.
func (v *verifier) policySet() (d exeq.Digest, known bool) {
	if v.permit != nil {
		return v.permit.Body.PolicySet, true
	}
	if len(v.leaves) == 0 {
		return d, false
	}
	if told, err := v.value(&v.leaves[0], fieldPolicySet, &d); told {
		return d, err == nil
	}
	if v.decision != nil {
		return v.decision.PolicySet, true
	}
	return d, false
}

// replay: the policy set that the permit names, loaded again, decides the same.
func (v *verifier) replay() Line {
	l := Line{Check: CheckReplay}
	active, err := v.policyLeaf()
	set, known := v.policySet()
	switch {
	case err != nil:
		return l.fault(err)
	case v.p.Source != nil && !known:
		return l.is(Failed, "a policy source is given without what names its set")
	case v.p.Source != nil && exeq.PolicySetDigest(v.p.Source) != set:
		return l.is(Failed, "the policy source is not of the set that decided")
	case v.request == nil || v.inputs == nil || v.decision == nil || v.p.Source == nil:
		return l.is(NotDisclosed, "needs request, inputs, decision and policy source")
	case v.o.Replay == nil:
		return l.is(CannotTell, "no policy engine at hand")
	}
	d, err := v.o.Replay(v.p.Source, v.request, v.inputs)
	if err != nil {
		return l.is(CannotTell, "the policy could not be replayed: "+short(err.Error()))
	}
	if d.PolicySet != set || v.decision.PolicySet != set {
		return l.is(Failed, "the policy engine loaded another set than the one that decided")
	}
	if !sameJSON(d, v.decision) {
		if v.denied() && d.Verdict.Permits() {
			return l.is(CannotTell, "the policy alone permits it; what refused it is not policy: "+v.reason(&v.leaves[0]))
		}
		return l.is(Failed, fmt.Sprintf("the policy decides %s by %v, the record says %s by %v", d.Verdict, d.Policies, v.decision.Verdict, v.decision.Policies))
	}
	detail := "decided again: " + string(d.Verdict)
	if len(d.Policies) > 0 {
		detail += " by " + strings.Join(d.Policies, ", ")
	}
	if active == nil {
		return l.is(Proved, detail+"; when the set was activated is not shown")
	}
	detail += fmt.Sprintf("; the set was activated at index %d", v.index[active.ID])
	return l.is(Proved, detail)
}

// reason is why trust ended or was refused, as far as it is disclosed.
func (v *verifier) reason(l *leaf) string {
	var s string
	if ok, err := v.value(l, fieldReason, &s); ok && err == nil {
		return s
	}
	return "not disclosed"
}

// policyLeaf finds the activation of the policy set, if the proof has it.
func (v *verifier) policyLeaf() (*leaf, error) {
	if v.badKeys != nil {
		return nil, v.badKeys
	}
	var found *leaf
	for i := range v.context {
		l := &v.context[i]
		if l.Kind != exeq.KindPolicy {
			continue
		}
		if found != nil {
			return nil, errors.New("two policy leaves in the context")
		}
		found = l
	}
	if found == nil {
		return nil, nil
	}
	var set exeq.Digest
	want, known := v.policySet()
	if ok, err := v.value(found, fieldPolicySet, &set); err != nil {
		return nil, err
	} else if ok && known && set != want {
		return nil, errors.New("the policy leaf is of another set than the one that decided")
	}
	if len(v.leaves) == 0 {
		return found, nil
	}
	at, ok := v.index[found.ID]
	mine, ok2 := v.index[v.leaves[0].ID]
	if ok && ok2 && at >= mine {
		return nil, errors.New("the policy set was activated after the permit")
	}
	return found, nil
}

// audience: the node key that signed the start is the one the permit is for.
func (v *verifier) audience() Line {
	l := Line{Check: CheckAudience}
	if v.start == nil {
		return v.unstarted(l)
	}
	var said exeq.Audience
	told, err := v.value(v.start, fieldAudience, &said)
	switch {
	case err != nil:
		return l.fault(err)
	case v.permit == nil:
		return l.is(NotDisclosed, withheld)
	case v.permit.Body.Audience.Node != v.start.Key:
		return v.enclosed(l, told, said)
	case told && said != v.permit.Body.Audience:
		return l.is(Failed, "the node started it under another boot or burn list than the permit names")
	case !told:
		return l.is(NotDisclosed, "the start's boot and burn list")
	}
	return l.is(Proved, "node, boot and burn list are the permit's audience").by(exeq.RoleNode, v.start.Key)
}

// enclosed: the permit is for a node of its own, which signed that it took it
// and closed the gate around the execution; its supervisor signed the start.
func (v *verifier) enclosed(l Line, told bool, said exeq.Audience) Line {
	var a exeq.Applied
	open, err := v.value(v.start, fieldApplied, &a)
	switch e, want := a.Enclosure, v.permit.Body.Audience; {
	case err != nil:
		return l.fault(err)
	case !open:
		return l.is(NotDisclosed, "the node's own word on the start is withheld")
	case e == nil:
		return l.is(Failed, "the permit was made for another node than the one that started it")
	case e.Version != 1:
		return l.is(CannotTell, fmt.Sprintf("the node's word on the start is of version %d", e.Version))
	case e.Permit != v.permit.Body.ID || e.Audience != want || e.Key != want.Node || told && said != want:
		return l.is(Failed, "the node's word on the start is of another permit, node, boot or burn list")
	case e.Tier != v.start.Body.Tier:
		return l.is(Failed, fmt.Sprintf("the start says tier %s, the node %s", v.start.Body.Tier, e.Tier))
	default:
		for _, d := range e.Downgrades() {
			if !slices.Contains(a.Downgrades, d) {
				return l.is(Failed, "the start keeps back what the node says is missing: "+short(d))
			}
		}
		at, err := v.judgedAt()
		if err != nil {
			return l.is(CannotTell, err.Error())
		}
		i := slices.IndexFunc(v.leaves, func(x leaf) bool { return x.ID == v.start.ID })
		if err := v.a.verifyEnclosure(e, at[i]); err != nil {
			return l.is(Failed, err.Error())
		}
		return l.is(Proved, "node, boot and burn list are the permit's audience; the node signed that it closed the gate").by(exeq.RoleNode, e.Key)
	}
}

// recorded: the permit's leaf was promised, and stands in the log, before the
// start; the start lies in the permit's window.
func (v *verifier) recorded() Line {
	l := Line{Check: CheckRecorded}
	if len(v.leaves) == 0 {
		return l.is(CannotTell, "no leaves")
	}
	ms, err := v.a.OpenPromise(&v.p.Promise, v.leaves[0].hash)
	if err != nil {
		return l.is(Failed, "promise: "+err.Error())
	}
	promised := exeq.At(time.UnixMilli(ms))
	if v.start == nil {
		return v.unstarted(l)
	}
	p, ok := v.index[v.leaves[0].ID]
	s, ok2 := v.index[v.start.ID]
	switch {
	case !ok || !ok2:
		return l.is(CannotTell, "receipts of permit and start are missing")
	case p >= s:
		return l.is(Failed, fmt.Sprintf("the start is at index %d, before its permit at %d", s, p))
	case promised.After(v.start.Time.Add(exeq.MaxClockStepBack)):
		return l.is(Failed, fmt.Sprintf("promised at %s, started at %s", promised, v.start.Time))
	}
	if v.permit != nil {
		b := &v.permit.Body
		if v.start.Time.Before(b.NotBefore.Add(-exeq.MaxClockStepBack)) || v.start.Time.After(b.NotAfter.Add(exeq.MaxClockStepBack)) {
			return l.is(Failed, fmt.Sprintf("started at %s, outside the permit's %s to %s", v.start.Time, b.NotBefore, b.NotAfter))
		}
	}
	return l.is(Attested, fmt.Sprintf("promised at %s, started at %s; index %d before %d", promised, v.start.Time, p, s)).by(exeq.RoleNode, v.start.Key)
}

// singleUse can be refuted by a proof, not shown.
func (v *verifier) singleUse() Line {
	l := Line{Check: CheckSingleUse}
	n := 0
	for i := range v.leaves {
		if v.leaves[i].Kind == exeq.KindStart {
			n++
		}
	}
	if n > 1 {
		return l.is(Failed, fmt.Sprintf("started %d times", n))
	}
	if v.start == nil && v.last != nil {
		return v.unstarted(l)
	}
	return l.is(NeedsMonitor, "no second start here; that there is none elsewhere, only a walk of the log tells")
}

// unstarted is a line about running, of an execution without a start.
func (v *verifier) unstarted(l Line) Line {
	if v.last != nil {
		return l.is(NotRequired, "nothing was started")
	}
	return l.is(CannotTell, "no start in the proof")
}
