//go:build linux

package attacks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/probe"
)

// nativeTiers are tested on the machine itself; for kernel see TestKernel.
var nativeTiers = []exeq.Tier{exeq.TierKernelLite, exeq.TierRootless, exeq.TierNested}

// each runs f for every attack and every user who can make it.
func each(t *testing.T, f func(t *testing.T, a Attack, uid int)) {
	for user, uid := range users() {
		for _, fam := range Families {
			for _, a := range fam.Attacks {
				if a.Who != "" && a.Who != user {
					continue
				}
				t.Run(user+"/"+fam.Name+"/"+a.Name, func(t *testing.T) {
					t.Parallel()
					if missing := lacks(a); missing != "" {
						t.Skip(missing)
					}
					f(t, a, uid)
				})
			}
		}
	}
}

// optional are programs that a machine may not have; test/run installs them.
var optional = regexp.MustCompile(`\b(bwrap|curl|dbus-send|ed|gawk|gcore|gdb|node|npm|nsenter|openssl|patch|perl|script|sqlite3|ssh|ssh-add|ssh-keygen|strace|tclsh|vim|zip)\b`)

// lacks says what the machine misses for a row; the kernel's features are
// found by trying.
func lacks(a Attack) string {
	for _, program := range optional.FindAllString(a.Line, -1) {
		if !found(program) {
			return "there is no " + program
		}
	}
	if strings.Contains(a.Line, "-reader ") && os.Getuid() != 0 {
		return "only root can make a program set-user-ID root"
	}
	if strings.Contains(a.Proof.What, "{interface}") && networkInterface() == "lo" {
		return "this machine has no interface that an execution has not"
	}
	switch a.Needs {
	case "x32":
		if _, _, e := syscall.RawSyscall(0x40000000|39, 0, 0, 0); e == syscall.ENOSYS {
			return "this kernel has no x32 system calls at all"
		}
	case "binfmt":
		if b, _ := os.ReadFile("/proc/filesystems"); !bytes.Contains(b, []byte("\tbinfmt_misc\n")) {
			return "this kernel has no binfmt_misc, or not yet"
		}
	case "cgroup2":
		if cgroup2() == "" {
			return "no cgroup v2 hierarchy is mounted whole"
		}
	case "core":
		if b, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); string(b) != "core\n" {
			return "cores are not written where the process is"
		}
	case "lan":
		if ownAddress() == "" {
			return "this machine has no address but loopback"
		}
	case "node":
		if d, err := theNode(); err == nil && d.lacks != nil {
			return d.lacks.Error()
		}
	case "sctp":
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
		if err != nil {
			return "this kernel has no SCTP at all"
		}
		unix.Close(fd)
	}
	return ""
}

// TestControls runs every attack ungoverned: one that cannot succeed proves
// nothing when it fails under Exeq.
func TestControls(t *testing.T) {
	each(t, control)
}

func control(t *testing.T, a Attack, uid int) {
	if won, s, r := ungoverned(t, a, uid); !won {
		t.Errorf("ungoverned, it must succeed: %s, and it did not (exit %d)\nstdout: %s\nstderr: %s",
			s.expand(a.Proof.String()), r.code, clean(r.out), clean(r.err))
	}
}

func ungoverned(t *testing.T, a Attack, uid int) (bool, *scene, *result) {
	s := newScene(t, a, uid)
	if strings.Contains(a.Line, "{state}") {
		s.plant()
		s.mkdir(s.places["state"] + "/policy")
	}
	r := s.run(a, s.argv(a), func(c *exec.Cmd) { c.Process.Kill() })
	if a.Proof.Kind == alive {
		r.gone = len(living(s.places["token"])) == 0
		end(s.places["token"])
	}
	return s.succeeded(t, a.Proof, r), s, r
}

// TestTiers: nobody gets less than what is asked for. A tier that is not in
// force gets no row of the table, so that none passes by the strength of another.
func TestTiers(t *testing.T) {
	for user, uid := range users() {
		for _, tier := range nativeTiers {
			t.Run(user+"/"+tier.String(), func(t *testing.T) {
				switch got, why := achieved(t, tier, uid); {
				case got == exeq.TierNone, got > tier:
					t.Skipf("asked for it and got %s; its rows are not run: %s", got, why)
				case got < tier:
					t.Errorf("asked for it and got the weaker %s", got)
				}
			})
		}
	}
}

// inForce are the tiers that a user gets.
func inForce(t *testing.T, uid int) (tiers []exeq.Tier) {
	for _, tier := range nativeTiers {
		if got, _ := achieved(t, tier, uid); got == tier {
			tiers = append(tiers, tier)
		}
	}
	return tiers
}

// achieved is the tier in force when one is asked for, as the proof says, or
// why there is none.
func achieved(t *testing.T, tier exeq.Tier, uid int) (exeq.Tier, string) {
	t.Helper()
	exeqBinary(t)
	type key struct {
		tier exeq.Tier
		uid  int
	}
	got, _ := tierOf.LoadOrStore(key{tier, uid}, sync.OnceValues(func() (exeq.Tier, string) {
		if tier >= exeq.TierKernelLite {
			d, err := theNode()
			if err != nil {
				t.Error(err)
				return exeq.TierNone, err.Error()
			}
			if why := d.without(tier); why != nil {
				return exeq.TierNone, why.Error()
			}
		}
		s := newScene(t, Attack{}, uid)
		argv := s.governed(Attack{}, tier, []string{"true"})
		argv = slices.Insert(argv, 2, "--proof", s.dir+"/proof")
		if b, err := s.as(exec.Command(argv[0], argv[1:]...)).CombinedOutput(); err != nil {
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 125 || tier != exeq.TierNested || !lacksNested() {
				t.Errorf("tier %s: %v\n%s", tier, err, b)
			}
			return exeq.TierNone, clean(b)
		}
		return provenTier(t, s.dir+"/proof"), ""
	}))
	return got.(func() (exeq.Tier, string))()
}

var tierOf sync.Map

// lacksNested reports whether this machine lacks something that tier nested
// needs; then, and only then, its rows are not run.
var lacksNested = sync.OnceValue(func() bool {
	facts := probe.Full(probe.Options{})
	for _, name := range []string{probe.Landlock, probe.Notify, probe.Ptrace} {
		if f, _ := facts.Get(name); !f.OK {
			return true
		}
	}
	return false
})

// provenTier reads the tier out of a proof's start leaf.
func provenTier(t *testing.T, path string) exeq.Tier {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	var proof struct {
		Leaves []string `json:"leaves"`
	}
	must(t, json.Unmarshal(b, &proof))
	for _, l := range proof.Leaves {
		var leaf struct {
			Kind string `json:"kind"`
			Body struct {
				Tier exeq.Tier `json:"tier"`
			} `json:"body"`
		}
		must(t, json.Unmarshal([]byte(l), &leaf))
		if leaf.Kind == "start" {
			return leaf.Body.Tier
		}
	}
	t.Fatal("the proof has no start leaf")
	return exeq.TierNone
}

// TestAttacks runs every attack under `exeq run` in each tier, and says in one
// line how many there were and what became of them.
func TestAttacks(t *testing.T) {
	var tally tally
	t.Cleanup(func() {
		t.Log(tally.line())
		if world.node != nil {
			world.node.healthy(t)
		}
	})
	each(t, func(t *testing.T, a Attack, uid int) {
		for _, tier := range inForce(t, uid) {
			t.Run(tier.String(), func(t *testing.T) {
				tally.add(tier, uid, attack(t, a, uid, tier))
			})
		}
	})
}

// attack gives the outcome if it is the one that the table expects, and
// otherwise none.
func attack(t *testing.T, a Attack, uid int, tier exeq.Tier) Outcome {
	var s *scene
	r := steady(func() *result {
		s = newScene(t, a, uid)
		return s.run(a, s.governed(a, tier, s.argv(a)), func(*exec.Cmd) { s.revoke() })
	})
	if a.Proof.Kind == alive {
		r.gone = die(s.places["token"], living, 15*time.Second)
		if !r.gone {
			end(s.places["token"])
		}
	}
	want := a.Want(tier)
	if says := s.expand(a.Says); want == Limited && !bytes.Contains(r.err, []byte(says)) {
		t.Errorf("Exeq does not say %q\nstderr: %s", says, clean(r.err))
	}
	got := judge(a, want, s.succeeded(t, a.Proof, r), r)
	switch {
	case got == want, want == Raced && got != "", want == Stopped && (got == Denied || got == Contained || got == Killed):
		return got
	case want == Limited && got != "":
		t.Errorf("%s, and the table calls it the limit %q: the limit is gone, say so", got, a.Limit)
	default:
		t.Errorf("outcome %q, want %q; proof: %s (exit %d)\nstdout: %s\nstderr: %s",
			got, want, s.expand(a.Proof.String()), r.code, clean(r.out), clean(r.err))
	}
	return ""
}

// steady runs something governed, and again where the machine was too busy to
// renew a lease in time: that it dies then is right, and shows nothing of the row.
func steady(run func() *result) *result {
	for try := 1; ; try++ {
		r := run()
		said := string(r.err) + string(r.out)
		if try == 5 || !strings.Contains(said, exeq.ErrLapsed.Error()) && !strings.Contains(said, "no renewal came within the lease") {
			return r
		}
	}
}

// judge names what became of an attack. An empty outcome is none: it never
// began, so nothing was shown.
func judge(a Attack, want Outcome, won bool, r *result) Outcome {
	switch {
	case won && (want == Limited || want == Raced):
		return Limited
	case won:
		return "succeeded"
	case !r.begun() && !(a.Direct && r.code == 126):
		return ""
	case a.Proof.Kind == alive:
		return Killed
	case r.code == 125:
		return "" // Exeq itself failed
	case r.code == 137 || r.code == 159: // SIGKILL, SIGSYS
		return Killed
	case r.code == 0 && strings.HasPrefix(a.Line, "./"):
		return Contained
	}
	return Denied
}

// revoke ends the scene's execution from outside.
func (s *scene) revoke() {
	b, err := s.as(exec.Command(exeqBinary(s.t), "ps", "--state", s.places["state"], "--json")).Output()
	id := firstID(b)
	if err != nil || id == "" {
		s.t.Errorf("exeq ps: %v: %s", err, b)
		return
	}
	if b, err := s.as(exec.Command(exeqBinary(s.t), "revoke", "--state", s.places["state"], "--reason", "test", id)).CombinedOutput(); err != nil {
		s.t.Errorf("exeq revoke: %v\n%s", err, b)
	}
}

// firstID finds the id of the one execution that ps lists.
func firstID(b []byte) string {
	var list []struct {
		ID string `json:"execution"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if d.Decode(&list) == nil && len(list) > 0 {
		return list[0].ID
	}
	return ""
}

// TestLimits: a limit that a row names stands in the one list, for that tier.
func TestLimits(t *testing.T) {
	list := limitTiers()
	for _, o := range OrdinaryWork {
		for _, l := range o.Limits {
			if list[l] == nil {
				t.Errorf("%s: %q is no limit of enforce/probe", o.Name, l)
			}
		}
	}
	for _, f := range Families {
		for _, a := range f.Attacks {
			for _, tier := range nativeTiers {
				if o := a.Want(tier); (o == Limited || o == Raced) && !slices.Contains(list[a.Limit], tier) {
					t.Errorf("%s/%s: %q is no limit of %s in enforce/probe", f.Name, a.Name, a.Limit, tier)
				}
			}
		}
	}
}

// limitTiers gives the tiers of each honest limit.
func limitTiers() map[string][]exeq.Tier {
	list := map[string][]exeq.Tier{}
	for _, l := range probe.Limits() {
		list[l.ID] = l.Tiers
	}
	return list
}

// TestTable checks the table itself.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Families {
		for _, a := range f.Attacks {
			name := f.Name + "/" + a.Name
			if seen[name] {
				t.Errorf("%s stands twice", name)
			}
			seen[name] = true
			limited := false
			for _, tier := range nativeTiers {
				limited = limited || a.Want(tier) == Limited || a.Want(tier) == Raced
				if a.Want(tier) == "" {
					t.Errorf("%s: no outcome for %s", name, tier)
				}
			}
			if limited != (a.Limit != "") {
				t.Errorf("%s: a limit needs a name, and a name a limit", name)
			}
		}
	}
	if len(seen) < 150 {
		t.Errorf("%d attacks, want at least 150", len(seen))
	}
	t.Log(fmt.Sprint(len(seen), " attacks"))
}
