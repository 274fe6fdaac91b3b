//go:build ignore

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What the tier kernel holds beyond gate.c: programs of BPF LSM, asked before
// the act, that refuse with EPERM. They share gate.c's maps and its notion of
// who is governed; uid 0 is nobody special.

#include "common.h"

#define EPERM 1
#define PROT_EXEC 4

// who are the governed cgroups of the current task.
struct who {
	__u64 id[MARKS];
	__u32 n;
	__u32 why; /* REVOKED, or LEFT: more than MARKS */
};

// scopes finds them and gives how many there are.
__noinline int scopes(struct who *w)
{
	struct mark *mark = MINE();
	struct scope *g;
	__u64 id;
	int i;

	if (!w)
		return 0;
	EACH_GOVERNED(i, id, g, mark) {
		if (id == w->id[0] || id == w->id[1] || id == w->id[2] || id == w->id[3])
			continue;
		if (w->n >= MARKS) {
			w->why = LEFT;
			break;
		}
		w->id[w->n++ & (MARKS - 1)] = id;
		if (g->revoked)
			w->why = REVOKED;
	}
	return w->n;
}

static __always_inline int refuse(struct event *e, struct who *w, int i, __u8 why)
{
	e->cgroup = w->id[i & (MARKS - 1)];
	e->why = why;
	report(e);
	return -EPERM;
}

// judge_file asks whether the inode, in the state in which it is, was approved
// with the right.
static __always_inline int judge_file(struct inode *inode, __u8 verb, __u32 right)
{
	struct event e = { .verb = verb };
	struct program key = {};
	struct version v = {};
	struct who w = {};
	int i, why;

	if (!scopes(&w))
		return 0;
	identity_of(inode, &key, &v);
	e.ino = key.ino;
	e.dev = key.dev;
	if (w.why)
		return refuse(&e, &w, 0, w.why);
	for (i = 0; i < MARKS && i < w.n; i++) {
		key.cgroup = w.id[i];
		why = differs(bpf_map_lookup_elem(&programs, &key), &v, right);
		if (why)
			return refuse(&e, &w, i, why);
	}
	return 0;
}

// check_exec is asked for the file that was named and for each interpreter that
// it leads to: a script counts, too.
SEC("lsm/bprm_check_security")
int BPF_PROG(check_exec, struct linux_binprm *bprm)
{
	return judge_file(BPF_CORE_READ(bprm, file, f_inode), EXEC, R_EXEC);
}

// check_map is asked for programs, dynamic loaders and libraries alike.
// Anonymous memory has no file: that is a limit.
SEC("lsm/mmap_file")
int BPF_PROG(check_map, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags)
{
	if (!file || !(prot & PROT_EXEC))
		return 0;
	return judge_file(BPF_CORE_READ(file, f_inode), MAP, R_MAP);
}

SEC("lsm/file_mprotect")
int BPF_PROG(check_protect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
{
	struct file *file = BPF_CORE_READ(vma, vm_file);

	if (!file || !(prot & PROT_EXEC))
		return 0;
	return judge_file(BPF_CORE_READ(file, f_inode), MAP, R_MAP);
}

#include "lsm_files.h"
#include "lsm_reach.h"
