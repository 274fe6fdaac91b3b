/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The part of lsm.c that decides on what else a process reaches: sockets, other
 * processes, and the kernel itself.
 */
#pragma once

// within says whether a cgroup is the one with that id, or below it.
struct climb {
	struct cgroup_subsys_state *css;
	__u64 id;
	int found;
};

static long climb_step(__u32 i, struct climb *c)
{
	struct cgroup_subsys_state *css = c->css;

	if (!css)
		return 1;
	if (BPF_CORE_READ(css, cgroup, kn, id) == c->id) {
		c->found = 1;
		return 1;
	}
	c->css = BPF_CORE_READ(css, parent);
	return 0;
}

__noinline int within(__u64 cgroup, __u64 id)
{
	struct climb c = { .css = &((struct cgroup *)cgroup)->self, .id = id };

	if (!cgroup)
		return 0;
	bpf_loop(DEPTH, climb_step, &c, 0);
	return c.found;
}

#define SOCK_RAW 3
#define SOCK_TYPE_MASK 0xf
#define AF_NETLINK 16
#define NETLINK_ROUTE 0

// refuse_all refuses what is nobody's right inside.
static __always_inline int refuse_all(struct event *e)
{
	struct who w = {};

	if (!scopes(&w))
		return 0;
	return refuse(e, &w, 0, w.why ? w.why : ABSENT);
}

// check_socket: TCP, UDP, unix and questions about interfaces. All else (packet,
// vsock, AF_ALG, XDP, other netlink…) is not made; what the cgroup hooks do not
// see is among it.
SEC("lsm/socket_create")
int BPF_PROG(check_socket, int family, int type, int protocol, int kern)
{
	struct event e = { .verb = SOCKET, .family = family, .type = type, .protocol = protocol };

	type &= SOCK_TYPE_MASK;
	if (kern || family == AF_UNIX || (family == AF_NETLINK && protocol == NETLINK_ROUTE))
		return 0;
	if ((family == AF_INET || family == AF_INET6) &&
	    ((type == SOCK_STREAM && (protocol == IPPROTO_TCP || !protocol)) ||
	     (type == SOCK_DGRAM && (protocol == IPPROTO_UDP || !protocol))))
		return 0;
	return refuse_all(&e);
}

// check_listen: listening without bind would take a port that nobody set.
SEC("lsm/socket_listen")
int BPF_PROG(check_listen, struct socket *sock, int backlog)
{
	struct event e = { .verb = LISTEN };
	struct sock *sk = BPF_CORE_READ(sock, sk);

	e.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (e.family == AF_UNIX || BPF_CORE_READ(sk, __sk_common.skc_num))
		return 0;
	return refuse_all(&e);
}

// judge_peer decides on a unix socket that is to be reached. One that was made
// in the governed cgroup may be; so may one by a path where the place allows
// writing, whatever name led there, and an abstract one whose name is set. One
// without a name is reached by descriptors alone.
static __always_inline int judge_peer(struct sock *other, __u8 verb)
{
	struct unix_sock *u = (struct unix_sock *)other;
	struct event e = { .verb = verb, .family = AF_UNIX };
	struct dentry *d = BPF_CORE_READ(u, path.dentry);
	struct unix_address *addr = BPF_CORE_READ(u, addr);
	struct unix_name key = {};
	struct who w = {};
	__u32 len = 0;
	int i;

	if (!scopes(&w))
		return 0;
	if (w.why)
		return refuse(&e, &w, 0, w.why);
	if (d)
		tell(&e, d);
	else if (addr) {
		len = BPF_CORE_READ(addr, len) - 2; /* the family */
		if (len && len < UNIX_NAME) {
			len &= UNIX_NAME - 1;
			asm volatile("" : "+r"(len));
			len &= UNIX_NAME - 1;
			if (!bpf_probe_read_kernel(key.name, len, addr->name[0].sun_path))
				key.len = len;
		}
	}
	for (i = 0; i < MARKS && i < w.n; i++) {
		key.cgroup = w.id[i];
		if (within(address(BPF_CORE_READ(other, sk_cgrp_data.cgroup)), w.id[i]))
			continue;
		if (d ? access_of(address(d), w.id[i]) & A_WRITE :
			!addr || (key.len && bpf_map_lookup_elem(&unix_names, &key)))
			continue;
		return refuse(&e, &w, i, ABSENT);
	}
	return 0;
}

SEC("lsm/unix_stream_connect")
int BPF_PROG(check_unix, struct sock *sock, struct sock *other)
{
	return judge_peer(other, CONNECT_UNIX);
}

SEC("lsm/unix_may_send")
int BPF_PROG(check_unix_send, struct socket *sock, struct socket *other)
{
	return judge_peer(BPF_CORE_READ(other, sk), SEND_UNIX);
}

// judge_task wants what governs the current process to govern the other, too.
static __always_inline int judge_task(struct task_struct *task, __u8 verb)
{
	struct event e = { .verb = verb };
	struct mark *mark;
	struct who w = {};
	int i;

	if (!scopes(&w))
		return 0;
	e.protocol = BPF_CORE_READ(task, tgid);
	if (e.protocol == bpf_get_current_pid_tgid() >> 32)
		return 0;
	mark = mark_of(task);
	for (i = 0; i < MARKS && i < w.n; i++)
		if (!mark || (mark->id[0] != w.id[i] && mark->id[1] != w.id[i] &&
			      mark->id[2] != w.id[i] && mark->id[3] != w.id[i]))
			return refuse(&e, &w, i, ABSENT);
	return 0;
}

// check_trace is asked for ptrace, and for what else looks into a process: its
// memory, descriptors, environment.
SEC("lsm/ptrace_access_check")
int BPF_PROG(check_trace, struct task_struct *child) { return judge_task(child, TRACE); }

SEC("lsm/task_kill")
int BPF_PROG(check_kill, struct task_struct *p) { return judge_task(p, SIGNAL); }

SEC("lsm/task_setscheduler")
int BPF_PROG(check_scheduler, struct task_struct *p) { return judge_task(p, TRACE); }

SEC("lsm/task_setnice")
int BPF_PROG(check_nice, struct task_struct *p) { return judge_task(p, TRACE); }

#define F_SETOWN 8
#define F_SETSIG 10
#define F_SETOWN_EX 15

// check_fcntl: a descriptor can be made to send a signal of choice to anybody.
SEC("lsm/file_fcntl")
int BPF_PROG(check_fcntl, struct file *file, unsigned int cmd, unsigned long arg)
{
	struct event e = { .verb = SIGNAL };

	if (cmd != F_SETSIG && cmd != F_SETOWN_EX &&
	    (cmd != F_SETOWN || arg == bpf_get_current_pid_tgid() >> 32 || !arg))
		return 0;
	return refuse_all(&e);
}

#define TIOCSTI 0x5412
#define TIOCLINUX 0x541c
#define FIOSETOWN 0x8901
#define SIOCSPGRP 0x8902

// judge_ioctl: neither does it type into a terminal.
static __always_inline int judge_ioctl(unsigned int cmd)
{
	struct event e = { .verb = SIGNAL, .protocol = cmd };

	if (cmd != TIOCSTI && cmd != TIOCLINUX && cmd != FIOSETOWN && cmd != SIOCSPGRP)
		return 0;
	return refuse_all(&e);
}

SEC("lsm/file_ioctl")
int BPF_PROG(check_ioctl, struct file *file, unsigned int cmd, unsigned long arg) { return judge_ioctl(cmd); }

// Calls of 32 bits come here where the kernel has the hook, and above otherwise.
SEC("lsm/file_ioctl_compat")
int BPF_PROG(check_ioctl32, struct file *file, unsigned int cmd, unsigned long arg) { return judge_ioctl(cmd); }

// Mounts and namespaces change what paths mean: nobody's right inside.
#define NEVER(name, hook, v)                        \
	SEC("lsm/" #hook)                           \
	int BPF_PROG(name)                          \
	{                                           \
		struct event e = { .verb = v };     \
		return refuse_all(&e);              \
	}

NEVER(check_mount, sb_mount, MOUNT)
NEVER(check_umount, sb_umount, MOUNT)
NEVER(check_pivot, sb_pivotroot, MOUNT)
NEVER(check_move_mount, move_mount, MOUNT)
NEVER(check_userns, userns_create, SYSTEM)
NEVER(check_bpf, bpf, SYSTEM)
NEVER(check_perf, perf_event_open, SYSTEM)
NEVER(check_uring_creds, uring_override_creds, SYSTEM)
NEVER(check_uring_thread, uring_sqpoll, SYSTEM)
NEVER(check_uring_cmd, uring_cmd, SYSTEM)

// Capabilities in the first user namespace that would end the gate, the kernel
// or the machine: net_admin 12, net_raw 13, sys_module 16, sys_rawio 17,
// sys_admin 21, sys_boot 22, sys_time 25, mknod 27, audit_control 30,
// mac_override 32, mac_admin 33, syslog 34, perfmon 38, bpf 39,
// checkpoint_restore 40.
#define WITHHELD (1ULL << 12 | 1ULL << 13 | 1ULL << 16 | 1ULL << 17 | 1ULL << 21 | 1ULL << 22 | 1ULL << 25 | \
		  1ULL << 27 | 1ULL << 30 | 1ULL << 32 | 1ULL << 33 | 1ULL << 34 | 1ULL << 38 | 1ULL << 39 | 1ULL << 40)
#define CAP_OPT_NOAUDIT 2

SEC("lsm/capable")
int BPF_PROG(check_capable, const struct cred *cred, struct user_namespace *ns, int cap, unsigned int opts)
{
	struct event e = { .verb = SYSTEM, .protocol = cap };
	struct who w = {};

	if (cap < 0 || cap > 63 || !(WITHHELD >> cap & 1) || BPF_CORE_READ(ns, level))
		return 0;
	if (!scopes(&w))
		return 0;
	// The kernel asks for some by the way.
	if (opts & CAP_OPT_NOAUDIT)
		return -EPERM;
	return refuse(&e, &w, 0, w.why ? w.why : ABSENT);
}
