// Package attacks holds two tables: programs that try to break out of an
// execution, and ordinary work that must not be blocked. The tests run each
// attack ungoverned first, where it must succeed, and then under `exeq run` in
// each tier, where the proof of its success must be missing, or the row names
// the honest limit that lets it through.
package attacks

import (
	"fmt"

	"github.com/exeq/exeq"
)

// Outcome is what became of an attack.
type Outcome string

const (
	// Denied: the attempt was made and refused.
	Denied Outcome = "denied"
	// Killed: Exeq ended it.
	Killed Outcome = "killed"
	// Contained: the attack believes that it won, and nothing outside shows it.
	Contained Outcome = "contained"
	// Stopped: any of these; for races, where the moment decides.
	Stopped Outcome = "denied, killed or contained"
	// Limited: it succeeds, by the limit that the row names.
	Limited Outcome = "limit"
	// Raced: Limited or Stopped; the moment decides.
	Raced Outcome = "limit, or stopped"
)

// Attack is one program that really tries.
type Attack struct {
	Name string
	// Line is what runs in the workspace: "./program technique arg…" (one of
	// testdata, started directly) or else a line for bash. Words in braces
	// are the places of a scene, see the test harness.
	Line string
	// Proof is the mark that only success leaves.
	Proof Proof
	// Expect is the outcome per tier, see Want; nil is Denied in each.
	Expect map[exeq.Tier]Outcome
	// Limit names the honest limit where an outcome is Limited.
	Limit string
	// Says is what Exeq must tell the person when it lets a limit through.
	Says string
	// Who is "root" or "user" if only they can do it ungoverned.
	Who string
	// Policy is a Cedar text to put beside the starter policy.
	Policy string
	Quotas exeq.Quotas
	// Deep puts state and policy two levels below the workspace, with a file of
	// the policy that is a link: {state}, {policy} and {linkedpolicy}.
	Deep bool
	// Then is what happens outside once the attack is ready: "crash" (the
	// supervisor is killed), "revoke", "touch", "hand in", "dial", "talk".
	Then string
	// Terminal runs it on a terminal that a shell outside reads afterwards.
	Terminal bool
	// Wrap runs it, governed or not, inside a world that the harness builds:
	// "metadata" or "hosts".
	Wrap string
	// Needs names what not even the control can succeed without, of the kernel
	// or the machine can succeed, see lacks.
	Needs string
	// Direct says that the attack is the command itself: it may be refused
	// before it begins.
	Direct bool
}

// Family groups attacks as attacks.md does.
type Family struct {
	Name    string
	Attacks []Attack
}

// Families is the whole table.
var Families = []Family{
	pathIdentity, interpreters, shellStrings, unixSockets, races, unseenCalls,
	memory, network, processes, guard, secrets, machine, sharedMemory, kill,
}

// Want is the outcome in a tier. What a row does not say of a tier is what it
// says of the one that it stands on: kernel-lite does all that rootless does,
// and kernel all that kernel-lite does.
func (a Attack) Want(t exeq.Tier) Outcome {
	if a.Expect == nil {
		return Denied
	}
	for _, below := range []exeq.Tier{exeq.TierKernel, exeq.TierKernelLite, exeq.TierRootless, exeq.TierNested} {
		if o := a.Expect[below]; o != "" && below <= t {
			return o
		}
	}
	return ""
}

// Outcomes in each tier, or in rootless and nested apart.
func every(o Outcome) map[exeq.Tier]Outcome { return tiers(o, o) }

func tiers(rootless, nested Outcome) map[exeq.Tier]Outcome {
	return map[exeq.Tier]Outcome{exeq.TierRootless: rootless, exeq.TierNested: nested}
}

// lonely: a socket that nothing outside hears. In rootless the namespace keeps
// what is said; in kernel-lite the gate, and in nested the supervisor, refuse it.
func lonely() map[exeq.Tier]Outcome {
	o := tiers(Contained, Denied)
	o[exeq.TierKernelLite] = Denied
	return o
}

// unlessKernel is tiers, and what the kernel's own gate refuses.
func unlessKernel(rootless, nested Outcome) map[exeq.Tier]Outcome {
	o := tiers(rootless, nested)
	o[exeq.TierKernel] = Denied
	return o
}

// Proof is how the harness knows that an attack succeeded; it never asks the
// attack's exit status.
type Proof struct {
	Kind ProofKind
	// What is the text or path that the kind looks for.
	What string
}

// ProofKind names a place where the mark is looked for.
type ProofKind string

const (
	output   ProofKind = "the output holds"
	heard    ProofKind = "a listener outside heard"
	changed  ProofKind = "changed outside:"
	made     ProofKind = "made outside:"
	holding  ProofKind = "the token stands in"
	resumed  ProofKind = "run by git rebase --continue in"
	alive    ProofKind = "a process lives on"
	hurt     ProofKind = "the process outside is changed"
	modified ProofKind = "the memory outside holds"
)

func (p Proof) String() string { return fmt.Sprintf("%s %q", p.Kind, p.What) }

// prints: the text stands in what the attack wrote.
func prints(text string) Proof { return Proof{output, text} }

// hears: a listener outside the execution received the text.
func hears(text string) Proof { return Proof{heard, text} }

// changes: the file's bytes, mode, owner, times or attributes are not as before.
func changes(path string) Proof { return Proof{changed, path} }

// makes: the path exists afterwards.
func makes(path string) Proof { return Proof{made, path} }

// holds: the file afterwards contains the token.
func holds(path string) Proof { return Proof{holding, path} }

// resumes: once somebody continues the rebase in the worktree, {out}/resumed
// exists.
func resumes(worktree string) Proof { return Proof{resumed, worktree} }

// rebasing leaves a rebase open in a worktree, whose next step is a command.
func rebasing(worktree string) string {
	return "H=$(git -C " + worktree + " rev-parse HEAD) && D=$(git -C " + worktree + ` rev-parse --absolute-git-dir)/rebase-merge && mkdir -p $D && cd $D &&
		echo 'detached HEAD' >head-name && echo $H >onto && echo $H >orig-head && echo 'exec touch {out}/resumed' >git-rebase-todo && : >done && : >interactive && echo 1 >end && echo 1 >msgnum`
}

var (
	// survives: a process with the token in its command line lives afterwards.
	survives = Proof{alive, "{token}"}
	// hits: the victim is dead, stopped, or has other limits than before.
	hits = Proof{hurt, "{victim}"}
	// overwrites: the victim's secret is now the token.
	overwrites = Proof{modified, "{token}"}

	toolRan   = prints("FORBIDDEN-PROGRAM-RAN")
	libRan    = prints("FORBIDDEN-LIBRARY-RAN")
	codeRan   = prints("FORBIDDEN-CODE-RAN")
	loaderRan = prints("FORBIDDEN-LOADER-RAN")
	secretOut = prints("{SECRET}")
)

// Policies beside the starter.
const (
	// noTool forbids programs, a library, a blob of code and a script by their
	// bytes, wherever they lie. They are readable, so that only the exec
	// gate stands before them.
	noTool = `
@id("no-tool")
forbid (principal, action in [Exeq::Action::"run", Exeq::Action::"exec"], resource)
when { ["{TOOLHASH}", "{LIBHASH}", "{CODEHASH}", "{LOADERHASH}", "{SCRIPTHASH}"].contains(resource.sha256) };
`
	// noArgument forbids an argument.
	noArgument = `
@id("no-argument")
forbid (principal, action in [Exeq::Action::"run", Exeq::Action::"exec"], resource)
when { context.args.contains("forbidden-argument") };
`
	// anyHost opens the network as far as policy can without naming a
	// loopback or link-local address.
	anyHost = `
@id("any-host")
permit (principal, action == Exeq::Action::"connect", resource);
`
)
