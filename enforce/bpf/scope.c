//go:build ignore

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Mandatory scopes: a uid, a cgroup or the whole host inside which nothing
// executes without a permit, whoever starts it. What runs under a permit is
// gate.c's to judge, and passes here; of everything else, what the scope's
// statement does not name dies before its first instruction. A process that
// descends from a scope stays in it, whatever user or cgroup it changes to.
//
// These programs are loaded beside the gate and not with it: a gate may be
// replaced, and a scope does not open meanwhile.

#include "common.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct inode___scope {
	unsigned short i_mode;
	struct { __u32 val; } i_uid;
};

struct cred___scope {
	struct { __u32 val; } uid, suid, euid, fsuid;
};

struct task_struct___scope {
	const struct cred___scope *real_cred;
	struct task_struct___scope *real_parent;
	__s32 tgid;
	char comm[16];
};

struct linux_binprm___scope {
	const char *filename;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

enum kind { OWN = 0, HOST, UID, CGROUP }; /* OWN: the node's, in every scope */
enum mode { REHEARSE = 1, ENFORCE };
enum verdict { DENIED = 1, WOULD, OPENED, UNMARKED };

struct subject {
	__u32 kind;
	__u32 pad;
	__u64 number;
};

struct rule {
	__u64 serial;
	__u64 open_until; /* CLOCK_BOOTTIME, ns: break-glass */
	__u32 mode;
	__u32 pad;
};

// life names what the machine lives by in a scope: a file, or (in trees) a
// directory below which everything counts that root owns and nobody else can
// write.
struct life {
	struct subject of;
	__u64 ino;
	__u32 dev;
	__u32 pad;
};

// descent: the scopes that a process stays in. Keyed as the marks of gate.c.
#define DESCENT 4

struct descent {
	struct subject of[DESCENT];
};

#define NAMED 192

struct attempt {
	__u64 at; /* CLOCK_BOOTTIME, ns */
	struct subject of;
	__u64 ino;
	__s64 ctime_sec;
	__u64 size;
	__u32 ctime_nsec;
	__u32 generation;
	__u32 dev;
	__u32 pid;
	__u32 parent;
	__u32 uid;
	__u8 verdict;
	__u8 why; /* as in gate.c */
	__u8 starter[16]; /* what the parent calls itself */
	__u8 name[NAMED]; /* as the caller named the program */
	__u8 pad[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, struct subject);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__type(key, struct life);
	__type(value, struct version);
} lives SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__type(key, struct life);
	__type(value, __u8);
} trees SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct descent);
} descents SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} attempts SEC(".maps");

// missed counts attempts for which the ring had no room, and [1] processes that
// could not be marked.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} missed SEC(".maps");

// place says in which scopes one thread of a process is; subjects beyond n are
// zero. More than there is room for are told by over.
#define WITHIN 8

struct place {
	__u32 pid; /* of the process */
	__u32 over;
	struct subject of[WITHIN];
};

const struct attempt *attempt_type __attribute__((unused));
const struct place *place_type __attribute__((unused));

static __always_inline void miss(__u32 what)
{
	__u64 *n = bpf_map_lookup_elem(&missed, &what);

	if (n)
		__sync_fetch_and_add(n, 1);
}

// within are the scopes that a process is in. More than there is room for is
// more than can be judged.
struct within {
	struct subject of[WITHIN];
	__u32 n;
	__u32 over;
};

// add takes a subject in that is in force and not there yet.
__noinline int add(struct within *w, __u32 kind, __u64 number)
{
	struct subject s = { .kind = kind, .number = number };
	int i;

	if (!w || !bpf_map_lookup_elem(&rules, &s))
		return 0;
	for (i = 0; i < WITHIN && i < w->n; i++)
		if (w->of[i].kind == kind && w->of[i].number == number)
			return 0;
	if (w->n >= WITHIN) {
		w->over = 1;
		return 0;
	}
	w->of[w->n & (WITHIN - 1)] = s;
	w->n++;
	return 1;
}

// address makes a number of a pointer, which functions that are verified by
// themselves want.
static __always_inline __u64 address(void *p)
{
	__u64 n = 0;

	bpf_probe_read_kernel(&n, sizeof(n), &p);
	return n;
}

// in_cgroup adds the cgroups that contain this one.
static __always_inline void in_cgroup(struct within *w, struct cgroup *c)
{
	struct cgroup_subsys_state *css = &c->self;
	int level;

	for (level = 0; level < 64 && css; level++) {
		add(w, CGROUP, BPF_CORE_READ(css, cgroup, kn, id));
		css = BPF_CORE_READ(css, parent);
	}
}

// scopes_of finds where a process is: by any of its users, by its cgroup, and
// by what it descends from. The whole host is not among them: nobody leaves it.
__noinline int scopes_of(struct within *w, __u64 at)
{
	struct task_struct *task = (struct task_struct *)at;
	struct task_struct___scope *t = (void *)task;
	__u64 process = (__u64)BPF_CORE_READ(task, signal);
	const struct cred___scope *c = BPF_CORE_READ(t, real_cred);
	struct descent *from;
	int i;

	if (!w)
		return 0;
	add(w, UID, BPF_CORE_READ(c, uid.val));
	add(w, UID, BPF_CORE_READ(c, euid.val));
	add(w, UID, BPF_CORE_READ(c, suid.val));
	add(w, UID, BPF_CORE_READ(c, fsuid.val));
	in_cgroup(w, BPF_CORE_READ(task, cgroups, dfl_cgrp));
	from = bpf_map_lookup_elem(&descents, &process);
	for (i = 0; from && i < DESCENT; i++)
		if (from->of[i].kind)
			add(w, from->of[i].kind, from->of[i].number);
	return w->n;
}

// keep marks the task's process with the scopes, which it and its descendants
// stay in. It fails where there is no room.
static __always_inline int keep(struct task_struct *task, struct within *w)
{
	__u64 process = (__u64)BPF_CORE_READ(task, signal);
	struct descent fresh = {}, *has;
	int i;

	if (!w->n)
		return 0;
	if (w->over || w->n > DESCENT)
		return -1;
	fresh.of[0] = w->of[0];
	fresh.of[1] = w->of[1];
	fresh.of[2] = w->of[2];
	fresh.of[3] = w->of[3]; // beyond n they are zero
	has = bpf_map_lookup_elem(&descents, &process);
	for (i = 0; has && i < DESCENT; i++)
		if (has->of[i].kind != fresh.of[i].kind || has->of[i].number != fresh.of[i].number)
			has = 0;
	return has ? 0 : bpf_map_update_elem(&descents, &process, &fresh, 0);
}

// order has the node kill what the kernel could not: by the gate's ring of orders,
// which no flood of attempts fills. One that finds no room is counted as missed.
static __always_inline void order(__u8 verb, __u8 why, __u32 pid)
{
	struct event e = { .verb = verb, .why = why | NOT_KILLED, .pid = pid };

	e.at = bpf_ktime_get_boot_ns();
	e.uid = bpf_get_current_uid_gid();
	if (bpf_ringbuf_output(&orders, &e, sizeof(e), BPF_RB_FORCE_WAKEUP))
		miss(0);
}

// held says whether any of the scopes is enforced now.
__noinline int held(struct within *w)
{
	int i;

	if (!w)
		return 0;
	for (i = 0; i < WITHIN && i < w->n; i++) {
		struct subject s = w->of[i]; // before Linux 6.2 a key lies on the stack
		struct rule *r = bpf_map_lookup_elem(&rules, &s);

		if (r && r->mode == ENFORCE && bpf_ktime_get_boot_ns() >= r->open_until)
			return 1;
	}
	return 0;
}

// unmarked tells of a process that could not be marked, and that is to die where it
// would leave a scope that is enforced.
static __always_inline void unmarked(struct task_struct *task, struct within *w, int ends)
{
	struct attempt *a = bpf_ringbuf_reserve(&attempts, sizeof(*a), 0);

	miss(1);
	if (ends && held(w))
		order(MOVE, LEFT, BPF_CORE_READ((struct task_struct___scope *)(void *)task, tgid));
	if (!a) {
		miss(0);
		return;
	}
	__builtin_memset(a, 0, sizeof(*a));
	a->at = bpf_ktime_get_boot_ns();
	a->of = w->of[0];
	a->verdict = UNMARKED;
	a->why = LEFT;
	a->pid = BPF_CORE_READ(task, tgid);
	bpf_ringbuf_submit(a, BPF_RB_FORCE_WAKEUP);
}

// in_tree says whether a file lies below one of the scope's directories, and it
// and every directory on the way is root's alone to change.
#define TREE_DEPTH 40

__noinline int in_tree(__u32 kind, __u64 number, __u64 at)
{
	struct dentry *d = (struct dentry *)at, *up;
	struct life key = { .of = { .kind = kind, .number = number } };
	int i;

	for (i = 0; i < TREE_DEPTH; i++) {
		struct inode *inode = BPF_CORE_READ(d, d_inode);
		struct inode___scope *owned = (void *)inode;

		if (!inode || BPF_CORE_READ(owned, i_uid.val) || BPF_CORE_READ(owned, i_mode) & 022)
			return 0;
		key.ino = BPF_CORE_READ(inode, i_ino);
		key.dev = BPF_CORE_READ(inode, i_sb, s_dev);
		if (i && bpf_map_lookup_elem(&trees, &key))
			return 1;
		up = BPF_CORE_READ(d, d_parent);
		if (up == d)
			return 0;
		d = up;
	}
	return 0;
}

// unnamed says why the file is not what a scope lives by, or 0.
static __always_inline int unnamed(struct life *key, struct version *v, struct file *file)
{
	int why = differs(bpf_map_lookup_elem(&lives, key), v, R_EXEC);

	return why && in_tree(key->of.kind, key->of.number, address(BPF_CORE_READ(file, f_path.dentry))) ? 0 : why;
}

static __always_inline void tell(struct life *key, struct version *v, struct linux_binprm *bprm, __u8 verdict, __u8 why)
{
	struct task_struct___scope *t = (void *)bpf_get_current_task(), *parent = BPF_CORE_READ(t, real_parent);
	struct attempt *a = bpf_ringbuf_reserve(&attempts, sizeof(*a), 0);
	struct linux_binprm___scope *b = (void *)bprm;

	if (!a) {
		miss(0);
		return;
	}
	__builtin_memset(a, 0, sizeof(*a));
	a->at = bpf_ktime_get_boot_ns();
	a->of = key->of;
	a->ino = key->ino;
	a->dev = key->dev;
	a->ctime_sec = v->ctime_sec;
	a->ctime_nsec = v->ctime_nsec;
	a->size = v->size;
	a->generation = v->generation;
	a->verdict = verdict;
	a->why = why;
	a->pid = bpf_get_current_pid_tgid() >> 32;
	a->uid = bpf_get_current_uid_gid();
	a->parent = BPF_CORE_READ(parent, tgid);
	bpf_probe_read_kernel(a->starter, sizeof(a->starter), &parent->comm);
	bpf_probe_read_kernel_str(a->name, sizeof(a->name), BPF_CORE_READ(b, filename));
	bpf_ringbuf_submit(a, verdict == WOULD ? 0 : BPF_RB_FORCE_WAKEUP);
}

// under_permit: the gate judges the process, whoever it descends from.
static __always_inline int under_permit(void)
{
	struct mark *mark = MINE();
	struct scope *g;
	__u64 id;
	int i;

	EACH_GOVERNED(i, id, g, mark) return 1;
	return 0;
}

// begun runs where gate.c's exec does, in the task that executes, before its
// first instruction. Users are those that it has from here on: a login that
// becomes its user first, and a set-user-id program, are in that user's scope.
SEC("tp_btf/sched_process_exec")
int BPF_PROG(begun, struct task_struct *p, int old_pid, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct program file = {};
	struct within w = {};
	struct life key = {};
	struct version v = {};
	int i, kept, own, killed = 0;
	struct rule *r;

	scopes_of(&w, address(task));
	kept = keep(task, &w);
	if (under_permit())
		return 0; // it stays where it was when its permit is over
	add(&w, HOST, 0);
	if (!w.n)
		return 0;
	identity_of(BPF_CORE_READ(bprm, file, f_inode), &file, &v);
	key.ino = file.ino;
	key.dev = file.dev;
	own = !differs(bpf_map_lookup_elem(&lives, &key), &v, R_EXEC);
	for (i = 0; i < WITHIN && i < w.n; i++) {
		__u8 verdict, why;

		key.of = w.of[i];
		r = bpf_map_lookup_elem(&rules, &key.of);
		if (!r)
			continue;
		why = own ? 0 : unnamed(&key, &v, BPF_CORE_READ(bprm, file));
		if (kept || w.over)
			why = LEFT;
		if (!why)
			continue;
		if (r->mode != ENFORCE)
			verdict = WOULD;
		else
			verdict = bpf_ktime_get_boot_ns() < r->open_until ? OPENED : DENIED;
		if (verdict == DENIED && !killed) {
			killed = 1;
			if (bpf_send_signal(9) && bpf_send_signal(9)) {
				order(EXEC, why, bpf_get_current_pid_tgid() >> 32);
				why |= NOT_KILLED;
			}
		}
		tell(&key, &v, bprm, verdict, why);
	}
	return 0;
}

// born marks a child with what its parent is in, before it runs.
SEC("tp_btf/sched_process_fork")
int BPF_PROG(born, struct task_struct *parent, struct task_struct *child)
{
	struct within w = {};

	if (scopes_of(&w, address(bpf_get_current_task_btf())) && keep(child, &w))
		unmarked(child, &w, 1);
	return 0;
}

// moved marks what is put into a scope's cgroup: it stays in the scope when it
// is taken out again.
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(moved, struct cgroup *to, const char *path, struct task_struct *task, int threadgroup)
{
	struct within w = {};

	if (scopes_of(&w, address(task)) && keep(task, &w))
		unmarked(task, &w, 0); // it stays for as long as it is there
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(done, struct task_struct *task)
{
	__u64 process = (__u64)BPF_CORE_READ(task, signal);

	if (BPF_CORE_READ(task, signal, live.counter) == 0)
		bpf_map_delete_elem(&descents, &process);
	return 0;
}

// sweep marks what is in a scope already when it is declared.
SEC("iter/task")
int sweep(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct within w = {};

	if (task && scopes_of(&w, address(task)) && keep(task, &w))
		unmarked(task, &w, 0);
	return 0;
}

// where tells of every thread in which scopes it is, but for the host's.
SEC("iter/task")
int where(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct within w = {};
	struct place p = {};
	int i;

	if (!task)
		return 0;
	scopes_of(&w, address(task));
	p.pid = BPF_CORE_READ((struct task_struct___scope *)(void *)task, tgid);
	p.over = w.over;
	for (i = 0; i < WITHIN; i++)
		p.of[i] = w.of[i];
	bpf_seq_write(ctx->meta->seq, &p, sizeof(p));
	return 0;
}
