package proof

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
)

// logged: permit, start, end and what they rest on have verified receipts.
func (v *verifier) logged() Line {
	l := Line{Check: CheckInLog}
	switch {
	case v.badLog != nil:
		return l.is(Failed, v.badLog.Error())
	case v.tree == nil:
		return l.is(CannotTell, "no receipts")
	case len(v.noReceipt) > 0:
		return l.is(CannotTell, "no receipt of: "+strings.Join(v.noReceipt, ", "))
	}
	return l.is(Proved, fmt.Sprintf("%d receipts in a tree of %d", len(v.index), v.tree.Size))
}

// consistent: the tree extends the checkpoint that the permit names.
func (v *verifier) consistent() Line {
	l := Line{Check: CheckConsistent}
	if v.tree == nil {
		return l.is(CannotTell, "no receipts")
	}
	if v.permit == nil || v.permit.Body.Checkpoint == "" {
		if len(v.p.Consistency) > 0 {
			return l.is(Failed, "a consistency proof from no checkpoint")
		}
		if v.permit == nil && !v.denied() {
			return l.is(NotDisclosed, "the permit, which names an earlier checkpoint")
		}
		return l.is(NeedsMonitor, "no permit names an earlier checkpoint to compare with")
	}
	size, root, err := parseBound(v.permit.Body.Checkpoint)
	if err != nil {
		return l.is(Failed, err.Error())
	}
	if own, ok := v.index[v.leaves[0].ID]; ok && own < size {
		return l.is(Failed, fmt.Sprintf("the permit at index %d names a later checkpoint of size %d", own, size))
	}
	switch {
	case size > v.tree.Size:
		return l.is(Failed, fmt.Sprintf("the permit names a checkpoint of size %d, the log shown has %d", size, v.tree.Size))
	case size == 0 || size == v.tree.Size:
		if len(v.p.Consistency) > 0 || size > 0 && exeq.Digest(root) != v.tree.Root {
			return l.is(Failed, "the log shown is not the one that the permit names")
		}
	case len(v.p.Consistency) == 0 && size != v.tree.Size:
		return l.is(CannotTell, fmt.Sprintf("no consistency proof from size %d to %d", size, v.tree.Size))
	default:
		if err := tlog.CheckTree(hashes(v.p.Consistency), v.tree.Size, tlog.Hash(v.tree.Root), size, root); err != nil {
			return l.is(Failed, fmt.Sprintf("the tree of %d does not extend the one of %d that the permit names", v.tree.Size, size))
		}
	}
	return l.is(Proved, fmt.Sprintf("from size %d at issue to %d; that nobody is shown another log needs witnesses or a monitor", size, v.tree.Size))
}

// parseBound reads PermitBody.Checkpoint, "size:root".
func parseBound(s string) (int64, tlog.Hash, error) {
	num, hex64, ok := strings.Cut(s, ":")
	size, err := parseSize(num)
	b, err2 := hex.DecodeString(hex64)
	if !ok || err != nil || err2 != nil || len(b) != tlog.HashSize {
		return 0, tlog.Hash{}, errors.New("the permit's checkpoint is not size:root")
	}
	return size, tlog.Hash(b), nil
}

// witnessed: the quorum of the trust file cosigned the tree.
func (v *verifier) witnessed() Line {
	l := Line{Check: CheckWitnessed}
	switch {
	case v.a.quorum.none():
		return l.is(NotRequired, "no witness is trusted: proves nothing against the operator of the log")
	case v.tree == nil:
		return l.is(CannotTell, "no receipts")
	}
	who, met := v.a.Witnessed(v.tree)
	switch {
	case !met && v.a.require[CheckWitnessed]:
		return l.is(Failed, "the witness quorum of the trust file did not cosign")
	case !met:
		return l.is(CannotTell, "the witness quorum of the trust file did not cosign")
	}
	return l.is(Proved, "cosigned by "+strings.Join(who, ", "))
}

// Witnessed names the witnesses that cosigned, with their times, and says
// whether they make the quorum; without a quorum nothing does.
func (a *Anchors) Witnessed(c *Checkpoint) (who []string, met bool) {
	for _, s := range c.sigs {
		for _, w := range a.quorum.verifiers {
			if s.Name == w.Name() && s.Hash == w.KeyHash() {
				who = append(who, s.Name+" at "+cosignedAt(s.Base64))
			}
		}
	}
	return who, !a.quorum.none() && a.quorum.root.met(c.sigs)
}

// cosignedAt reads the time of a verified cosignature.
func cosignedAt(b64 string) string {
	b, err := base64.StdEncoding.DecodeString(b64)
	if err != nil || len(b) < 12 {
		return "?"
	}
	t := binary.BigEndian.Uint64(b[4:])
	if t > 1<<40 {
		return "?"
	}
	return exeq.At(time.Unix(int64(t), 0)).String()
}

// is completes a line.
func (l Line) is(s Status, detail string) Line {
	l.Status, l.Detail = s, detail
	return l
}

// by names whose word an attested line rests on.
func (l Line) by(role, key string) Line {
	if l.Status == Attested {
		l.Key = role + " " + key
	}
	return l
}

// fault is a line about something wrong: unknown kinds cannot be judged, all
// else failed.
func (l Line) fault(err error) Line {
	if errors.Is(err, exeq.ErrCannotTell) {
		return l.is(CannotTell, err.Error())
	}
	return l.is(Failed, err.Error())
}

// report weighs the lines against what the trust file requires.
func (v *verifier) report(lines []Line) *Report {
	r := &Report{Version: 1, Execution: v.p.Execution, Verdict: Valid, Notes: []string{}}
	if v.unknown != nil {
		r.Verdict = Unknown
	}
	broken := false
	for i := range lines {
		l := &lines[i]
		l.Required = v.a.require[l.Check]
		l.Detail = plain(l.Detail)
		broken = broken || l.Status == Failed
		if l.Required && l.Status != Proved && l.Status != Attested && !v.excused(l) {
			r.Verdict = Unknown
		}
	}
	if broken {
		r.Verdict = NotValid
	}
	// Words of a chain that does not hold are nobody's.
	if lineOf(lines, CheckChain).Status != Proved {
		for i := range lines {
			if lines[i].Status == Attested {
				lines[i].Status, lines[i].Key = CannotTell, ""
			}
		}
	}
	r.Lines = lines
	var kept []string
	for _, l := range lines {
		if l.Required && l.Status == NotDisclosed {
			kept = append(kept, l.Check)
		}
	}
	if len(kept) > 0 {
		r.Notes = append(r.Notes, "Required and not disclosed: "+strings.Join(kept, ", ")+". Its holder can disclose it; a trust file that does not require it accepts it withheld.")
	}
	if v.a.quorum.none() {
		r.Notes = append(r.Notes, "No witness: this proves nothing against the operator of the log.")
	}
	r.Notes = append(r.Notes,
		"Standalone, a proof holds against the governed side, not against the user account that runs Exeq and holds its keys.",
		"That the permit was used once, that nothing is missing and that the log shows everybody the same needs a monitor: see exeq monitor.")
	r.Facts = v.tell()
	return r
}

// excused: what is required of running does not apply where nothing ran.
func (v *verifier) excused(l *Line) bool {
	return l.Status == NotRequired && v.start == nil && v.last != nil
}

// tell collects what the leaves and disclosures say.
func (v *verifier) tell() Facts {
	f := v.facts
	if v.request != nil {
		f.Subject = v.request.Subject.Type + " " + v.request.Subject.ID
		f.Command = exeq.CommandLine(v.request.Argv)
	}
	if len(v.leaves) > 0 {
		f.Verdict, f.Policies = v.leaves[0].Body.Verdict, v.leaves[0].Body.Policies
	}
	f.Revoked = v.revocation()
	if v.start != nil {
		f.Started, f.Tier, f.Seen = v.start.Time.String(), v.start.Body.Tier.String(), v.start.Body.Seen
	}
	if v.last != nil {
		f.Ended, f.Code, f.Counts = v.last.Time.String(), v.last.Body.Code, v.last.Body.Counts
	}
	return f
}
