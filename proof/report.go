package proof

import (
	"fmt"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Names of the checks, as trust files require them and reports print them.
const (
	CheckSignature  = "signature"
	CheckDigest     = "digest"
	CheckReplay     = "policy replay"
	CheckAudience   = "for this node"
	CheckRecorded   = "recorded before start"
	CheckSingleUse  = "single use"
	CheckEnforced   = "rights in force"
	CheckLease      = "no gap in the lease"
	CheckActivities = "activities accounted for"
	CheckChain      = "chain unbroken"
	CheckSealed     = "sealed"
	CheckInLog      = "in the log"
	CheckConsistent = "log consistent"
	CheckWitnessed  = "witnessed"
)

var checks = []string{
	CheckSignature, CheckDigest, CheckReplay, CheckAudience, CheckRecorded, CheckSingleUse, CheckEnforced,
	CheckLease, CheckActivities, CheckChain, CheckSealed, CheckInLog, CheckConsistent, CheckWitnessed,
}

// Status is what is known of one check.
type Status string

// The statuses of a line.
const (
	Proved       Status = "proved"          // the bytes show it, given the trust file
	Attested     Status = "attested"        // somebody's signed word; Key says whose
	NeedsMonitor Status = "needs a monitor" // absence is not in a proof
	NotRequired  Status = "not required"    // does not apply, and nobody asked
	Failed       Status = "failed"          // the bytes contradict it
	CannotTell   Status = "cannot tell"     // missing, or of a kind unknown here
	NotDisclosed Status = "not disclosed"   // withheld by the proof's holder
)

// Verdict is the outcome of a verification.
type Verdict string

// The verdicts; Exit gives the exit status.
const (
	Valid    Verdict = "valid"
	NotValid Verdict = "not valid"
	Unknown  Verdict = "cannot tell"
)

// Exit is the exit status that `exeq verify` ends with.
func (v Verdict) Exit() int {
	switch v {
	case Valid:
		return 0
	case NotValid:
		return 1
	}
	return 2
}

// Line is one check.
type Line struct {
	Check    string `json:"check"`
	Status   Status `json:"status"`
	Key      string `json:"key,omitempty"` // role and key id, where attested
	Required bool   `json:"required"`
	Detail   string `json:"detail"`
}

// Report is what a verification found; the same proof, trust and options give
// the same bytes.
type Report struct {
	Version   int     `json:"v"` // 1
	Execution string  `json:"execution"`
	Verdict   Verdict `json:"verdict"`
	Lines     []Line  `json:"checks"`
	// Facts is what the leaves say of the execution, in clear or disclosed.
	Facts Facts `json:"facts"`
	// Notes are limits of what this proof can show.
	Notes []string `json:"notes"`
}

// Facts are statements of the proof; worth what the lines above say.
type Facts struct {
	Subject    string            `json:"subject,omitempty"`
	Command    string            `json:"command,omitempty"`
	Verdict    exeq.Verdict      `json:"verdict,omitempty"`
	Policies   []string          `json:"policies,omitempty"`
	Started    string            `json:"started,omitempty"`
	Ended      string            `json:"ended,omitempty"`
	Code       string            `json:"code,omitempty"`
	Exit       string            `json:"exit,omitempty"`
	Revoked    string            `json:"revoked,omitempty"` // code and, where disclosed, reason
	Tier       string            `json:"tier,omitempty"`
	Downgrades []string          `json:"downgrades,omitempty"`
	Seen       map[string]string `json:"seen,omitempty"`
	Counts     map[string]int    `json:"counts,omitempty"`
}

// Line finds a line by the name of its check.
func (r *Report) Line(check string) Line { return lineOf(r.Lines, check) }

func lineOf(lines []Line, check string) Line {
	for _, l := range lines {
		if l.Check == check {
			return l
		}
	}
	return Line{Check: check, Status: CannotTell}
}

// JSON gives the report as canonical JSON and a newline.
func (r *Report) JSON() ([]byte, error) {
	b, err := canon.Marshal(r)
	return append(b, '\n'), err
}

// Text gives the report for people.
func (r *Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: execution %s\n", r.Verdict, plain(r.Execution))
	for _, l := range r.Lines {
		status := string(l.Status)
		if l.Key != "" {
			status += " by " + shortKey(l.Key)
		}
		mark := " "
		if l.Required {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %-25s %-30s %s\n", mark, l.Check, status, plain(l.Detail))
	}
	b.WriteString("* required by the trust file\n")
	r.Facts.text(&b)
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", plain(n))
	}
	return b.String()
}

// text prints what the proof says, an empty statement left out.
func (f *Facts) text(b *strings.Builder) {
	decision := string(f.Verdict)
	if len(f.Policies) > 0 {
		decision += " by " + strings.Join(f.Policies, ", ")
	}
	for _, l := range [][2]string{
		{"subject", f.Subject}, {"command", exeq.Readable(f.Command)}, {"decision", decision},
		{"started", f.Started}, {"ended", f.Ended}, {"exit status", f.Exit},
		{"trust ended", f.Revoked},
	} {
		if l[1] != "" {
			fmt.Fprintf(b, "%s: %s\n", l[0], plain(l[1]))
		}
	}
	for _, d := range gather(f.Downgrades) {
		label := "not enforced"
		if what, why, narrowed := strings.Cut(d, ": narrowed: "); narrowed { // less is allowed than rights say
			label, d = "narrowed", what+": "+why
		}
		fmt.Fprintf(b, "%s: %s\n", label, plain(d))
	}
}

// gather joins what is said of several things ("what: why") in the same words.
func gather(downgrades []string) []string {
	of := map[string][]string{}
	var reasons []string
	for _, d := range downgrades {
		what, why, said := strings.Cut(d, ": ")
		if !said {
			what, why = "", d
		}
		if of[why] == nil {
			reasons = append(reasons, why)
		}
		of[why] = append(of[why], what)
	}
	for i, why := range reasons {
		if what := strings.Join(of[why], ", "); what != "" {
			reasons[i] = what + ": " + why
		}
	}
	return reasons
}

// plain keeps what a proof says from steering a terminal.
func plain(s string) string { return strings.ReplaceAll(exeq.EncodeBytes(s), "%25", "%") }

func shortKey(k string) string {
	role, id, _ := strings.Cut(k, " ")
	if len(id) > 12 {
		id = id[:12] + "…"
	}
	return role + " " + id
}
