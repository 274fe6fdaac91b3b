package probe

import "github.com/exeq/exeq"

// Limit is something that enforcement does not stop, or stops although it is
// harmless.
type Limit struct {
	// ID is what Applied.Downgrades and the attack table name it by.
	ID string `json:"id"`
	// Tiers are the tiers that have the limit.
	Tiers []exeq.Tier `json:"tiers"`
	// What is not stopped (or, if Blocks, what does not work), in one sentence.
	What string `json:"what"`
	// Instead says what still holds, or what to do about it.
	Instead string `json:"instead"`
	// Blocks: the limit is that something harmless does not work.
	Blocks bool `json:"blocks,omitempty"`
}

// Limits is the one list of honest limits.
func Limits() []Limit {
	every := []exeq.Tier{exeq.TierKernel, exeq.TierKernelLite, exeq.TierRootless, exeq.TierNested}
	user := []exeq.Tier{exeq.TierRootless, exeq.TierNested}
	nested := []exeq.Tier{exeq.TierNested}
	return []Limit{
		{ID: "interpreters", Tiers: every,
			What:    "An allowed interpreter (python, node, sh, awk…) runs whatever code it is given as text, by argument, file, variable or standard input.",
			Instead: "That code has the rights of the execution and no others; allow interpreters only where file and network rights bound what they can do."},
		{ID: "anonymous-code", Tiers: every,
			What:    "Code that a process writes into its own anonymous memory (just-in-time compilers, exploits) is not decided on.",
			Instead: "It runs inside the same file, network and process rights."},
		{ID: "kernel", Tiers: every,
			What:    "A fault of the kernel, of its hardware or of what the kernel shares between processes (timing, caches) passes by every rule.",
			Instead: "The system call list keeps the surface small; run a virtual machine around Exeq where that is not enough."},
		{ID: "same-user", Tiers: user,
			What:    "A process outside with the same user can change Exeq's state, trace its supervisor and hand the execution open descriptors.",
			Instead: "The record proves against the governed side, not against the user who runs Exeq; use exeq-node for that."},
		{ID: "standard-streams", Tiers: every,
			What:    "Standard input, output and error stay what they were: a file, a pipe, a socket or a terminal that Exeq did not choose.",
			Instead: "TIOCSTI and its like are refused, but escape sequences reach the terminal."},
		{ID: "hard-links", Tiers: every,
			What:    "Rules are about paths: content that was hard-linked or copied into a permitted tree before the start is governed by that tree's rules.",
			Instead: "Links and renames out of forbidden paths are refused while it runs."},
		{ID: "names-visible", Tiers: user,
			What:    "That a path exists, its size, owner and times (stat), and what happens in a directory from now on (inotify), can be seen outside the permitted trees unless a mask covers it.",
			Instead: "Content and directory listings cannot be read."},
		{ID: "digest-rules", Tiers: every,
			What:    "A forbid by digest stops these bytes only: the same program with one byte more is another program.",
			Instead: "Forbid by path, or permit by digest: what no permit names does not run."},
		{ID: "arguments", Tiers: every,
			What:    "Arguments are read before the program starts, and another thread can change them until then.",
			Instead: "The program, its file and its rights are not decided by arguments; do not let arguments alone hold a secret back."},
		{ID: "shared-caches", Tiers: user,
			What:    "A cache in the home directory that policy lets an execution write is read by the user's own tools later.",
			Instead: "Delete the line from the policy (home-caches in the starter) to make the cache read-only."},
		{ID: "tmp-directory", Tiers: user, Blocks: true,
			What:    "A program that insists on /tmp itself (tmpfile of the C library, ed) cannot write there.",
			Instead: "TMPDIR names a directory of the execution's own."},
		{ID: "new-programs", Tiers: nested, Blocks: true,
			What:    "Beside a path that may not be read, 256 programs that come into being in one run can run, and none on a file system that makes no files without a name (O_TMPFILE).",
			Instead: "Build into a directory that was there at the start, or use the rootless tier."},
		{ID: "list-with-tree", Tiers: user,
			What:    "Whoever may read everything below a directory may list the directory itself, and nobody may list one without the other.",
			Instead: "Rights that say otherwise are narrowed or named in the evidence."},
		{ID: "absent-masks", Tiers: user,
			What:    "A forbidden path inside a writable tree cannot be covered before it exists.",
			Instead: "The evidence names each such path; create it before the start and it is covered."},
		{ID: "kernel-switches", Tiers: user, Blocks: true,
			What:    "Nothing is ever written below /proc and /sys, whatever the policy allows.",
			Instead: "Programs that set oom_score_adj or comm through /proc go on without."},
		{ID: "set-group-id", Tiers: user,
			What:    "The set-group-ID bit can be put on files (directories need it); only set-user-ID is refused.",
			Instead: "no_new_privs keeps either from having effect inside."},
		{ID: "revocation-delay", Tiers: every,
			What:    "Where a revocation cannot be delivered, an execution goes on until its lease ends.",
			Instead: "The lease is 3 seconds standalone and counts on a clock that does not stop in suspend."},
		{ID: "resources", Tiers: user,
			What:    "Memory and processor time are bounded for each process, not for the tree; disk space and what goes to standard output not at all.",
			Instead: "Quotas of processes, uploads, file size and wall time hold or are checked each tick."},
		{ID: "debuggers", Tiers: user, Blocks: true,
			What:    "Debuggers and strace do not work inside.",
			Instead: "Policy can open ptrace among the processes of one execution."},
		{ID: "own-namespaces", Tiers: user, Blocks: true,
			What:    "Programs that make namespaces, mounts or FUSE file systems of their own (containers, browsers' own sandboxes, bazel's) cannot.",
			Instead: "Run them with their sandbox off: Exeq is one."},
		{ID: "foreign-architecture", Tiers: user, Blocks: true,
			What:    "A 32-bit program is killed at its first system call.",
			Instead: "Its system calls have other numbers, which no rule judges."},
		{ID: "io-uring", Tiers: user, Blocks: true,
			What:    "io_uring is refused.",
			Instead: "Programs fall back to ordinary reads and writes."},
		{ID: "proxy-only", Tiers: user, Blocks: true,
			What:    "A program that does not speak to an HTTP proxy has no network, and there is no DNS inside.",
			Instead: "Set its proxy; HTTP and CONNECT reach every endpoint that policy allows."},
		{ID: "unix-datagrams", Tiers: user, Blocks: true,
			What:    "Unix datagram sockets are refused, so syslog and sd_notify go nowhere.",
			Instead: "Each message could name another path, which no rule sees."},
		{ID: "program-in-unreadable-directory", Tiers: []exeq.Tier{exeq.TierRootless}, Blocks: true,
			What:    "A program allowed by its own path can run only if its directory may be read.",
			Instead: "The copy that runs is reached through the directory: allow reading it."},
		{ID: "script-race", Tiers: nested,
			What:    "A script's text can be changed between the decision on it and its interpreter's reading it, where the execution may write.",
			Instead: "Programs themselves are compared with what was decided on before their first instruction; a script is text for an allowed interpreter."},
		{ID: "mapping-race", Tiers: nested,
			What:    "Threads of one process can put another file under a descriptor while an executable mapping of it is decided on.",
			Instead: "Such threads could as well write the code into anonymous memory. Against other processes what is mapped is a copy of what was decided on."},
		{ID: "own-loader", Tiers: nested, Blocks: true,
			What:    "A program whose dynamic loader lies where the execution may write is refused.",
			Instead: "Use the system's loader, or let policy make the loader's directory read-only."},
		{ID: "supervised-names", Tiers: nested,
			What:    "Where a forbidden path lies inside a writable tree, the supervisor itself opens, makes and renames what comes into being beside it, which is slower.",
			Instead: "What stood there at the start is written at full speed."},
		{ID: "names-listed", Tiers: nested,
			What:    "Where a forbidden path lies inside a readable tree, the names in forbidden directories can be listed.",
			Instead: "Their contents cannot be read; the evidence names the trees."},
		{ID: "listeners", Tiers: nested, Blocks: true,
			What:    "Nothing can listen, since it would be reached from outside the execution.",
			Instead: "Programs and tests that need a server of their own need the rootless tier."},
		{ID: "shared-memory", Tiers: nested, Blocks: true,
			What:    "System V shared memory, semaphores and queues and POSIX queues are refused, since the user's other processes share them by number.",
			Instead: "Shared files and anonymous shared memory work."},
		{ID: "keepers-killed", Tiers: nested,
			What:    "If somebody outside kills supervisor, agent and init at the same moment, the execution goes on without them; each system call that would be asked about then fails.",
			Instead: "Any one of agent and init kills everything when the others end."},
		{ID: "unix-sockets", Tiers: nested, Blocks: true,
			What:    "Unix sockets cannot be made (pairs can), because nothing hides the host's.",
			Instead: "Programs that need one need the rootless tier."},
		{ID: "attributes", Tiers: nested,
			What:    "Modes, owners, times and extended attributes of the user's own files can be changed outside the writable trees.",
			Instead: "Contents and names cannot."},
		{ID: "processes-visible", Tiers: nested,
			What:    "Other processes can be seen in /proc, their command lines included.",
			Instead: "They cannot be signalled, traced, limited or scheduled, and their memory and environment cannot be read."},
		{ID: "no-labels", Tiers: nested, Blocks: true,
			What:    "What sets a label when it is read cannot be read.",
			Instead: "Labelled reads need the rootless tier."},
	}
}
