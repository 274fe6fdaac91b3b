// Package attest appraises evidence: it compares what the enforcing side
// measured at a tick with what was applied at the start and with the rights in
// force, and names every check that failed (RATS, RFC 9334: evidence in,
// appraisal out). It measures nothing itself and knows no policy language.
package attest

import (
	"fmt"
	"maps"
	"slices"

	"github.com/exeq/exeq"
)

// Appraiser implements exeq.Appraiser. Its zero value is ready.
type Appraiser struct{}

// Appraise returns the names of the checks that failed, sorted; none means
// that the lease may be renewed. What could not be measured fails.
func (Appraiser) Appraise(start *exeq.Applied, now *exeq.Evidence, rights *exeq.Rights) []string {
	var f failures
	for _, fault := range now.Faults {
		f.add("not measured: %s", fault)
	}
	f.integrity(now)
	f.environment(start, &now.Environment)
	f.behaviour(now, rights.Quotas)
	f.enforcement(start, now, rights)
	slices.Sort(f.names)
	return slices.Compact(f.names)
}

type failures struct{ names []string }

func (f *failures) add(format string, args ...any) {
	f.names = append(f.names, fmt.Sprintf(format, args...))
}

// integrity: the running programs are the inodes and digests decided on.
func (f *failures) integrity(now *exeq.Evidence) {
	for _, p := range now.Programs {
		switch {
		case p.SHA256.IsZero():
			f.add("program %s runs and was never decided on", p.Path)
		case !p.Intact:
			f.add("program %s is no longer the one that was decided on", p.Path)
		}
	}
}

// environment: boot, identity, namespaces, mounts and filters as at the start.
func (f *failures) environment(start *exeq.Applied, now *exeq.Environment) {
	was := &start.Environment
	if now.BootID != was.BootID || was.BootID == "" {
		f.add("boot id changed")
	}
	if now.UID != was.UID {
		f.add("uid changed from %d to %d", was.UID, now.UID)
	}
	if now.Mounts != was.Mounts {
		f.add("mounts changed")
	}
	for _, name := range slices.Sorted(maps.Keys(was.Namespaces)) {
		if now.Namespaces[name] != was.Namespaces[name] {
			f.add("%s namespace changed", name)
		}
	}
	if now.Seccomp != "filter" {
		f.add("seccomp is %q", now.Seccomp)
	}
	if !now.NoNewPrivs {
		f.add("no_new_privs is off")
	}
	if now.Landlock != was.Landlock {
		f.add("Landlock ABI changed from %d to %d", was.Landlock, now.Landlock)
	}
}

// behaviour: within the permit's quotas.
func (f *failures) behaviour(now *exeq.Evidence, q exeq.Quotas) {
	over := func(name string, got, limit int64) {
		if limit > 0 && got > limit {
			f.add("%v", &exeq.QuotaError{Quota: name, Got: got, Max: limit})
		}
	}
	over("processes", int64(now.Processes), int64(q.Processes))
	over("execs", int64(now.Session.Execs), int64(q.Execs))
	over("denials", int64(now.Session.Denials), int64(q.Denials))
	if wall := now.WallMillis / 1000; q.WallSeconds > 0 && wall >= int64(q.WallSeconds) { // time that is up is used up
		f.add("%v", &exeq.QuotaError{Quota: "wallSeconds", Got: wall, Max: int64(q.WallSeconds)})
	}
	over("outputBytes", now.OutputBytes+now.Session.BytesOut, q.OutputBytes)
}

// enforcement: the tier still holds and both who hold the lease are alive.
func (f *failures) enforcement(start *exeq.Applied, now *exeq.Evidence, rights *exeq.Rights) {
	if start.Tier < rights.TierFloor {
		f.add("tier %s is below the floor %s", start.Tier, rights.TierFloor)
	}
	if !now.Supervisor {
		f.add("supervisor does not answer")
	}
	if !now.Watchdog {
		f.add("watchdog does not answer")
	}
}
