/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What gate.c and lsm.c share: the maps, and who governs the current task. The
 * second object is loaded onto the maps of the first.
 */
#pragma once

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

// The helpers that are used are open to GPL programs only: of the two licences,
// the kernel is told this one.
char LICENSE[] SEC("license") = "GPL";

// A governed cgroup stands at one of these levels below the hierarchy's root;
// its descendants may be deeper. The loader's canary catches one that does not.
#define LEVELS 24

#define F_OBSERVE 1 /* allowed executions are events too */

enum verb {
	EXEC = 1, CONNECT, SEND, BIND, CONNECT_UNIX, SEND_UNIX, SOCKET, MOVE,
	MAP, OPEN, CHANGE, LISTEN, TRACE, SIGNAL, MOUNT, SYSTEM, /* lsm.c */
};
enum why { ALLOWED = 0, ABSENT, CHANGED, REVOKED, LEFT, NOT_KILLED = 0x80 };

struct scope {
	__u32 revoked;
	__u32 flags;
};

// program names an inode; the version says which state of it was approved.
struct program {
	__u64 cgroup;
	__u64 ino;
	__u32 dev;
	__u32 pad;
};

struct version {
	__s64 ctime_sec;
	__u64 size;
	__u32 ctime_nsec;
	__u32 generation;
	__u32 rights; /* R_EXEC, R_MAP */
	__u32 pad;
};

#define R_EXEC 1
#define R_MAP 2 /* executable; held by lsm.c alone */

// endpoint: addresses of IPv4 are in their form as IPv6 (::ffff:a.b.c.d), so
// that either kind of socket asks for the same thing.
struct endpoint {
	__u64 cgroup;
	__u8 addr[16];
	__u16 port; /* network order */
	__u8 verb;  /* CONNECT (which covers SEND) or BIND */
	__u8 type;  /* SOCK_STREAM or SOCK_DGRAM */
	__u32 pad;
};

#define UNIX_NAME 128 /* sun_path has 108 */

struct unix_name {
	__u64 cgroup;
	__u32 len;
	__u32 pad;
	__u8 name[UNIX_NAME];
};

struct event {
	__u64 at; /* CLOCK_BOOTTIME, ns */
	__u64 cgroup;
	__u64 ino;
	__u32 dev;
	__u32 pid;
	__u32 uid;
	__u16 port; /* host order */
	__u8 verb;
	__u8 why;
	__u8 addr[16];
	__u16 family;
	__u16 type;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u64);
	__type(value, struct scope);
} governed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__type(key, struct program);
	__type(value, struct version);
} programs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__type(key, struct endpoint);
	__type(value, __u8);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__type(key, struct unix_name);
	__type(value, __u8);
} unix_names SEC(".maps");

// marks: what governs a process, taken down when it executes and when it is
// forked, so that it is not shed by moving out of the cgroup. The key is the
// address of its signal_struct: all its threads share it, also those that the
// kernel makes for io_uring, it stays when another thread executes, and it is
// nobody else's before the last thread has gone (and the mark with it). Task
// storage would do the same, but the cgroup hooks of Linux 6.12 may not read it.
#define MARKS 4 /* that many governed cgroups within one another, at most */

struct mark {
	__u64 id[MARKS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct mark);
} marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

// orders are the events that somebody has to act on: what the kernel could not
// kill. They have a ring of their own, which no flood of denials fills.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} orders SEC(".maps");

// dropped counts events for which the ring had no room, and [1] orders. A lost
// event loses no decision; a lost order is for user space to end all.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} dropped SEC(".maps");

// build is the SHA-256 of the object that these programs came from: a daemon
// that finds pins knows whether they are its own.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[32]);
} build SEC(".maps");

static __always_inline void report(struct event *e)
{
	__u32 order = !!(e->why & NOT_KILLED);
	long lost;
	// A denial wakes the reader whatever lies unread before it; what was
	// allowed waits until the reader looks.
	__u64 wake = e->why ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;

	e->at = bpf_ktime_get_boot_ns();
	if (!e->pid)
		e->pid = bpf_get_current_pid_tgid() >> 32;
	e->uid = bpf_get_current_uid_gid();
	if (order)
		lost = bpf_ringbuf_output(&orders, e, sizeof(*e), wake);
	else
		lost = bpf_ringbuf_output(&events, e, sizeof(*e), wake);
	if (lost) {
		__u64 *n = bpf_map_lookup_elem(&dropped, &order);
		if (n)
			__sync_fetch_and_add(n, 1);
	}
}

static __always_inline struct mark *mark_of(struct task_struct *task)
{
	__u64 process = (__u64)BPF_CORE_READ(task, signal);

	return bpf_map_lookup_elem(&marks, &process);
}

// EACH_GOVERNED runs the block for each governed cgroup of the current task: g
// and id, first by where it is, then by its mark (one may come twice).
#define MINE() mark_of((struct task_struct *)bpf_get_current_task())
#define EACH_GOVERNED(i, id, g, mark)                                                   \
	for (i = 0; i < LEVELS + MARKS; i++)                                            \
		if (!(id = i < LEVELS ? bpf_get_current_ancestor_cgroup_id(i)           \
				      : mark ? mark->id[(i - LEVELS) & (MARKS - 1)] : 0)) \
			i = i < LEVELS ? LEVELS - 1 : LEVELS + MARKS;                   \
		else if ((g = bpf_map_lookup_elem(&governed, &id)))

// differs says why a file is not what was approved with the right, or 0.
static __always_inline int differs(struct version *ok, struct version *v, __u32 right)
{
	if (!ok || !(ok->rights & right))
		return ABSENT;
	if (ok->ctime_sec != v->ctime_sec || ok->ctime_nsec != v->ctime_nsec ||
	    ok->size != v->size || ok->generation != v->generation)
		return CHANGED;
	return 0;
}

static __always_inline void identity_of(struct inode *i, struct program *p, struct version *v)
{
	p->ino = BPF_CORE_READ(i, i_ino);
	p->dev = BPF_CORE_READ(i, i_sb, s_dev);
	v->size = BPF_CORE_READ(i, i_size);
	v->generation = BPF_CORE_READ(i, i_generation);
	if (bpf_core_field_exists(i->i_ctime_sec)) {
		v->ctime_sec = BPF_CORE_READ(i, i_ctime_sec);
		// The top bit says that somebody asked (multigrain timestamps).
		v->ctime_nsec = BPF_CORE_READ(i, i_ctime_nsec) & 0x7fffffff;
	} else if (bpf_core_field_exists(((struct inode___6_6 *)i)->__i_ctime)) {
		v->ctime_sec = BPF_CORE_READ((struct inode___6_6 *)i, __i_ctime.tv_sec);
		v->ctime_nsec = BPF_CORE_READ((struct inode___6_6 *)i, __i_ctime.tv_nsec);
	} else {
		v->ctime_sec = BPF_CORE_READ((struct inode___older *)i, i_ctime.tv_sec);
		v->ctime_nsec = BPF_CORE_READ((struct inode___older *)i, i_ctime.tv_nsec);
	}
}

