//go:build linux

package attacks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/test/vm"
)

// TestKernel runs in tier kernel what it can of the attacks, as root and as an
// ordinary user, in a machine with Debian's kernel: the one that the other tiers
// are tested on may have no BPF LSM.
func TestKernel(t *testing.T) {
	if os.Getenv(inMachine) != "" {
		inside(t)
		return
	}
	t.Parallel()
	for _, program := range []func() (string, error){exeqPath, nodePath} {
		if _, err := program(); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(world.dir, "bin")
	files := []string{bin, "/usr/bin/true", "/usr/bin/id"}
	for _, name := range shellTools {
		if p, err := exec.LookPath(name); err == nil {
			files = append(files, p)
		}
	}
	vm.Test(t, vm.Tests{Kernel: "6.12", Run: "^TestKernel$", Files: files,
		Env: []string{inMachine + "=" + bin}, OwnTime: true, Timeout: 12 * time.Minute})
}

// shellTools are there for the rows whose line is for a shell.
var shellTools = []string{"bash", "sh", "cat", "chmod", "cp", "dd", "env", "find", "grep", "head", "ln", "ls", "mkdir", "mv",
	"rm", "sed", "sleep", "tail", "tee", "touch"}

// shellRows bounds how many of these are run, each in an execution of its own:
// they share no files, so that none is refused for what another left.
const shellRows = 12

// inside is the machine's part. There a program takes tens of times as long, so
// the rows of one policy share a scene and an execution, in which one program
// starts them one after the other; each is first shown to succeed ungoverned in
// a scene of its own, once for both users. What is left out is named.
func inside(t *testing.T) {
	var tally tally
	left := 0
	leave := func(name, why string) {
		left++
		fmt.Printf("left out: %s: %s\n", name, why)
	}
	var rows, shell []Attack
	for _, fam := range Families {
		for _, a := range fam.Attacks {
			a.Name = fam.Name + "/" + a.Name
			switch why := stays(a); why {
			case "":
				if wins(t, a, leave) {
					rows = append(rows, a)
				}
			case forShell:
				shell = append(shell, a)
			default:
				leave(a.Name, why)
			}
		}
	}
	var alone []Attack
	for i := range shell { // from all over the table
		a := shell[i*spread%len(shell)]
		switch {
		case a.Who != "" || len(alone) == shellRows:
			leave(a.Name, forShell)
		case wins(t, a, leave):
			alone = append(alone, a)
		}
	}
	for user, uid := range users() {
		got, why := achieved(t, exeq.TierKernel, uid)
		if got != exeq.TierKernel {
			t.Fatalf("%s asked for kernel and got %s: %s", user, got, why)
		}
		for name, policy := range map[string]string{"noTool": noTool, "starter": ""} {
			t.Run(user+"/"+name, func(t *testing.T) {
				var mine []Attack
				for _, a := range rows {
					if a.Policy == policy && (a.Who == "" || a.Who == user) {
						mine = append(mine, a)
					}
				}
				together(t, mine, policy, uid, &tally)
			})
		}
		for _, a := range alone {
			t.Run(user+"/"+a.Name, func(t *testing.T) {
				tally.add(exeq.TierKernel, uid, attack(t, a, uid, exeq.TierKernel))
			})
		}
	}
	fmt.Printf("%s; %d attacks left out\n", tally.line(), left)
}

// wins shows that an attack succeeds ungoverned.
func wins(t *testing.T, a Attack, leave func(name, why string)) (won bool) {
	uid := 0
	if a.Who == "user" {
		uid = users()["user"]
	}
	t.Run("control/"+a.Name, func(t *testing.T) {
		var r *result
		if won, _, r = ungoverned(t, a, uid); !won {
			leave(a.Name, fmt.Sprintf("there it does not even succeed ungoverned (%d, %q)", r.code, clean(r.err)))
		}
	})
	return won
}

// together runs attacks in one execution and judges each.
func together(t *testing.T, all []Attack, policy string, uid int, tally *tally) {
	var lines strings.Builder
	for _, a := range all {
		fmt.Fprintln(&lines, a.Line)
	}
	whole := Attack{Line: "./each \n" + lines.String(), Policy: policy}
	s := newScene(t, whole, uid)
	mark := random("mark-")
	s.write(s.places["ws"]+"/list", mark+"\n"+s.expand(lines.String()), 0o644)
	for _, a := range all {
		s.note(a)
	}
	r := s.run(Attack{}, s.governed(whole, exeq.TierKernel, []string{"./each", "list"}), nil)
	r.gone = die(s.places["token"], living, 15*time.Second)
	said := strings.Split(string(r.out), mark)
	if len(said) != len(all)+1 {
		t.Fatalf("%d of %d attacks came to an end (exit %d)\nstdout: %s\nstderr: %s", len(said)-1, len(all), r.code, clean(r.out), clean(r.err))
	}
	for i, a := range all {
		one := &result{out: []byte(said[i]), gone: r.gone}
		fmt.Sscan(said[i+1], &one.code)
		want := a.Want(exeq.TierKernel)
		got := judge(a, want, s.succeeded(t, a.Proof, one), one)
		if got != want && !(want == Stopped && (got == Denied || got == Contained || got == Killed)) {
			t.Errorf("%s: outcome %q, want %q; proof: %s (exit %d)\n%s", a.Name, got, want, s.expand(a.Proof.String()), one.code, clean(one.out))
			got = ""
		}
		tally.add(exeq.TierKernel, uid, got)
	}
}

const forShell = "its line is for a shell and its tools"

// spread is prime to every number of rows that is no multiple of it.
const spread = 101

// stays says why a row is not run in the machine.
func stays(a Attack) string {
	program, _, _ := strings.Cut(strings.TrimPrefix(a.Line, "./"), " ")
	switch {
	case a.Wrap != "" || a.Terminal || a.Deep || a.Direct || a.Quotas != (exeq.Quotas{}):
		return "it needs an execution or a world of its own"
	case a.Policy != noTool && a.Policy != "":
		return "it has a policy of its own"
	case a.Then != "":
		return "somebody outside must act while it runs"
	case !strings.HasPrefix(a.Line, "./") || strings.ContainsAny(a.Line, ";&|'\"\\*"):
		return forShell
	case program == "race" || strings.HasPrefix(a.Line, "./proc sweep"):
		return "it takes too long on a processor that is interpreted"
	case world.programs[program] == "" && !strings.HasSuffix(program, "-reader"):
		return "there is no " + program
	}
	return lacks(a)
}
