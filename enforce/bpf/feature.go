//go:build linux

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

var (
	// ErrNotLoaded: there are no pins in the directory.
	ErrNotLoaded = errors.New("no gate is pinned there")
	// ErrOtherBuild: the pinned programs come from another build of Exeq.
	ErrOtherBuild = errors.New("the pinned gate is of another build")
	// ErrBroken: pins are missing or a hook is attached to nothing.
	ErrBroken = errors.New("the pinned gate is not whole")
	// ErrNotGoverned: the cgroup is not governed.
	ErrNotGoverned = errors.New("the cgroup is not governed")
	// ErrWriters: the file can be written through what is open now.
	ErrWriters = errors.New("it is open for writing")
	// ErrTheirs: the file's system is a user's own program, or may stand on one.
	ErrTheirs = errors.New("its file system (FUSE) answers as a user likes")
	// ErrRevoked: what was revoked stays so.
	ErrRevoked = errors.New("the cgroup is revoked")
)

// FeatureError says what the kernel lacks.
type FeatureError struct {
	Feature string // what was tried
	Needs   string // what would carry it
	Err     error  // what the kernel said
}

func (e *FeatureError) Error() string {
	return fmt.Sprintf("%s: %v (needs %s)", e.Feature, e.Err, e.Needs)
}

func (e *FeatureError) Unwrap() []error { return []error{e.Err, exeq.ErrEnforce} }

// hook is one program and where it is attached.
type hook struct {
	name     string // of the program in gate.c
	feature  string
	needs    string
	optional bool // newer than the rest of the tier
}

// instead are optional hooks without which the kernel asks another one of ours:
// nothing is missing.
var instead = map[string]bool{lsmProgCheckIoctl32: true}

// lacks takes down what the kernel does not have.
func (g *Gate) lacks(h hook, why error) {
	if !instead[h.name] {
		g.missing = append(g.missing, why.Error())
	}
}

var hooks = []hook{
	{gateProgExec, "tracepoint sched_process_exec with types", "root, Linux 5.11 with CONFIG_DEBUG_INFO_BTF, CONFIG_BPF_EVENTS", false},
	{gateProgFork, "tracepoint sched_process_fork with types", "root, Linux 5.11 with CONFIG_DEBUG_INFO_BTF, CONFIG_BPF_EVENTS", false},
	{gateProgMove, "tracepoint cgroup_attach_task with types", "root, Linux 5.11 with CONFIG_DEBUG_INFO_BTF, CONFIG_BPF_EVENTS", false},
	{gateProgGone, "tracepoint sched_process_exit with types", "root, Linux 5.11 with CONFIG_DEBUG_INFO_BTF, CONFIG_BPF_EVENTS", false},
	{gateProgConnect4, "cgroup hook connect4", cgroupNeeds, false},
	{gateProgConnect6, "cgroup hook connect6", cgroupNeeds, false},
	{gateProgSendmsg4, "cgroup hook sendmsg4", cgroupNeeds, false},
	{gateProgSendmsg6, "cgroup hook sendmsg6", cgroupNeeds, false},
	{gateProgBind4, "cgroup hook bind4", cgroupNeeds, false},
	{gateProgBind6, "cgroup hook bind6", cgroupNeeds, false},
	{gateProgSockCreate, "cgroup hook sock_create", cgroupNeeds, false},
	{gateProgConnectUnix, "cgroup hook connect_unix", unixNeeds, true},
	{gateProgSendmsgUnix, "cgroup hook sendmsg_unix", unixNeeds, true},
}

const (
	cgroupNeeds = "root, Linux 5.11 with CONFIG_CGROUP_BPF and cgroup v2"
	unixNeeds   = "root, Linux 6.7 with CONFIG_CGROUP_BPF and cgroup v2"
)

// identify is not attached anywhere.
var identifyHook = hook{gateProgIdentify, "program of type syscall", "root, Linux 5.14 with CONFIG_DEBUG_INFO_BTF", false}

// try loads one program alone. The error is a *FeatureError only if the kernel
// does not have the hook at all.
func try(spec *ebpf.CollectionSpec, h hook) error {
	one := spec.Copy()
	for n := range one.Programs {
		if n != h.name {
			delete(one.Programs, n)
		}
	}
	c, err := ebpf.NewCollection(one)
	if err == nil {
		c.Close()
		return nil
	}
	if lacks := absent(spec, h); lacks != nil {
		return lacks
	}
	return fmt.Errorf("the kernel has %s, but not for this program: %w", h.feature, err)
}

// absent says why the kernel does not have the hook at all, or nil if it has.
// It tries a program that does nothing: one of ours that the kernel refuses
// although it has the hook is a fault, never a hook that is missing.
func absent(spec *ebpf.CollectionSpec, h hook) error {
	s := spec.Programs[h.name]
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: s.Type, AttachType: s.AttachType, AttachTo: s.AttachTo, Flags: s.Flags, License: s.License,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return &FeatureError{h.feature, h.needs, err}
	}
	p.Close()
	return nil
}

// killsOthers says why the gate cannot kill what another process moves out of a
// governed cgroup, or nil: it then is told (Event.Alive), and what was moved
// stays governed in what it executes and connects.
func killsOthers() error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return err
	}
	var f *btf.Func
	if err := kernel.TypeByName("bpf_send_signal_task", &f); err != nil {
		return &FeatureError{"death of what another moves out of its cgroup", "Linux 6.13", err}
	}
	return nil
}

// isBPFFS: pins hold only there.
func isBPFFS(dir string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if uint32(s.Type) != unix.BPF_FS_MAGIC {
		return &FeatureError{dir + " as a directory for pins", "a bpf file system: mount -t bpf bpf DIR", unix.EINVAL}
	}
	return nil
}
