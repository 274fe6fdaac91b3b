/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The part of lsm.c that decides on files.
 */
#pragma once

// places: what may be done with a file, or with what lies below a directory. The
// inode decides, and the way up from it: of the entries on the way, the first
// that decides. Every inode that is an entry, also one that decides nothing,
// stays where it is: it is neither renamed nor removed from inside.
#define A_READ 1
#define A_WRITE 2
#define A_DECIDES 4
#define A_NAMES 8 /* entries of this directory are in `names` */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__type(key, struct program);
	__type(value, __u32);
} places SEC(".maps");

// names: the same of a name in a directory, whatever bears it, or will. Where
// the inode and its name both say something, both must allow.
#define NAME 64

struct place_name {
	struct program dir;
	__u32 len;
	__u32 pad;
	__u8 name[NAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__type(key, struct place_name);
	__type(value, __u32);
} names SEC(".maps");

#define DEPTH 128 /* what lies deeper is refused */

struct walk {
	struct dentry *at;
	struct program key;
	__u32 access;
	__u32 found;
};

static __always_inline __u32 *place_of(struct dentry *d, struct program *key)
{
	struct inode *inode = BPF_CORE_READ(d, d_inode);

	if (!inode)
		return 0;
	key->ino = BPF_CORE_READ(inode, i_ino);
	key->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	return bpf_map_lookup_elem(&places, key);
}

static __always_inline void found(struct walk *w, __u32 access)
{
	w->access = w->found ? w->access & access : access;
	w->found = 1;
}

// step looks at the directory above, first for the name of what it comes from.
static long step(__u32 i, struct walk *w)
{
	struct dentry *at = w->at, *up = BPF_CORE_READ(at, d_parent);
	__u32 *place, len;

	if (up == at)
		return 1;
	place = place_of(up, &w->key);
	if (place && *place & A_NAMES) {
		struct place_name key = { .dir = w->key };
		__u32 *name;

		len = BPF_CORE_READ(at, d_name.len);
		if (len && len < NAME) {
			key.len = len;
			len &= NAME - 1;
			asm volatile("" : "+r"(len));
			len &= NAME - 1;
			if (bpf_probe_read_kernel(key.name, len, BPF_CORE_READ(at, d_name.name))) {
				w->access = 0;
				w->found = 1;
				return 1;
			}
			name = bpf_map_lookup_elem(&names, &key);
			if (name)
				found(w, *name);
		}
	}
	if (w->found)
		return 1;
	w->at = up;
	if (place && *place & A_DECIDES)
		found(w, *place); // and one step more, for its name
	return 0;
}

// address makes a number of a pointer, which functions that are verified by
// themselves want.
static __always_inline __u64 address(void *p)
{
	__u64 n = 0;

	bpf_probe_read_kernel(&n, sizeof(n), &p);
	return n;
}

// access_of gives what the cgroup may do with what is, or will be, at a dentry.
// A rename that goes on meanwhile moves it between places of which neither
// allows more than was allowed before (see rename).
__noinline __u32 access_of(__u64 dentry, __u64 cgroup)
{
	struct walk w = { .at = (struct dentry *)dentry, .key = { .cgroup = cgroup } };
	__u32 *own = place_of(w.at, &w.key);

	if (own && *own & A_DECIDES)
		found(&w, *own);
	bpf_loop(DEPTH, step, &w, 0);
	return w.found ? w.access & (A_READ | A_WRITE) : 0;
}

// fixed says whether the dentry's inode is an entry of the cgroup.
static __always_inline int fixed(struct dentry *d, __u64 cgroup)
{
	struct program key = { .cgroup = cgroup };

	return place_of(d, &key) != 0;
}

static __always_inline void tell(struct event *e, struct dentry *d)
{
	struct inode *inode = BPF_CORE_READ(d, d_inode);

	if (!inode) // it is not there yet: its directory
		inode = BPF_CORE_READ(d, d_parent, d_inode);
	e->ino = BPF_CORE_READ(inode, i_ino);
	e->dev = BPF_CORE_READ(inode, i_sb, s_dev);
}

// judge_place wants the access to what is at the dentry, and that it may go away
// if it is to.
static __always_inline int judge_place(struct dentry *d, __u8 verb, __u32 need, int goes)
{
	struct event e = { .verb = verb };
	struct who w = {};
	int i;

	if (!scopes(&w))
		return 0;
	tell(&e, d);
	if (w.why)
		return refuse(&e, &w, 0, w.why);
	for (i = 0; i < MARKS && i < w.n; i++)
		if ((access_of(address(d), w.id[i]) & need) != need || (goes && fixed(d, w.id[i])))
			return refuse(&e, &w, i, ABSENT);
	return 0;
}

#define FMODE_READ 1
#define FMODE_WRITE 2
#define FMODE_EXEC 0x20
#define O_TRUNC 01000
#define MNT_INTERNAL 0x4000

// judge_open: what is open for writing must be no program or library of the
// cgroup, for what is mapped already would change with it.
static __always_inline int judge_open(struct file *file)
{
	struct dentry *d = BPF_CORE_READ(file, f_path.dentry);
	struct event e = { .verb = OPEN };
	struct program key = {};
	struct version v;
	__u32 need = 0;
	struct who w = {};
	int i;

	// Pipes, sockets and memory that the process has already, by /proc.
	if (BPF_CORE_READ(file, f_path.mnt, mnt_flags) & MNT_INTERNAL)
		return 0;
	if (!scopes(&w))
		return 0;
	if (BPF_CORE_READ(file, f_mode) & FMODE_READ)
		need |= A_READ;
	if (BPF_CORE_READ(file, f_mode) & FMODE_WRITE || BPF_CORE_READ(file, f_flags) & O_TRUNC)
		need |= A_WRITE;
	identity_of(BPF_CORE_READ(file, f_inode), &key, &v);
	e.ino = key.ino;
	e.dev = key.dev;
	if (w.why)
		return refuse(&e, &w, 0, w.why);
	for (i = 0; i < MARKS && i < w.n; i++) {
		key.cgroup = w.id[i];
		if ((access_of(address(d), w.id[i]) & need) != need)
			return refuse(&e, &w, i, ABSENT);
		if (need & A_WRITE && bpf_map_lookup_elem(&programs, &key))
			return refuse(&e, &w, i, CHANGED);
	}
	return 0;
}

SEC("lsm/file_open")
int BPF_PROG(check_open, struct file *file)
{
	// The kernel reads what is to be executed: check_exec decides.
	if (BPF_CORE_READ(file, f_flags) & FMODE_EXEC)
		return 0;
	return judge_open(file);
}

// check_receive: a descriptor that comes by a unix socket counts as opened.
SEC("lsm/file_receive")
int BPF_PROG(check_receive, struct file *file) { return judge_open(file); }

SEC("lsm/path_truncate")
int BPF_PROG(check_truncate, const struct path *path)
{
	return judge_place(BPF_CORE_READ(path, dentry), CHANGE, A_WRITE, 0);
}

SEC("lsm/path_chmod")
int BPF_PROG(check_chmod, const struct path *path)
{
	return judge_place(BPF_CORE_READ(path, dentry), CHANGE, A_WRITE, 0);
}

SEC("lsm/path_chown")
int BPF_PROG(check_chown, const struct path *path)
{
	return judge_place(BPF_CORE_READ(path, dentry), CHANGE, A_WRITE, 0);
}

#define S_IFMT 0170000
#define S_IFCHR 0020000
#define S_IFBLK 0060000

// check_mknod is asked for files that open(2) makes, too. A device is another
// way to what it stands for: none is made.
SEC("lsm/path_mknod")
int BPF_PROG(check_mknod, const struct path *dir, struct dentry *dentry, __u16 mode)
{
	__u32 need = A_WRITE;

	if ((mode & S_IFMT) == S_IFCHR || (mode & S_IFMT) == S_IFBLK)
		need = ~0;
	return judge_place(dentry, CHANGE, need, 0);
}

SEC("lsm/path_mkdir")
int BPF_PROG(check_mkdir, const struct path *dir, struct dentry *dentry)
{
	return judge_place(dentry, CHANGE, A_WRITE, 0);
}

SEC("lsm/path_symlink")
int BPF_PROG(check_symlink, const struct path *dir, struct dentry *dentry)
{
	return judge_place(dentry, CHANGE, A_WRITE, 0);
}

SEC("lsm/path_unlink")
int BPF_PROG(check_unlink, const struct path *dir, struct dentry *dentry)
{
	return judge_place(dentry, CHANGE, A_WRITE, 1);
}

SEC("lsm/path_rmdir")
int BPF_PROG(check_rmdir, const struct path *dir, struct dentry *dentry)
{
	return judge_place(dentry, CHANGE, A_WRITE, 1);
}

#define EXDEV 18
#define RENAME_EXCHANGE 2

// judge_move wants that both ends may be written and that no more is allowed at
// the new one than at the old: a rename or a link must not open anything. EXDEV
// says the latter, so that mv(1) copies, which then is refused as it should be.
static __always_inline int judge_move(struct dentry *from, struct dentry *to, int link, int exchange)
{
	struct event e = { .verb = CHANGE };
	struct who w = {};
	__u32 a, b;
	int i;

	if (!scopes(&w))
		return 0;
	tell(&e, from);
	if (w.why)
		return refuse(&e, &w, 0, w.why);
	for (i = 0; i < MARKS && i < w.n; i++) {
		a = access_of(address(from), w.id[i]);
		b = access_of(address(to), w.id[i]);
		if (!(a & b & A_WRITE) || (!link && (fixed(from, w.id[i]) || fixed(to, w.id[i]))))
			return refuse(&e, &w, i, ABSENT);
		if (b & ~a || (exchange && a != b)) {
			refuse(&e, &w, i, ABSENT);
			return -EXDEV;
		}
	}
	return 0;
}

SEC("lsm/path_rename")
int BPF_PROG(check_rename, const struct path *old_dir, struct dentry *from, const struct path *new_dir,
	     struct dentry *to, unsigned int flags)
{
	return judge_move(from, to, 0, flags & RENAME_EXCHANGE);
}

SEC("lsm/path_link")
int BPF_PROG(check_link, struct dentry *from, const struct path *new_dir, struct dentry *to)
{
	return judge_move(from, to, 1, 0);
}

SEC("lsm/path_chroot")
int BPF_PROG(check_chroot, const struct path *path)
{
	return judge_place(BPF_CORE_READ(path, dentry), CHANGE, ~0, 0);
}
