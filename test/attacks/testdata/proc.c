// Reaching into a process outside the execution.
#include "attack.h"
#include <dirent.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

static pid_t pid(char **a) { return atoi(a[0]); }
static void *addr(char **a) { return (void *)strtoul(a[1], NULL, 16); }

static void in_proc(char **a, const char *what) {
	char p[256];
	snprintf(p, sizeof p, "/proc/%s/%s", a[0], what);
	show(TRY(open(p, O_RDONLY)));
}
static void trace(char **a) { // pid, address
	char buf[256] = "";
	TRY(ptrace(PTRACE_ATTACH, pid(a), 0, 0));
	TRY(waitpid(pid(a), NULL, 0));
	for (int i = 0; i < 8; i++) {
		errno = 0;
		long w = ptrace(PTRACE_PEEKDATA, pid(a), (char *)addr(a) + 8 * i, 0);
		if (errno) refused("peek");
		memcpy(buf + 8 * i, &w, 8);
	}
	ptrace(PTRACE_DETACH, pid(a), 0, 0);
	won(buf);
}
static void seize(char **a) {
	TRY(ptrace(PTRACE_SEIZE, pid(a), 0, 0));
	won("SEIZED");
}
static void readv_(char **a) {
	char buf[128] = "";
	struct iovec l = {buf, 64}, r = {addr(a), 64};
	TRY(process_vm_readv(pid(a), &l, 1, &r, 1, 0));
	won(buf);
}
static void writev_(char **a) { // pid, address, text
	struct iovec l = {a[2], strlen(a[2]) + 1}, r = {addr(a), strlen(a[2]) + 1};
	TRY(process_vm_writev(pid(a), &l, 1, &r, 1, 0));
}
static void mem(char **a, int write_) {
	char p[64], buf[128] = "";
	snprintf(p, sizeof p, "/proc/%s/mem", a[0]);
	int fd = TRY(open(p, write_ ? O_RDWR : O_RDONLY));
	if (write_) {
		TRY(pwrite(fd, a[2], strlen(a[2]) + 1, (off_t)addr(a)));
		return;
	}
	TRY(pread(fd, buf, 64, (off_t)addr(a)));
	won(buf);
}
static void mem_read(char **a) { mem(a, 0); }
static void mem_write(char **a) { mem(a, 1); }
static void getfd(char **a) { // pid, address, descriptor
	int p = TRY(syscall(SYS_pidfd_open, pid(a), 0));
	int fd = TRY(syscall(SYS_pidfd_getfd, p, atoi(a[2]), 0));
	char buf[256] = "";
	TRY(pread(fd, buf, sizeof buf - 1, 0));
	won(buf);
}
static void procfd(char **a) {
	char p[64];
	snprintf(p, sizeof p, "fd/%s", a[2]);
	in_proc(a, p);
}
static void root(char **a) { // pid, path of the secret
	char p[4096];
	snprintf(p, sizeof p, "root%s", a[1]);
	in_proc(a, p);
}
static void cwd(char **a) { // pid, name
	char p[4096];
	snprintf(p, sizeof p, "cwd/%s", a[1]);
	in_proc(a, p);
}
static void env(char **a) { in_proc(a, "environ"); }
static void cmdline(char **a) { in_proc(a, "cmdline"); }
static void maps(char **a) { in_proc(a, "maps"); }

// everyone prints one file of every process there is.
static void everyone(char **a) { // name of the file
	char p[512], buf[65536];
	DIR *d = opendir("/proc");
	if (!d) refused("opendir");
	for (struct dirent *e; (e = readdir(d));) {
		snprintf(p, sizeof p, "/proc/%s/%s", e->d_name, a[0]);
		int fd = atoi(e->d_name) > 0 ? open(p, O_RDONLY) : -1;
		if (fd < 0) continue;
		ssize_t n = read(fd, buf, sizeof buf);
		if (n > 0) fwrite(buf, 1, n, stdout);
		close(fd);
	}
}
static void kill_(char **a) { TRY(kill(pid(a), SIGKILL)); }
static void stop_(char **a) { TRY(kill(pid(a), SIGSTOP)); }
static void pidfd_kill(char **a) {
	int p = TRY(syscall(SYS_pidfd_open, pid(a), 0));
	TRY(syscall(SYS_pidfd_send_signal, p, SIGKILL, NULL, 0));
}
static void queue(char **a) {
	union sigval v = {0};
	TRY(sigqueue(pid(a), SIGKILL, v));
}
// sweep signals every process that has the name, whatever its number here.
static void sweep(char **a) { // name
	int hit = 0;
	for (pid_t p = 2; p < 4194304 && p < 400000; p++) {
		char f[64], buf[64] = "";
		snprintf(f, sizeof f, "/proc/%d/comm", p);
		int fd = open(f, O_RDONLY);
		if (fd < 0) continue;
		ssize_t n = read(fd, buf, sizeof buf - 1);
		close(fd);
		if (n > 0 && !strncmp(buf, a[0], strlen(a[0])) && p != getpid() && kill(p, SIGKILL) == 0) hit++;
	}
	if (!hit) {
		errno = ESRCH;
		refused("kill");
	}
}
static void limit(char **a) {
	struct rlimit l = {77, 77};
	TRY(prlimit(pid(a), RLIMIT_NOFILE, &l, NULL));
}
static void nice_(char **a) { TRY(setpriority(PRIO_PROCESS, pid(a), 15)); }
static void affinity(char **a) {
	cpu_set_t s;
	CPU_ZERO(&s);
	CPU_SET(0, &s);
	TRY(sched_setaffinity(pid(a), sizeof s, &s));
}
static void enter(char **a) { // pid, path: into the mount namespace of another process
	char p[64];
	snprintf(p, sizeof p, "/proc/%s/ns/mnt", a[0]);
	int fd = TRY(open(p, O_RDONLY));
	TRY(setns(fd, CLONE_NEWNS));
	show(TRY(open(a[1], O_RDONLY)));
}
static void enter_pidfd(char **a) { // pid, path: all its namespaces at once
	int p = TRY(syscall(SYS_pidfd_open, pid(a), 0));
	TRY(setns(p, CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS));
	show(TRY(open(a[1], O_RDONLY)));
}
static void idle(char **a) { // last of all to be given a processor
	struct sched_param p = {0};
	TRY(sched_setscheduler(pid(a), SCHED_IDLE, &p));
}
static void ioprio(char **a) { TRY(syscall(SYS_ioprio_set, 1, pid(a), 3 << 13)); } // last at the disk
static void advise(char **a) { // pid, address: its memory out to swap
	struct iovec v = {(void *)((uintptr_t)addr(a) & ~4095UL), 4096};
	int p = TRY(syscall(SYS_pidfd_open, pid(a), 0));
	TRY(syscall(SYS_process_madvise, p, &v, 1, 20 /* MADV_COLD */, 0));
	won("ADVISED");
}
static void robust(char **a) { // where its locks are
	void *head;
	size_t n;
	TRY(syscall(SYS_get_robust_list, pid(a), &head, &n));
	won("LIST-SEEN");
}
static void thread(char **a) { // its environment, by the directory of its thread
	char p[64];
	snprintf(p, sizeof p, "task/%s/environ", a[0]);
	in_proc(a, p);
}
static void tgkill_(char **a) { TRY(syscall(SYS_tgkill, pid(a), pid(a), SIGKILL)); }
static void owner(char **a) { // the kernel signals whoever is said to own a descriptor
	int p[2];
	TRY(pipe(p));
	TRY(fcntl(p[0], F_SETSIG, SIGKILL));
	TRY(fcntl(p[0], F_SETOWN, pid(a)));
	TRY(fcntl(p[0], F_SETFL, O_ASYNC));
	TRY(write(p[1], "x", 1));
}
static void inherited(char **a) { // descriptor
	char buf[256] = "";
	TRY(pread(atoi(a[0]), buf, sizeof buf - 1, 0));
	won(buf);
}
static void parent(char **a) {
	char p[16];
	snprintf(p, sizeof p, "%d", getppid());
	char *b[] = {p};
	in_proc(b, a[0]);
}
static void oom(char **a) {
	char p[64];
	snprintf(p, sizeof p, "/proc/%s/oom_score_adj", a[0]);
	int fd = TRY(open(p, O_WRONLY));
	TRY(write(fd, "1000", 4));
}
static void kcmp(char **a) { // learn about the kernel's objects behind a process
	TRY(syscall(SYS_kcmp, pid(a), pid(a), 0, 0, 1));
	won("COMPARED");
}
static const struct technique all[] = {
	{"ptrace", trace}, {"seize", seize}, {"readv", readv_}, {"writev", writev_}, {"mem", mem_read},
	{"mem-write", mem_write}, {"pidfd-getfd", getfd}, {"fd", procfd}, {"root", root}, {"cwd", cwd},
	{"environ", env}, {"cmdline", cmdline}, {"maps", maps}, {"everyone", everyone}, {"kill", kill_},
	{"stop", stop_}, {"pidfd-kill", pidfd_kill}, {"sigqueue", queue}, {"sweep", sweep}, {"prlimit", limit},
	{"nice", nice_}, {"affinity", affinity}, {"setns", enter}, {"setns-pidfd", enter_pidfd}, {"idle", idle}, {"ioprio", ioprio}, {"advise", advise},
	{"robust", robust}, {"thread", thread}, {"tgkill", tgkill_}, {"owner", owner}, {"inherited", inherited},
	{"parent", parent}, {"oom", oom}, {"kcmp", kcmp}, {0},
};
int main(int argc, char **argv) { return pick(all, argc, argv); }
