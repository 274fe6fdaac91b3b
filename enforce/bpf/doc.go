// Package bpf is the kernel's half of the tiers kernel-lite and kernel: programs
// that decide by looking up in maps, and the loader that puts them in place, pins
// them and fills the maps.
//
// It knows cgroups, inodes and addresses, and nothing of policy. A governed
// cgroup ([Gate.Govern]) may execute what [Gate.SetPrograms] names and reach
// what [Gate.SetEndpoints] names; everything else kills the process
// (executions, before the first instruction) or fails with EPERM (sockets).
// That holds for every descendant and for uid 0, and of nested governed cgroups
// each must allow.
//
// [LoadKernel] adds what the tier kernel is made of: programs of BPF LSM on the
// same maps, which refuse with EPERM before anything happens. They hold
// executions and executable mappings ([Gate.SetLibraries]), opens and changes of
// files ([Gate.SetPlaces]), unix sockets, other processes, mounts, namespaces,
// bpf and capabilities.
//
// Maps and links are pinned: they hold when the process that made them is dead,
// and [Open] takes them up again. Nothing here is lifted because a process
// ended. [Gate.SelfTest] shows that the gate bites in one cgroup; whoever
// releases a workload before it has passed has no gate.
//
// What this package alone does not hold is in docs/kernel-tiers.md: it stands
// on top of the tier rootless, not instead of it.
package bpf
