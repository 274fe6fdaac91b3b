//go:build linux

package probe

import (
	"github.com/exeq/exeq"
)

// Names of facts.
const (
	Namespaces  = "namespaces"      // user, mount, pid, net, ipc, uts namespaces whose mounts we may change
	Landlock    = "landlock"        // refuses an open, at the ABI in Facts.LandlockABI
	Notify      = "seccomp-notify"  // a notified call is answered, with ADDFD and WAIT_KILLABLE_RECV
	StoreExec   = "store"           // programs in the scratch directory may run
	Ptrace      = "ptrace"          // a child can be traced
	Cgroup      = "cgroup2"         // a cgroup of our own can be made
	BPFTracing  = "bpf-tracing"     // a program loads on sched_process_exec
	BPFLSM      = "bpf-lsm"         // a program loads on a security hook
	FSVerity    = "fs-verity"       // a file of the scratch directory can be sealed
	IMA         = "ima"             // the kernel measures what it runs
	PidfdGetfd  = "pidfd-getfd"     // descriptors can be taken from a child
	MemfdNoexec = "vm.memfd_noexec" // the pid namespace can seal every memfd
	Container   = "container"       // not inside a container
)

// Fact is the result of one trial.
type Fact struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail says what was seen, Do what a person can do about a fact that is
	// not OK ("" if nothing).
	Detail string `json:"detail"`
	Do     string `json:"do,omitempty"`
}

// Facts is what was found out.
type Facts struct {
	List        []Fact `json:"facts"`
	LandlockABI int    `json:"landlockABI"`
}

// Options of a probe.
type Options struct {
	// Scratch is where the store of programs would lie; "" leaves the facts
	// about it out.
	Scratch string
}

// Get gives the fact of that name, and whether it was tried.
func (f *Facts) Get(name string) (Fact, bool) {
	for _, x := range f.List {
		if x.Name == name {
			return x, true
		}
	}
	return Fact{}, false
}

func (f *Facts) ok(name string) bool {
	x, tried := f.Get(name)
	return tried && x.OK
}

func (f *Facts) add(name string, err error, detail, do string) {
	x := Fact{Name: name, OK: err == nil, Detail: detail}
	if err != nil {
		x.Detail, x.Do = err.Error(), do
	}
	f.List = append(f.List, x)
}

// Probe tries what `exeq run` needs to choose its tier. Call it before the
// heap grows: it forks once.
func Probe(o Options) Facts {
	var f Facts
	namespaces := make(chan error, 1)
	go func() { namespaces <- tryNamespaces() }() // the slow one
	f.landlock()
	f.add(Notify, tryNotify(), "a call was answered, ADDFD and WAIT_KILLABLE_RECV included",
		"needs Linux 5.19 with CONFIG_SECCOMP_FILTER; a container's seccomp profile must allow seccomp(2)")
	f.add(Namespaces, <-namespaces, "made, and their mounts changed",
		"allow unprivileged user namespaces (kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0, "+
			"kernel.apparmor_restrict_unprivileged_userns=0), or run outside the container")
	if o.Scratch != "" {
		f.add(StoreExec, tryExecMount(o.Scratch), "programs in "+o.Scratch+" may run",
			"choose a --state directory that is not mounted noexec")
	}
	return f
}

// Full tries everything, for `exeq doctor`.
func Full(o Options) Facts {
	f := Probe(o)
	f.more(o)
	return f
}

func (f *Facts) landlock() {
	abi, err := tryLandlock()
	f.LandlockABI = abi
	f.add(Landlock, err, "refused an open, ABI "+itoa(abi), "needs Linux 6.2 or later with landlock among the lsm= modules")
}

// nestedABI is the Landlock ABI that scopes signals (Linux 6.12).
const nestedABI = 6

// BestTier is the strongest tier that the facts carry and, for each stronger
// one, the reason why not. The tiers of the node daemon (kernel, kernel-lite)
// are not this process's to offer.
func BestTier(f Facts) (exeq.Tier, []string) {
	why := []string{
		"kernel: needs exeq-node",
		"kernel-lite: needs exeq-node",
	}
	missing := func(names ...string) string {
		for _, n := range names {
			if x, tried := f.Get(n); !x.OK && (tried || n != StoreExec) {
				return n + ": " + x.Detail
			}
		}
		return ""
	}
	m := missing(Landlock, Notify, Namespaces, StoreExec)
	if m == "" {
		return exeq.TierRootless, why
	}
	why = append(why, "rootless: "+m)
	m = missing(Landlock, Notify)
	if m == "" && f.LandlockABI < nestedABI {
		m = "landlock: ABI " + itoa(f.LandlockABI) + " cannot keep signals inside"
	}
	if m == "" {
		return exeq.TierNested, why
	}
	return exeq.TierNone, append(why, "nested: "+m)
}
