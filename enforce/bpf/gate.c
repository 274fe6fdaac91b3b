//go:build ignore

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// The kernel's half of the tier kernel-lite. Everything here is a decision by
// lookup: user space fills the maps, these programs only read them. A governed
// cgroup is one whose id is in the map `governed`; whatever runs in it or below
// it is governed, and where several of its ancestors are governed, each of them
// must allow. What no map names is refused. A task keeps what governs it when it
// is moved to another cgroup, and so do its children.

#include "common.h"

// event is no map's type: naming it here puts it among the generated Go types.
const struct event *event_type __attribute__((unused));

struct identity {
	__s32 fd; /* in */
	__u32 dev;
	__u64 ino;
	__s64 ctime_sec;
	__u64 size;
	__u32 ctime_nsec;
	__u32 generation;
	__s32 writers; /* descriptors and mappings that can write; below 0: it runs */
	__u32 level;   /* of the user namespace that the file system is mounted in */
	__u64 magic;   /* of the file system */
};

// remember marks the task's process with what governs the current one. It fails where
// there is no memory or no room.
static __always_inline int remember(struct task_struct *task, struct mark *mine)
{
	__u64 id, process = (__u64)BPF_CORE_READ(task, signal);
	struct mark fresh = {}, *has;
	struct scope *g;
	int i, n = 0;

	EACH_GOVERNED(i, id, g, mine) {
		if (id == fresh.id[0] || id == fresh.id[1] || id == fresh.id[2] || id == fresh.id[3])
			continue;
		if (n >= MARKS)
			return -1;
		fresh.id[n++ & (MARKS - 1)] = id;
	}
	if (!n)
		return 0;
	has = bpf_map_lookup_elem(&marks, &process);
	if (has && has->id[0] == fresh.id[0] && has->id[1] == fresh.id[1] &&
	    has->id[2] == fresh.id[2] && has->id[3] == fresh.id[3])
		return n; // a thread, or it executes once more
	return bpf_map_update_elem(&marks, &process, &fresh, 0) ? -1 : n;
}

// identify says what the kernel takes a descriptor of the caller for. stat(2)
// would name another device on overlayfs and btrfs.
SEC("syscall")
int identify(struct identity *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct program p = {};
	struct version v = {};
	struct file **at, *f = 0;
	struct inode *i;
	__u32 fd = ctx->fd;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return 9; /* EBADF */
	at = BPF_CORE_READ(table, fd);
	if (bpf_probe_read_kernel(&f, sizeof(f), at + fd) || !f)
		return 9;
	i = BPF_CORE_READ(f, f_inode);
	if (!i)
		return 9;
	identity_of(i, &p, &v);
	ctx->dev = p.dev;
	ctx->ino = p.ino;
	ctx->ctime_sec = v.ctime_sec;
	ctx->ctime_nsec = v.ctime_nsec;
	ctx->size = v.size;
	ctx->generation = v.generation;
	ctx->writers = BPF_CORE_READ(i, i_writecount.counter);
	ctx->level = BPF_CORE_READ(i, i_sb, s_user_ns, level);
	ctx->magic = BPF_CORE_READ(i, i_sb, s_magic);
	return 0;
}

// exec runs in the task that executes, past the point of no return and before
// its first instruction: SIGKILL ends it there. bprm->file is what really runs
// (of a script, the interpreter), whatever path named it.
SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec, struct task_struct *p, int old_pid, struct linux_binprm *bprm)
{
	struct event e = { .verb = EXEC };
	struct program key = {};
	struct version v = {};
	struct mark *mark = MINE();
	struct scope *g;
	int i, observe = 0;
	__u64 id;

	EACH_GOVERNED(i, id, g, mark) {
		if (!e.cgroup) // the first governed one: look at the file once
			identity_of(BPF_CORE_READ(bprm, file, f_inode), &key, &v);
		e.cgroup = key.cgroup = id;
		observe |= g->flags & F_OBSERVE;
		e.why = g->revoked ? REVOKED : differs(bpf_map_lookup_elem(&programs, &key), &v, R_EXEC);
		if (e.why)
			break;
	}
	if (!e.cgroup)
		return 0;
	if (!e.why && remember(bpf_get_current_task_btf(), mark) < 0)
		e.why = LEFT; // it cannot be held if it moves: no memory, or more than MARKS
	if (!e.why && !observe)
		return 0;
	// The signal travels by an interrupt to this processor, which can be
	// taken for the moment: once more, and if that fails too, user space is
	// told to kill the cgroup.
	if (e.why && bpf_send_signal(9) && bpf_send_signal(9))
		e.why |= NOT_KILLED;
	e.ino = key.ino;
	e.dev = key.dev;
	report(&e);
	return 0;
}

extern int bpf_send_signal_task(struct task_struct *task, int sig, enum pid_type type, __u64 value) __ksym __weak;

// leave kills a task that is marked and not, or no longer, below what governs
// it: cgroup.kill would not reach it. Moving is nobody's right, neither the
// task's nor the host's; lifted cgroups are free.
static __always_inline void leave(struct task_struct *task, struct cgroup *to, struct mark *mark)
{
	struct event e = { .verb = MOVE, .why = LEFT };
	int i, level, failed;

	for (i = 0; i < MARKS && !e.cgroup; i++) {
		struct cgroup_subsys_state *css = &to->self;
		__u64 id = mark->id[i];

		if (!id)
			break;
		if (!bpf_map_lookup_elem(&governed, &id))
			continue;
		e.cgroup = id;
		for (level = 0; level < 64 && css; level++) {
			if (BPF_CORE_READ(css, cgroup, kn, id) == id) {
				e.cgroup = 0;
				break;
			}
			css = BPF_CORE_READ(css, parent);
		}
	}
	if (!e.cgroup)
		return;
	e.pid = BPF_CORE_READ(task, tgid);
	if (task == bpf_get_current_task_btf())
		failed = bpf_send_signal(9) && bpf_send_signal(9);
	else if (bpf_send_signal_task)
		failed = bpf_send_signal_task(task, 9, PIDTYPE_TGID, 0);
	else
		failed = 1; // before 6.13: user space does
	if (failed)
		e.why |= NOT_KILLED;
	report(&e);
}

// fork marks each child and thread before it runs. A child can be made in
// another cgroup (CLONE_INTO_CGROUP).
SEC("tp_btf/sched_process_fork")
int BPF_PROG(fork, struct task_struct *parent, struct task_struct *child)
{
	struct event e = { .verb = MOVE, .why = LEFT | NOT_KILLED };
	struct mark *mine = MINE(), *mark;
	int i, n = remember(child, mine);
	struct scope *g;
	__u64 id;

	if (n < 0) {
		// Without its mark it is governed by where it is, until it
		// leaves: user space ends it, with the outermost of what governs it.
		EACH_GOVERNED(i, id, g, mine) {
			e.cgroup = id;
			break;
		}
		e.pid = BPF_CORE_READ(child, tgid);
		report(&e);
	}
	if (n <= 0)
		return 0;
	mark = mark_of(child);
	if (mark)
		leave(child, BPF_CORE_READ(child, cgroups, dfl_cgrp), mark);
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(move, struct cgroup *to, const char *path, struct task_struct *task, int threadgroup)
{
	struct mark *mark = mark_of(task);

	if (mark && !BPF_CORE_READ(to, root, hierarchy_id)) // 0: version 2
		leave(task, to, mark);
	return 0;
}

// gone forgets the mark with the last thread: from here on the process does
// nothing, and its signal_struct cannot be another's yet.
SEC("tp_btf/sched_process_exit")
int BPF_PROG(gone, struct task_struct *task)
{
	__u64 process = (__u64)BPF_CORE_READ(task, signal);

	if (BPF_CORE_READ(task, signal, live.counter) == 0)
		bpf_map_delete_elem(&marks, &process);
	return 0;
}

// judge looks an endpoint up for each governed ancestor of the current task:
// of the task, not of the socket, so that a socket that was made elsewhere and
// passed in is judged too.
static __always_inline int judge(struct event *e, struct endpoint *key)
{
	struct mark *mark = MINE();
	struct scope *g;
	__u64 id;
	int i;

	EACH_GOVERNED(i, id, g, mark) {
		e->cgroup = key->cgroup = id;
		if (g->revoked)
			e->why = REVOKED;
		else if (!bpf_map_lookup_elem(&endpoints, key))
			e->why = ABSENT;
		if (e->why) {
			__builtin_memcpy(e->addr, key->addr, 16);
			e->port = __builtin_bswap16(key->port);
			e->type = key->type;
			report(e);
			return 0; /* EPERM */
		}
	}
	return 1;
}

static __always_inline int judge4(struct bpf_sock_addr *ctx, __u8 verb, __u8 as)
{
	struct event e = { .verb = verb, .family = AF_INET };
	struct endpoint key = { .port = ctx->user_port, .verb = as, .type = ctx->type };
	__u32 ip = ctx->user_ip4;

	key.addr[10] = key.addr[11] = 0xff;
	__builtin_memcpy(key.addr + 12, &ip, 4);
	return judge(&e, &key);
}

static __always_inline int judge6(struct bpf_sock_addr *ctx, __u8 verb, __u8 as)
{
	struct event e = { .verb = verb, .family = AF_INET6 };
	struct endpoint key = { .port = ctx->user_port, .verb = as, .type = ctx->type };
	__u32 ip[4] = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] };

	__builtin_memcpy(key.addr, ip, 16);
	return judge(&e, &key);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx) { return judge4(ctx, CONNECT, CONNECT); }
SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx) { return judge6(ctx, CONNECT, CONNECT); }
SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx) { return judge4(ctx, SEND, CONNECT); }
SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx) { return judge6(ctx, SEND, CONNECT); }
SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx) { return judge4(ctx, BIND, BIND); }
SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx) { return judge6(ctx, BIND, BIND); }

// The unix hooks see a name, not an inode: what it leads to is the mount
// namespace's matter.
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

static __always_inline int judge_unix(struct bpf_sock_addr *ctx, __u8 verb)
{
	struct bpf_sock_addr_kern *k = bpf_cast_to_kern_ctx(ctx);
	struct event e = { .verb = verb, .family = AF_UNIX, .type = ctx->type };
	struct unix_name key = {};
	__u32 len = BPF_CORE_READ(k, uaddrlen);
	void *from = BPF_CORE_READ(k, uaddr);
	struct mark *mark = MINE();
	struct scope *g;
	__u64 id;
	int i, readable = 0;

	len -= 2; /* the family */
	if (len && len < UNIX_NAME) {
		len &= UNIX_NAME - 1;
		asm volatile("" : "+r"(len)); // the verifier wants to see the mask
		len &= UNIX_NAME - 1;
		readable = !bpf_probe_read_kernel(key.name, len, from + 2);
		// A path counts without the NUL that the caller may have counted.
		key.len = len;
		if (key.name[0] && !key.name[(len - 1) & (UNIX_NAME - 1)])
			key.len--;
	}
	EACH_GOVERNED(i, id, g, mark) {
		e.cgroup = key.cgroup = id;
		if (g->revoked)
			e.why = REVOKED;
		else if (!readable || !bpf_map_lookup_elem(&unix_names, &key))
			e.why = ABSENT;
		if (e.why) {
			report(&e);
			return 0;
		}
	}
	return 1;
}

SEC("cgroup/connect_unix")
int connect_unix(struct bpf_sock_addr *ctx) { return judge_unix(ctx, CONNECT_UNIX); }
SEC("cgroup/sendmsg_unix")
int sendmsg_unix(struct bpf_sock_addr *ctx) { return judge_unix(ctx, SEND_UNIX); }

// sock_create is asked about internet sockets only. Raw ones, pings, MPTCP
// (whose later paths the kernel opens by itself), SCTP and whatever else has
// ways to send that the hooks above do not see are not made at all.
SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	struct event e = { .verb = SOCKET, .family = ctx->family, .type = ctx->type, .protocol = ctx->protocol };
	struct mark *mark = MINE();
	struct scope *g;
	__u64 id;
	int i, ok = (ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP) ||
			(ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP);

	EACH_GOVERNED(i, id, g, mark) {
		if (ok && !g->revoked)
			continue;
		e.cgroup = id;
		e.why = g->revoked ? REVOKED : ABSENT;
		report(&e);
		return 0;
	}
	return 1;
}
